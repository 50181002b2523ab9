"""The phantom is reproducible, its physics is measured where it can be, and its data set is sound."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import (
    assign_splits,
    check_dataset,
    find_cases,
    read_image,
    read_mask,
    render_phantom,
    write_phantom,
)
from edgekd.data.phantom import draw_patient, render_frame
from edgekd.data.phantom_acoustics import Scanner, compress_envelope, draw_scanner, form_envelope
from edgekd.data.phantom_anatomy import Anatomy, Region, Shadow, move_probe
from edgekd.data.phantom_display import Probe, convert_scan, locate_pixels, locate_samples
from edgekd.data.phantom_shapes import Shape
from edgekd.data.phantom_tissue import paint_attenuation, paint_echo, paint_shadows, paint_truth
from edgekd.errors import MachineError, UsageError

LINEAR = Probe("linear", depth_mm=40.0, width_mm=40.0, face_radius_mm=0.0, half_angle=0.0)
SECTOR = Probe("sector", depth_mm=40.0, width_mm=50.0, face_radius_mm=15.0, half_angle=0.5)


@pytest.fixture
def scanner() -> Scanner:
    """A machine without noise or gain error."""
    drawn = draw_scanner(np.random.default_rng(0), 40.0)
    return replace(drawn, noise_db=-200.0, gain_db=0.0, gain_slope_db=0.0, smoothing=0.0)


def _make_region(**changes: object) -> Region:
    shape = Shape(x_mm=0.0, z_mm=15.0, a_mm=5.0, b_mm=4.0, tilt=0.0)
    region = Region("solid", shape, echo_db=-12.0, attenuation_db_mm=0.0, softness=0.05, rim_db=0.0)
    return replace(region, **changes)


def _make_anatomy(**changes: object) -> Anatomy:
    """Homogeneous tissue at 0 dB without borders in the field of view."""
    anatomy = Anatomy(
        layer_depths_mm=(-20.0, -20.0, 200.0, 200.0),
        layer_waves=((), (), (), ()),
        layer_echo_db=(0.0, 0.0, 0.0, 0.0, 0.0),
        streak_db=0.0,
        blotch_db=0.0,
        texture_seed=0,
        lesions=(),
        lookalikes=(),
        shadows=(),
    )
    return replace(anatomy, **changes)


def test_a_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    image, mask = render_phantom(3, height=128, width=96)
    again, mask_again = render_phantom(3, height=128, width=96)
    assert image.shape == mask.shape == (128, 96) and image.dtype == mask.dtype == np.uint8
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert (render_phantom(4, height=128, width=96)[0] != image).mean() > 0.5


def test_frames_of_a_patient_share_the_anatomy_and_not_the_speckle() -> None:
    patient = draw_patient(11)
    (one, first), (other, second) = (render_frame(patient, index) for index in (0, 1))
    assert (one != other).mean() > 0.5
    overlap = 2 * (first & second).sum() / (first.sum() + second.sum())
    assert overlap > 0.5
    stranger = render_phantom(12)[0]

    def correlate(image: np.ndarray) -> float:
        blocks = [
            x.reshape(32, 8, 32, 8).mean(axis=(1, 3)).ravel()
            for x in (one.astype(float), image.astype(float))
        ]
        return float(np.corrcoef(*blocks)[0, 1])

    assert correlate(other) > correlate(stranger) + 0.1


def test_homogeneous_tissue_gives_fully_developed_speckle(scanner: Scanner) -> None:
    _, _, depths, steps = locate_samples(LINEAR, 256, 192)
    echo = np.zeros((256, 192), np.float32)
    envelopes = np.stack(
        [form_envelope(echo, scanner, depths, steps, np.random.default_rng(seed)) for seed in range(6)]
    )[:, 10:-10, 10:-10]
    # Rayleigh: mean over standard deviation is sqrt(pi / (4 - pi)), the mean square is the level.
    assert envelopes.mean() / envelopes.std() == pytest.approx(1.913, abs=0.04)
    assert np.mean(envelopes**2) == pytest.approx(1.0, abs=0.05)
    # A Rayleigh variable is below its median with this bound: sigma * sqrt(2 ln 2), sigma² = 1/2.
    assert np.mean(envelopes < np.sqrt(np.log(2))) == pytest.approx(0.5, abs=0.02)


def _measure_lateral_correlation(envelope: np.ndarray) -> float:
    centred = envelope - envelope.mean()
    return float((centred[:, 2:] * centred[:, :-2]).mean() / (centred**2).mean())


def test_beam_widens_away_from_the_focus(scanner: Scanner) -> None:
    focused = replace(scanner, focus_mm=10.0, focal_zone_mm=8.0)
    _, _, depths, steps = locate_samples(LINEAR, 400, 256)
    echo = np.zeros((400, 256), np.float32)
    envelope = form_envelope(echo, focused, depths, steps, np.random.default_rng(1))
    at_focus = _measure_lateral_correlation(envelope[60:140])
    below = _measure_lateral_correlation(envelope[300:380])
    assert below > at_focus + 0.2


def test_bright_top_does_not_reappear_at_the_bottom(scanner: Scanner) -> None:
    _, _, depths, steps = locate_samples(LINEAR, 256, 192)
    echo = np.full((256, 192), -60, np.float32)
    echo[:4] = 20
    envelope = form_envelope(echo, scanner, depths, steps, np.random.default_rng(1))
    assert envelope[-4:].mean() < 2 * envelope[100:200].mean()


def _scan_level(anatomy: Anatomy) -> np.ndarray:
    """Return the signal level in dB on a grid of 0.2 mm, as it reaches the transducer."""
    x, z, depths, _ = locate_samples(LINEAR, 201, 201)
    level = paint_echo(anatomy, x, z) - np.cumsum(paint_attenuation(anatomy, x, z), axis=0) * (
        depths[1] - depths[0]
    )
    return level + paint_shadows(anatomy.shadows, x, z)


@pytest.mark.parametrize("attenuation", [1.0, -0.5])
def test_lesion_shadows_or_brightens_what_lies_below(attenuation: float) -> None:
    region = _make_region(attenuation_db_mm=attenuation)
    level = _scan_level(_make_anatomy(lesions=(region,)))
    # 8 mm of lesion on the middle line.
    assert level[150, 100] == pytest.approx(-8 * attenuation, abs=0.3)
    assert level[20, 100] == pytest.approx(0.0, abs=1e-4)
    assert level[150, 20] == pytest.approx(0.0, abs=1e-4)


def test_lookalikes_leave_what_lies_below_and_are_not_in_the_truth() -> None:
    for seed in range(40):
        anatomy = draw_patient(seed).anatomy
        assert all(region.attenuation_db_mm == 0 for region in anatomy.lookalikes)
        assert all(region.attenuation_db_mm != 0 for region in anatomy.lesions)
    x, z, _, _ = locate_samples(LINEAR, 201, 201)
    region = _make_region()
    assert _scan_level(_make_anatomy(lookalikes=(region,)))[75, 100] == pytest.approx(-12, abs=0.1)
    assert not paint_truth(_make_anatomy(lookalikes=(region,)).lesions, x, z).any()


def test_strip_shadow_is_dark_below_its_reflector_only() -> None:
    shadow = Shadow(x_mm=0.0, z_mm=20.0, half_width_mm=3.0, loss_db=15.0, reflector_db=10.0)
    level = _scan_level(_make_anatomy(shadows=(shadow,)))
    assert level[140, 100] == pytest.approx(-15, abs=0.1)
    assert level[100, 100] > 5
    assert abs(level[60, 100]) < 0.1 and abs(level[140, 20]) < 0.1


def test_truth_is_the_outline() -> None:
    x, z = locate_pixels(LINEAR, 400, 400)
    truth = paint_truth((_make_region(),), x, z)
    # Pixels of 0.1 mm: the area of the ellipse.
    assert truth.sum() * 0.01 == pytest.approx(np.pi * 5 * 4, rel=0.01)
    rows, columns = np.nonzero(truth)
    assert z[rows, columns].mean() == pytest.approx(15, abs=0.1)


def test_soft_border_fades_around_the_outline() -> None:
    anatomy = _make_anatomy(lesions=(_make_region(softness=0.2),))
    x = np.array([[0.0, 4.5, 5.0, 5.5, 7.0]], np.float32)
    level = paint_echo(anatomy, x, np.full_like(x, 15))[0]
    assert level[0] == pytest.approx(-12, abs=0.1)
    assert -12 < level[1] < level[2] < level[3] < 0
    assert level[2] == pytest.approx(-6, abs=0.5)
    assert level[4] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("probe", [LINEAR, SECTOR])
def test_scan_conversion_puts_samples_where_they_were_taken(probe: Probe) -> None:
    x, z, _, _ = locate_samples(probe, 300, 280)
    picture_x, picture_z = locate_pixels(probe, 200, 200)
    for lines, truth in ((x, picture_x), (z, picture_z)):
        picture, visible = convert_scan(lines, probe, picture_x, picture_z)
        np.testing.assert_allclose(picture[visible], truth[visible], atol=0.02)
        assert not picture[~visible].any()
    share = visible.mean()
    assert share == 1 if probe.geometry == "linear" else 0.3 < share < 0.9


def test_compression_is_logarithmic_and_within_range(scanner: Scanner) -> None:
    envelope = np.full((10, 12), 1.0, np.float32)
    depths = np.linspace(0, 40, 10, dtype=np.float32)
    level, higher = (compress_envelope(envelope * factor, scanner, depths)[5, 5] for factor in (1.0, 10**0.5))
    assert level == pytest.approx(scanner.level, abs=1e-3)
    assert higher - level == pytest.approx(10 / scanner.dynamic_range_db, abs=1e-3)
    extremes = compress_envelope(envelope * np.float32(1e9), scanner, depths)
    assert extremes.max() == 1 and compress_envelope(envelope * 0, scanner, depths).min() == 0


def test_about_8_percent_of_the_frames_miss_the_lesions() -> None:
    anatomy = draw_patient(0).anatomy
    frames = [move_probe(anatomy, np.random.default_rng(seed)) for seed in range(2000)]
    # Three standard deviations of 2000 draws are 1.8 %.
    assert np.mean([not frame.lesions for frame in frames]) == pytest.approx(0.08, abs=0.018)
    assert all(frame.lookalikes for frame in frames)


def test_lesions_fill_a_plausible_share_of_the_picture() -> None:
    masks = [render_phantom(seed, height=64, width=64)[1] for seed in range(60)]
    assert {int(value) for mask in masks for value in np.unique(mask)} == {0, 1}
    assert 0.03 < np.mean(masks) < 0.12


def test_both_geometries_and_every_kind_of_lesion_occur() -> None:
    patients = [draw_patient(seed) for seed in range(150)]
    shares = np.mean([patient.probe.geometry == "linear" for patient in patients])
    assert 0.55 < shares < 0.85
    kinds = {region.kind for patient in patients for region in patient.anatomy.lesions}
    assert kinds == {"cyst", "solid", "infiltrating", "isoechoic", "hyperechoic"}
    assert {len(patient.anatomy.lesions) for patient in patients} == {1, 2, 3}
    assert {patient.num_frames for patient in patients} == {1, 2, 3}


def test_written_data_set_is_sound_and_reproducible(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_phantom(tmp_path / name, 24, seed=5, height=96, width=96, quiet=True)
    write_phantom(tmp_path / "more", 30, seed=5, height=96, width=96, quiet=True)
    write_phantom(tmp_path / "other", 24, seed=6, height=96, width=96, quiet=True)
    sets = {name: find_cases(tmp_path / name).cases for name in ("one", "two", "more", "other")}
    assert len(sets["one"]) == 24 and len(sets["more"]) == 30
    pixels = {name: [case.image.read_bytes() for case in cases] for name, cases in sets.items()}
    assert pixels["one"] == pixels["two"] == pixels["more"][:24]
    assert not set(pixels["one"]) & set(pixels["other"])
    assert 8 <= len({case.group for case in sets["one"]}) < 24
    first = sets["one"][0]
    patient_image = read_image(first.image)
    assert patient_image.shape == (96, 96) == read_mask(first.masks, 2).shape
    report = check_dataset(tmp_path / "more", quiet=True)
    assert not report.has_faults
    assert not [finding for finding in report.findings if "duplicate" in finding.kind]
    assert assign_splits(find_cases(tmp_path / "more"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError(errno.ENOSPC, "full"), MachineError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_broken_off_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: type[BaseException]
) -> None:
    original, saved = Image.Image.save, []

    def save(picture: Image.Image, path: Path) -> None:
        if len(saved) == 3:
            raise error
        saved.append(path)
        original(picture, path)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(expected):
        write_phantom(tmp_path / "out", 4, height=64, width=64, quiet=True)
    assert len(saved) == 3 and list(tmp_path.iterdir()) == []


def test_phantom_never_overwrites_and_refuses_what_cannot_be_meant(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UsageError, match="exists already"):
        write_phantom(out, 2)
    with pytest.raises(UsageError, match="without frames"):
        write_phantom(tmp_path / "new", 0)
    with pytest.raises(UsageError, match="too small"):
        write_phantom(tmp_path / "new", 1, height=32, width=256)
    with pytest.raises(UsageError, match="seed is negative"):
        write_phantom(tmp_path / "new", 1, seed=-1)
    with pytest.raises(UsageError, match="seed is negative"):
        render_phantom(-1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
