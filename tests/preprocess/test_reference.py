from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekd.errors import InputError
from edgekd.preprocess import (
    check_frame,
    convert_to_gray,
    crop_frame,
    prepare_truth,
    preprocess_frame,
    preprocess_frames,
    resize_labels,
    restore_mask,
)
from edgekd.specs import CropBox, PreprocessSpec

SIZES = st.integers(2, 90)


def build_plain_spec(height: int, width: int, **fields: Any) -> PreprocessSpec:
    """A spec whose tensor holds the resized pixels themselves."""
    channels = 3 if fields.get("color") == "rgb" else 1
    neutral = {"scale": 1.0, "mean": (0.0,) * channels, "std": (1.0,) * channels}
    return PreprocessSpec(height=height, width=width, **(neutral | fields))


def draw_frame(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@settings(max_examples=60, deadline=None)
@given(in_height=SIZES, in_width=SIZES, height=SIZES, width=SIZES)
def test_antialiased_resize_is_pillows(in_height: int, in_width: int, height: int, width: int) -> None:
    frame = draw_frame((in_height, in_width))
    resized = preprocess_frame(frame, build_plain_spec(height, width))[0]
    image = Image.fromarray(frame.astype(np.float32))
    pillow = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resized, pillow, atol=255 * 5e-7)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(2, 2), (5, 71), (64, 64), (97, 33), (200, 3)])
def test_resize_is_torchs(size: tuple[int, int], antialias: bool) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    frame = draw_frame((61, 43, 3), "uint16")
    spec = build_plain_spec(*size, color="rgb", frame_dtype="uint16", antialias=antialias)
    planes = torch.from_numpy(frame.astype(np.float64)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(
        planes, size=size, mode="bilinear", antialias=antialias, align_corners=False
    )
    np.testing.assert_allclose(preprocess_frame(frame, spec), expected[0].numpy(), atol=65535 * 2e-7)


@settings(max_examples=60, deadline=None)
@given(in_height=SIZES, in_width=SIZES, value=st.integers(0, 65535), antialias=st.booleans())
def test_constant_frame_stays_constant(in_height: int, in_width: int, value: int, antialias: bool) -> None:
    frame = np.full((in_height, in_width), value, dtype=np.uint16)
    spec = build_plain_spec(17, 31, frame_dtype="uint16", antialias=antialias)
    np.testing.assert_allclose(preprocess_frame(frame, spec), value, rtol=2e-7)


def test_normalisation_subtracts_the_mean_and_divides_by_the_std() -> None:
    frame = np.array([[0, 255], [51, 102]], dtype=np.uint8)
    spec = PreprocessSpec(height=2, width=2, scale=1 / 255, mean=(0.5,), std=(0.25,))
    np.testing.assert_allclose(preprocess_frame(frame, spec), [[[-2.0, 2.0], [-1.2, -0.4]]], atol=1e-7)


def test_each_channel_has_its_own_normalisation() -> None:
    frame = np.full((4, 4, 3), (10, 20, 30), dtype=np.uint8)
    spec = PreprocessSpec(
        height=2, width=2, color="rgb", scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 6.0)
    )
    tensor = preprocess_frame(frame, spec)
    assert tensor.shape == (3, 2, 2) and tensor.dtype == np.float32 and tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor[:, 0, 0], [(5 - 1) / 2, (10 - 2) / 4, (15 - 3) / 6], rtol=1e-7)


@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_bgr_frame_equals_the_same_frame_as_rgb(color: str) -> None:
    frame = draw_frame((30, 40, 3))
    rgb = preprocess_frame(frame, build_plain_spec(8, 9, color=color))
    bgr = preprocess_frame(frame[..., ::-1], build_plain_spec(8, 9, color=color, frame_order="bgr"))
    np.testing.assert_array_equal(rgb, bgr)
    assert np.abs(rgb - preprocess_frame(frame[..., ::-1], build_plain_spec(8, 9, color=color))).max() > 1


def test_gray_frame_for_a_colour_tensor_is_repeated() -> None:
    frame = draw_frame((20, 30))
    tensor = preprocess_frame(frame, build_plain_spec(7, 8, color="rgb"))
    np.testing.assert_array_equal(
        tensor, np.repeat(preprocess_frame(frame, build_plain_spec(7, 8)), 3, axis=0)
    )


def test_luma_is_pillows_for_every_level_of_a_channel() -> None:
    frame = draw_frame((64, 256, 3))
    frame[:3] = 0
    for channel in range(3):
        frame[channel, :, channel] = np.arange(256)
    np.testing.assert_array_equal(convert_to_gray(frame), np.asarray(Image.fromarray(frame).convert("L")))


def test_luma_of_sixteen_bits_does_not_overflow() -> None:
    frame = np.full((2, 2, 3), 65535, dtype=np.uint16)
    luma = convert_to_gray(frame)
    assert luma.dtype == np.uint16
    np.testing.assert_array_equal(luma, 65535)


def test_crop_is_applied_before_the_resize() -> None:
    frame = draw_frame((50, 60))
    spec = build_plain_spec(16, 16, crop=CropBox(top=7, left=11, height=21, width=33))
    alone = preprocess_frame(frame[7:28, 11:44], build_plain_spec(16, 16))
    np.testing.assert_array_equal(preprocess_frame(frame, spec), alone)


def test_strides_do_not_matter() -> None:
    wide = draw_frame((40, 80, 3), "uint16")
    view = wide[::-2, 3:71:3]
    spec = build_plain_spec(9, 10, frame_dtype="uint16")
    assert not view.flags.c_contiguous
    np.testing.assert_array_equal(preprocess_frame(view, spec), preprocess_frame(view.copy(), spec))


def test_the_frame_is_left_alone() -> None:
    frame = draw_frame((12, 13))
    before = frame.copy()
    preprocess_frame(frame, build_plain_spec(4, 4))
    np.testing.assert_array_equal(frame, before)


def test_batch_of_different_sizes() -> None:
    frames = [draw_frame((20, 30)), draw_frame((31, 17, 3), seed=1)]
    spec = build_plain_spec(6, 7)
    batch = preprocess_frames(frames, spec)
    assert batch.shape == (2, 1, 6, 7)
    np.testing.assert_array_equal(batch[1], preprocess_frame(frames[1], spec))
    stack = draw_frame((3, 20, 30))
    np.testing.assert_array_equal(preprocess_frames(stack, spec), preprocess_frames(list(stack), spec))


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 1)])
def test_single_frame_is_no_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="one frame where a batch is needed"):
        preprocess_frames(draw_frame(shape), build_plain_spec(4, 4))


@pytest.mark.parametrize("frames", [None, 5, (frame for frame in ())], ids=str)
def test_what_is_no_batch(frames: Any) -> None:
    with pytest.raises(InputError, match=rf"no batch of frames: received {type(frames).__name__}, expected"):
        preprocess_frames(frames, build_plain_spec(4, 4))


def test_batch_needs_a_frame() -> None:
    with pytest.raises(InputError, match="without frames"):
        preprocess_frames([], build_plain_spec(4, 4))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (draw_frame((8, 8), "uint16"), "another dtype.*uint16.*uint8"),
        (draw_frame((8, 8)).astype(np.float32), "another dtype"),
        (draw_frame((8, 8)).tolist(), "no array"),
        (draw_frame((8,)), "wrong shape"),
        (draw_frame((8, 8, 4)), "wrong shape"),
        (draw_frame((8, 8, 1)), r"wrong shape.*take the last axis away: frame\[\.\.\., 0\]"),
        (draw_frame((2, 8, 8, 3)), "wrong shape"),
        (draw_frame((1, 1)), "too small.*1×1"),
        (draw_frame((1, 9)), "too small"),
        (draw_frame((9, 1, 3)), "too small"),
    ],
)
def test_frames_that_are_refused(frame: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_frame(frame, build_plain_spec(4, 4))
    with pytest.raises(InputError, match=message):
        preprocess_frame(frame, build_plain_spec(4, 4))


@pytest.mark.parametrize("crop", [(0, 0, 11, 5), (0, 0, 5, 13), (6, 0, 5, 5), (0, 8, 5, 5)])
def test_crop_box_outside_the_frame_is_refused(crop: tuple[int, int, int, int]) -> None:
    box = CropBox(top=crop[0], left=crop[1], height=crop[2], width=crop[3])
    spec = build_plain_spec(4, 4, crop=box)
    with pytest.raises(InputError, match="crop box leaves the frame"):
        check_frame(draw_frame((10, 12)), spec)
    with pytest.raises(InputError, match="crop box leaves the frame"):
        restore_mask(np.zeros((4, 4), dtype=np.uint8), (10, 12), spec)


def test_two_pixels_are_enough() -> None:
    frame = np.array([[0, 100], [100, 200]], dtype=np.uint8)
    tensor = preprocess_frame(frame, build_plain_spec(4, 4))[0]
    assert tensor[0, 0] == 0 and tensor[3, 3] == 200
    assert tensor[1, 1] == pytest.approx(50)


@settings(max_examples=40, deadline=None)
@given(in_height=SIZES, in_width=SIZES, height=SIZES, width=SIZES)
def test_labels_are_read_at_half_pixel_centres(
    in_height: int, in_width: int, height: int, width: int
) -> None:
    mask = draw_frame((in_height, in_width))
    resized = resize_labels(mask, height, width)
    centres_y = np.floor((np.arange(height) + 0.5) * in_height / height + 1e-9).astype(int)
    centres_x = np.floor((np.arange(width) + 0.5) * in_width / width + 1e-9).astype(int)
    np.testing.assert_array_equal(resized, mask[np.ix_(centres_y, centres_x)])
    assert resized.dtype == mask.dtype


def test_labels_agree_with_torchs_nearest_exact() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    mask = draw_frame((37, 53))
    planes = torch.from_numpy(mask)[None, None]
    for size in ((16, 16), (37, 53), (64, 100), (111, 7)):
        expected = torch.nn.functional.interpolate(planes, size=size, mode="nearest-exact")[0, 0].numpy()
        np.testing.assert_array_equal(resize_labels(mask, *size), expected)


def test_truth_is_cropped_then_resized() -> None:
    mask = draw_frame((50, 60)) % 3
    spec = build_plain_spec(16, 16, crop=CropBox(top=7, left=11, height=32, width=48))
    truth = prepare_truth(mask, spec)
    assert truth.dtype == np.uint8
    # 32 rows to 16: the odd ones; 48 columns to 16: the middle of every three.
    np.testing.assert_array_equal(truth, mask[8:39:2, 12:59:3])


def test_restored_mask_lies_where_the_crop_was() -> None:
    spec = build_plain_spec(4, 6, crop=CropBox(top=3, left=5, height=8, width=12))
    mask = draw_frame((4, 6)) % 4
    restored = restore_mask(mask, (20, 30, 3), spec)
    for wrong, shape in ((mask[None], (20, 30)), (mask[1:], (20, 30)), (mask, (1, 20, 30, 3))):
        with pytest.raises(InputError, match="no mask of a frame"):
            restore_mask(wrong, shape, spec)
    assert restored.shape == (20, 30) and restored.dtype == np.uint8
    np.testing.assert_array_equal(crop_frame(restored, spec), np.kron(mask, np.ones((2, 2), np.uint8)))
    outside = restored.copy()
    outside[3:11, 5:17] = 0
    assert not outside.any()
    np.testing.assert_array_equal(prepare_truth(restored, spec), mask)
