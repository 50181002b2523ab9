"""Real golden frames: never trained on, in the bundle as they are, asked for by name alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from disc_runs import build_distill_config, write_discs

from edgekd.bundle import Bundle, read_golden
from edgekd.data import find_cases, read_image
from edgekd.distill import distill, golden
from edgekd.distill.golden import render_golden
from edgekd.distill.inputs import load_inputs
from edgekd.errors import UsageError
from edgekd.specs import ClassSpec


def read_frames(data: Path, split: str) -> list[np.ndarray]:
    return [read_image(case.image) for case in find_cases(data).cases if case.split == split]


def test_they_are_images_that_the_student_did_not_learn_from(discs: Path, tmp_path: Path) -> None:
    config = build_distill_config(epochs=1, distill_epochs=1, golden=str(discs))
    result = distill(config, discs, tmp_path / "run", quiet=True)
    found = read_golden(Bundle.open(result.bundle))
    judged = [*read_frames(discs, "val"), *read_frames(discs, "test")]
    assert len(found) == len(judged) == 6
    for frame, expected in zip(found.frames, judged, strict=True):
        np.testing.assert_array_equal(frame, expected)
    # Discs of 6 to 10 pixels in frames of 40 by 36.
    assert 0.05 < found.truths.mean() < 0.3


def test_of_many_the_golden_ones_are_spread_over_the_set(tmp_path: Path) -> None:
    data = write_discs(tmp_path / "data", {"test": 15})
    spec, classes = build_distill_config().build_preprocess(), ClassSpec()
    frames = read_frames(data, "test")
    for (frame, _), place in zip(
        golden.read_golden_cases(data, spec, classes, ()), range(0, 15, 2), strict=True
    ):
        np.testing.assert_array_equal(frame, frames[place])


def test_what_was_learned_from_is_known_by_its_content(discs: Path, tmp_path: Path) -> None:
    # Drawn from the same seed under other names: the first ten are the training images of the other set.
    others = write_discs(tmp_path / "others", {"test": 12})
    inputs = load_inputs(discs, build_distill_config(golden=str(others)), quiet=True)
    assert inputs.golden is not None
    for (frame, _), expected in zip(inputs.golden, read_frames(others, "test")[10:], strict=True):
        np.testing.assert_array_equal(frame, expected)


def test_frames_without_masks_were_learned_from_too(discs: Path, tmp_path: Path) -> None:
    # The first ten are the training images again, the next six judge; of the last two one comes without mask.
    others = write_discs(tmp_path / "others", {"test": 18})
    frames = tmp_path / "frames"
    frames.mkdir()
    shutil.copy(others / "images" / "test16.png", frames / "any.png")
    config = build_distill_config(golden=str(others), unlabeled=str(frames))
    inputs = load_inputs(discs, config, quiet=True)
    expected = [read_image(others / "images" / f"test{index}.png") for index in (*range(10, 16), 17)]
    assert inputs.golden is not None
    for (frame, _), image in zip(inputs.golden, expected, strict=True):
        np.testing.assert_array_equal(frame, image)


@pytest.mark.parametrize(
    ("dtype", "bits", "white"), [("uint16", None, 65535), ("uint16", 12, 4095), ("uint8", 7, 127)]
)
def test_synthetic_ones_fill_the_bits_that_are_stored(dtype: str, bits: int | None, white: int) -> None:
    config = build_distill_config(frame_dtype=dtype, bits_stored=bits)
    deep, plain = (
        [frame for frame, _ in render_golden(one.build_preprocess())]
        for one in (config, build_distill_config())
    )
    for frame, eight in zip(deep, plain, strict=True):
        assert frame.dtype == dtype
        np.testing.assert_allclose(frame, eight * (white / 255), atol=1)
        assert frame.max() <= white


def test_a_set_that_is_all_learned_from_has_none(discs: Path, tmp_path: Path) -> None:
    shutil.copytree(discs, tmp_path / "part")
    manifest = tmp_path / "part" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], *(line for line in lines if line.endswith(",train"))]) + "\n")
    config = build_distill_config(golden=str(tmp_path / "part"))
    with pytest.raises(UsageError, match=r"no golden frame can be taken .* only images that the student"):
        load_inputs(discs, config, quiet=True)
