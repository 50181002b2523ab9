"""Cases become tensors through the preprocessing truth, and are known by their pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import Case, find_cases, hash_cases, load_cases, load_frames, read_case, read_frame
from edgekd.data.loading import hash_pixels
from edgekd.errors import InputError
from edgekd.preprocess.reference import prepare_truth, preprocess_frame
from edgekd.specs import ClassSpec, CropBox, PreprocessSpec

SPEC = PreprocessSpec(height=16, width=24)
CLASSES = ClassSpec()
MakeFolder = Callable[..., Path]


def test_tensors_are_those_of_the_preprocessing_truth(make_folder: MakeFolder) -> None:
    cases = find_cases(make_folder(3)).cases
    loaded = load_cases(cases, SPEC, CLASSES, quiet=True)
    assert loaded.images.shape == (3, 1, 16, 24) and loaded.images.dtype == np.float32
    assert loaded.truths.shape == (3, 16, 24) and loaded.truths.dtype == np.uint8
    assert loaded.names == loaded.groups == ("c0", "c1", "c2")
    assert loaded.frame_shapes == ((40, 48),) * 3
    for index, case in enumerate(cases):
        frame = np.asarray(Image.open(case.image))
        truth = (np.asarray(Image.open(case.masks[0])) > 0).astype(np.uint8)
        np.testing.assert_array_equal(loaded.images[index], preprocess_frame(frame, SPEC))
        np.testing.assert_array_equal(loaded.truths[index], prepare_truth(truth, SPEC))
    assert loaded.truths.any()


def test_groups_come_from_the_cases(make_folder: MakeFolder) -> None:
    first, second = find_cases(make_folder(2)).cases
    grouped = Case(first.name, first.image, first.masks, group="patient")
    assert load_cases([grouped, second], SPEC, CLASSES, quiet=True).groups == ("patient", "c1")


def test_no_case_is_an_error() -> None:
    with pytest.raises(InputError, match="no case to load"):
        load_cases([], SPEC, CLASSES)


def test_a_frame_is_known_by_its_pixels(make_folder: MakeFolder, tmp_path: Path) -> None:
    (case,) = find_cases(make_folder(1)).cases
    pixels = np.asarray(Image.open(case.image))
    (known,) = load_cases([case], SPEC, CLASSES, quiet=True).pixels_sha256
    Image.fromarray(pixels).save(tmp_path / "again.bmp")
    Image.fromarray(np.dstack([pixels] * 3)).save(tmp_path / "colour.png")
    changed = pixels.copy()
    changed[0, 0] ^= 1
    Image.fromarray(changed).save(tmp_path / "other.png")
    frames = load_frames(
        [tmp_path / name for name in ("again.bmp", "colour.png", "other.png")], SPEC, quiet=True
    )
    assert [sha256 == known for sha256 in frames.pixels_sha256] == [True, True, False]


def test_a_frame_is_known_by_what_the_network_sees_of_it() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    clock = frame.copy()
    clock[0] ^= 255
    cropped = SPEC.model_copy(update={"crop": CropBox(top=1, left=0, height=11, width=12)})
    assert hash_pixels(frame, cropped) == hash_pixels(clock, cropped)
    assert hash_pixels(frame, SPEC) != hash_pixels(clock, SPEC)
    coloured = SPEC.model_copy(update={"color": "rgb", "mean": (0.5,) * 3, "std": (0.25,) * 3})
    assert hash_pixels(frame, coloured) == hash_pixels(np.dstack([frame] * 3), coloured)
    assert hash_pixels(frame, coloured) != hash_pixels(np.dstack([frame, frame, clock]), coloured)


def test_a_frame_brighter_than_its_bits_is_refused(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"frame_dtype": "uint16", "scale": 1 / 4095})
    assert spec.white == 4095
    frame = np.full((20, 20), 4095, np.uint16)
    Image.fromarray(frame).save(tmp_path / "full.png")
    assert read_frame(tmp_path / "full.png", spec).max() == 4095
    frame[0, 0] = 4096
    Image.fromarray(frame).save(tmp_path / "bright.png")
    with pytest.raises(InputError, match=r"bright\.png has.*values up to 4096, expected at most 4095"):
        read_frame(tmp_path / "bright.png", spec)
    # What the crop box leaves out is not looked at: devices write their overlays in white.
    cropped = spec.model_copy(update={"crop": CropBox(top=1, left=0, height=19, width=20)})
    assert read_frame(tmp_path / "bright.png", cropped).max() == 4096


def test_16_bit_where_8_was_promised_tells_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(path)
    with pytest.raises(InputError) as caught:
        read_frame(path, SPEC)
    assert str(caught.value) == (
        f"{path} holds 16-bit pixels where 8 bits were promised: "
        "received uint16, expected uint8 (frame_dtype). "
        'Next: convert all images to 8 bit, or train with frame_dtype = "uint16"'
    )
    deep = SPEC.model_copy(update={"frame_dtype": "uint16"})
    assert read_frame(path, deep).dtype == np.uint16


def test_8_bit_where_16_was_promised_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="holds 8-bit pixels where 16 bits were promised"):
        read_frame(tmp_path / "a.png", SPEC.model_copy(update={"frame_dtype": "uint16"}))


def test_frame_comes_in_the_channel_order_of_the_spec(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 200
    Image.fromarray(pixels).save(tmp_path / "red.png")
    spec = PreprocessSpec(height=8, width=8, color="rgb", mean=(0, 0, 0), std=(1, 1, 1), scale=1)
    swapped = spec.model_copy(update={"frame_order": "bgr"})
    assert read_frame(tmp_path / "red.png", swapped)[0, 0].tolist() == [0, 0, 200]
    tensors = [preprocess_frame(read_frame(tmp_path / "red.png", each), each) for each in (spec, swapped)]
    np.testing.assert_array_equal(tensors[0], tensors[1])
    assert tensors[0][:, 0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("size", "spec"),
    [
        ((1, 1), SPEC),
        ((8, 8), SPEC.model_copy(update={"crop": CropBox(top=0, left=0, height=9, width=4)})),
    ],
    ids=["1x1", "crop outside"],
)
def test_frames_that_cannot_be_used_are_named(
    tmp_path: Path, size: tuple[int, int], spec: PreprocessSpec
) -> None:
    path = tmp_path / "odd.png"
    Image.fromarray(np.zeros(size, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"odd\.png"):
        read_frame(path, spec)


def test_mask_of_another_size_is_an_error(make_folder: MakeFolder) -> None:
    (case,) = find_cases(make_folder(1)).cases
    Image.fromarray(np.zeros((39, 48), np.uint8)).save(case.masks[0])
    with pytest.raises(InputError, match=r"c0\.png has another size than its image"):
        read_case(case, SPEC, CLASSES)


def test_hash_follows_names_and_contents_and_not_order_or_place(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    root = make_folder(3)
    cases = find_cases(root).cases
    before = hash_cases(cases)
    assert hash_cases(cases[::-1]) == before
    moved = root.rename(tmp_path / "elsewhere")
    assert hash_cases(find_cases(moved).cases) == before
    assert hash_cases(find_cases(moved).cases[:2]) != before
    (moved / "masks/c0.png").write_bytes((moved / "masks/c1.png").read_bytes())
    assert hash_cases(find_cases(moved).cases) != before


def test_hash_of_an_absent_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png cannot be read"):
        hash_cases([Case("x", tmp_path / "gone.png", (tmp_path / "gone.png",))])
