"""The truth of preprocessing: what a frame becomes, in NumPy, float64 inside and float32 out.

Every other form of the same steps (graphs, kernels) is tested against this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.preprocess.tables import InterpolationTable, build_interpolation_table
from edgekd.specs import PreprocessSpec

# BT.601 luma (0.299, 0.587, 0.114) in 16-bit fixed point: the three sum to 65536, so white stays white.
LUMA_RED, LUMA_GREEN, LUMA_BLUE = 19595, 38470, 7471
SMALLEST_FRAME = 2


def preprocess_frame(frame: NDArray[Any], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Return the tensor of one frame.

    Args:
        frame: (H, W) or (H, W, 3) in ``spec.frame_dtype``, any strides, at least 2×2.
        spec: the steps.

    Returns:
        (C, h, w) float32, contiguous: ``(resized * scale - mean) / std``.

    Raises:
        InputError: the frame is not what the spec promises.
    """
    check_frame(frame, spec)
    pixels = crop_frame(frame, spec)
    if pixels.ndim == 3 and spec.color == "gray":
        pixels = convert_to_gray(pixels, spec.frame_order)
    resized = _resize(pixels, spec)
    planes = resized[None] if resized.ndim == 2 else np.moveaxis(resized, 2, 0)
    if resized.ndim == 3 and spec.frame_order == "bgr":
        planes = planes[::-1]
    mean = np.asarray(spec.mean)[:, None, None]
    std = np.asarray(spec.std)[:, None, None]
    # A grey frame meets three means and deviations here and becomes three channels.
    tensor = (planes * spec.scale - mean) / std
    return np.ascontiguousarray(tensor, dtype=np.float32)


def preprocess_frames(
    frames: Sequence[NDArray[Any]] | NDArray[Any], spec: PreprocessSpec
) -> NDArray[np.float32]:
    """Return the tensors of several frames, which may differ in size: (N, C, h, w) float32.

    Args:
        frames: a sequence of frames, or one array (N, H, W) or (N, H, W, 3).
        spec: the steps.

    Raises:
        InputError: no frame, one frame where several are meant, or a frame that the spec does not promise.
    """
    return np.stack([preprocess_frame(frame, spec) for frame in list_frames(frames)])


def list_frames(frames: Sequence[NDArray[Any]] | NDArray[Any]) -> list[NDArray[Any]]:
    """Return the frames of a batch one by one, without copying them.

    Raises:
        InputError: the batch is empty, is a single frame, or neither a sequence nor an array.
    """
    # No mere annotation: cameras give None where a read failed, and generators are easily passed.
    if not isinstance(frames, (np.ndarray, Sequence)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            "no batch of frames",
            received=type(frames).__name__,
            expected="a list of frames, or an array of them",
        )
    # No frame is one pixel wide.
    if isinstance(frames, np.ndarray) and (
        frames.ndim < 3 or (frames.ndim == 3 and frames.shape[2] in (1, 3))
    ):
        raise InputError(
            "one frame where a batch is needed",
            received=f"an array of shape {frames.shape}",
            expected="(N, H, W), (N, H, W, 3) or a list of frames",
            action="put the frame into a list",
        )
    if len(frames) == 0:
        raise InputError("a batch without frames", expected="at least one frame")
    return list(frames)


def check_frame(frame: NDArray[Any], spec: PreprocessSpec) -> None:
    """Raise InputError unless ``frame`` has the dtype, rank, channels and size that ``spec`` needs."""
    if not isinstance(frame, np.ndarray):
        raise InputError("a frame is no array", received=type(frame).__name__, expected="a NumPy array")
    if frame.dtype != np.dtype(spec.frame_dtype):
        raise InputError(
            "a frame has another dtype than the model was made for",
            received=frame.dtype,
            expected=spec.frame_dtype,
            action="convert the frame, or train with its frame_dtype",
        )
    if frame.ndim != 2 and (frame.ndim != 3 or frame.shape[2] != 3):
        raise InputError(
            "a frame has the wrong shape",
            received=frame.shape,
            expected="(height, width) or (height, width, 3)",
            action="take the last axis away: frame[..., 0]" if frame.shape[2:] == (1,) else None,
        )
    if min(frame.shape[:2]) < SMALLEST_FRAME:
        raise InputError(
            "a frame is too small",
            received=f"{frame.shape[0]}×{frame.shape[1]} pixels",
            expected=f"at least {SMALLEST_FRAME}×{SMALLEST_FRAME}",
        )
    _check_crop(frame.shape, spec)


def crop_frame(frame: NDArray[Any], spec: PreprocessSpec) -> NDArray[Any]:
    """Return the part of a frame or mask (H, W[, C]) that the spec keeps, as a view.

    Raises:
        InputError: the crop box leaves the frame.
    """
    _check_crop(frame.shape, spec)
    rows, columns = _crop_slices(spec)
    return frame[rows, columns]


def convert_to_gray(frame: NDArray[Any], order: Literal["rgb", "bgr"] = "rgb") -> NDArray[Any]:
    """Return the integer BT.601 luma ``(19595 R + 38470 G + 7471 B + 32768) >> 16`` of a colour frame.

    Args:
        frame: (H, W, 3) uint8 or uint16.
        order: ``rgb`` or ``bgr``, the order of its channels.

    Returns:
        (H, W) of the same dtype; exact.
    """
    channels = frame if order == "rgb" else frame[..., ::-1]
    red, green, blue = np.moveaxis(channels.astype(np.uint32), 2, 0)
    # The largest sum, 65535 * 65536 + 32768, still fits 32 bits.
    luma = red * LUMA_RED + green * LUMA_GREEN + blue * LUMA_BLUE + 32768
    return (luma >> 16).astype(frame.dtype)


def resize_labels(mask: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return ``mask`` (H, W) at (height, width) by nearest neighbour with half-pixel centres, same dtype.

    Output index ``i`` reads input index ``floor((i + 0.5) * in / out)``, in exact integer arithmetic.
    """
    rows = _nearest_indices(mask.shape[0], height)
    columns = _nearest_indices(mask.shape[1], width)
    return mask[rows[:, None], columns]


def prepare_truth(mask: NDArray[Any], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Return the mask (H, W) of a frame as the truth at the tensor's size: (h, w) uint8 class ids."""
    return resize_labels(crop_frame(mask, spec), spec.height, spec.width).astype(np.uint8, copy=False)


def restore_mask(
    mask: NDArray[np.uint8], frame_shape: tuple[int, ...], spec: PreprocessSpec
) -> NDArray[np.uint8]:
    """Return a mask (h, w) at frame size (H, W), nearest neighbour; outside the crop box it is 0.

    Args:
        mask: (h, w) uint8 class ids.
        frame_shape: shape of the frame, (H, W) or (H, W, 3).
        spec: the steps that led from the frame to the tensor.

    Raises:
        InputError: the mask is not of the tensor's size, the shape is none of a frame, or the crop box
            leaves the frame.
    """
    if mask.shape != (spec.height, spec.width) or len(frame_shape) not in (2, 3):
        raise InputError(
            "this is no mask of a frame",
            received=f"a mask {mask.shape} for a frame {frame_shape}",
            expected=f"one mask ({spec.height}, {spec.width}) and (H, W) or (H, W, 3)",
        )
    restored = np.zeros(frame_shape[:2], dtype=np.uint8)
    kept = crop_frame(restored, spec)
    kept[...] = resize_labels(mask, *kept.shape)
    return restored


def _check_crop(shape: tuple[int, ...], spec: PreprocessSpec) -> None:
    crop = spec.crop
    if crop is not None and (crop.top + crop.height > shape[0] or crop.left + crop.width > shape[1]):
        raise InputError(
            "the crop box leaves the frame",
            received=f"a frame of {shape[0]}×{shape[1]} pixels (height × width)",
            expected=f"at least {crop.top + crop.height}×{crop.left + crop.width}",
        )


def _crop_slices(spec: PreprocessSpec) -> tuple[slice, slice]:
    if spec.crop is None:
        return slice(None), slice(None)
    crop = spec.crop
    return slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)


def _resize(pixels: NDArray[Any], spec: PreprocessSpec) -> NDArray[np.float64]:
    """Resize (H, W) or (H, W, 3) to (h, w[, 3]) float64, rows first because whole rows are contiguous."""
    rows = build_interpolation_table(pixels.shape[0], spec.height, spec.antialias)
    columns = build_interpolation_table(pixels.shape[1], spec.width, spec.antialias)
    return _interpolate(_interpolate(pixels, rows, axis=0), columns, axis=1)


def _interpolate(pixels: NDArray[Any], table: InterpolationTable, axis: int) -> NDArray[np.float64]:
    shape = list(pixels.shape)
    shape[axis] = len(table.starts)
    resized = np.zeros(shape)
    weight_shape = [-1 if index == axis else 1 for index in range(pixels.ndim)]
    for tap in range(table.taps):
        weights = table.weights[:, tap].reshape(weight_shape)
        resized += np.take(pixels, table.starts + tap, axis=axis) * weights
    return resized


def _nearest_indices(in_size: int, out_size: int) -> NDArray[np.int64]:
    return ((2 * np.arange(out_size, dtype=np.int64) + 1) * in_size) // (2 * out_size)
