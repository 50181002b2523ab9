"""Random specifications and frames for the preprocessing, and how far a result is from the NumPy truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.preprocess import preprocess_frame
from edgekd.specs import CropBox, PreprocessSpec

# Parts of the range of a channel: (largest stored integer) * scale / std.
FLOAT_LIMIT = 2e-6
LARGEST_TENSOR, LARGEST_CROP, LARGEST_OFFSET, LARGEST_EXTRA = 70, 60, 9, 90


@dataclass(frozen=True)
class KernelCase:
    """One specification with grey and colour frames.

    Attributes:
        spec: the steps.
        frames: batches (N, H, W) and (N, H, W, 3) in the spec's dtype, some of them with strides.
    """

    spec: PreprocessSpec
    frames: tuple[NDArray[Any], NDArray[Any]]


def draw_cases(count: int, seed: int) -> Iterator[KernelCase]:
    """Yield random cases: odd sizes, one-pixel tensors and crops, every colour, order, depth and filter."""
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        spec = _draw_spec(rng)
        yield KernelCase(spec, (_draw_frames(rng, spec, ()), _draw_frames(rng, spec, (3,))))


def compute_ranges(spec: PreprocessSpec) -> NDArray[np.float64]:
    """Return the range of each channel of the tensor: (C, 1, 1)."""
    largest = np.iinfo(spec.frame_dtype).max * spec.scale
    return np.reshape([largest / std for std in spec.std], (-1, 1, 1))


def measure_case(spec: PreprocessSpec, frames: NDArray[Any], images: NDArray[Any]) -> float:
    """Return the largest difference of tensors (N, C, h, w) from the truth, as a part of the range.

    Of half-precision tensors half a unit in the last place of the truth is taken off first, which no
    rounding can avoid.
    """
    truth = np.stack([preprocess_frame(frame, spec) for frame in frames]).astype(np.float64)
    difference = np.abs(images.astype(np.float64) - truth)
    if images.dtype == np.float16:
        difference = difference - compute_half_ulp(truth) / 2
    # NaN is no small difference, and JSON has neither it nor infinity.
    return float(np.nan_to_num(difference / compute_ranges(spec), nan=1e9, posinf=1e9).max())


def compute_half_ulp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance between neighbouring halves at ``values``: 2^(e - 10), subnormals 2^-24 apart."""
    # frexp gives zero the exponent 0.
    exponents = np.where(values == 0, -14, np.frexp(values)[1] - 1)
    return np.ldexp(1.0, np.maximum(exponents, -14) - 10)


def _draw_spec(rng: np.random.Generator) -> PreprocessSpec:
    color = rng.choice(["gray", "rgb"])
    dtype = rng.choice(["uint8", "uint16"])
    channels = 1 if color == "gray" else 3
    crop = None
    if rng.random() < 0.5:
        top, left = (int(value) for value in rng.integers(0, LARGEST_OFFSET, 2, endpoint=True))
        height, width = (_draw_size(rng, LARGEST_CROP) for _ in range(2))
        crop = CropBox(top=top, left=left, height=height, width=width)
    return PreprocessSpec(
        height=_draw_size(rng, LARGEST_TENSOR),
        width=_draw_size(rng, LARGEST_TENSOR),
        color=color,
        frame_order=rng.choice(["rgb", "bgr"]),
        frame_dtype=dtype,
        crop=crop,
        antialias=bool(rng.random() < 0.5),
        scale=1 / np.iinfo(dtype).max,
        mean=tuple(map(float, rng.uniform(0, 1, channels))),
        std=tuple(map(float, rng.uniform(0.05, 4.0, channels))),
    )


def _draw_size(rng: np.random.Generator, largest: int) -> int:
    return 1 if rng.random() < 0.1 else int(rng.integers(1, largest, endpoint=True))


def _draw_frames(rng: np.random.Generator, spec: PreprocessSpec, channels: tuple[int, ...]) -> NDArray[Any]:
    """A batch of one to three frames, large enough for the crop, dark and bright more often than chance."""
    crop = spec.crop
    lowest = (crop.top + crop.height, crop.left + crop.width) if crop else (2, 2)
    # One in ten is as small as may be: the border of the crop is that of the frame.
    extra = 0 if rng.random() < 0.1 else LARGEST_EXTRA
    height, width = (max(low, 2) + int(rng.integers(0, extra, endpoint=True)) for low in lowest)
    count = int(rng.integers(1, 4))
    brightest = np.iinfo(spec.frame_dtype).max
    # Cut from a larger array, mirrored or not: strided views of memory that is not the frame's.
    shape = (count, height + 1, width + 3, *channels)
    frames = rng.integers(0, brightest, shape, dtype=spec.frame_dtype, endpoint=True)
    extreme = rng.random(shape)
    frames[extreme < 0.2] = 0
    frames[extreme > 0.8] = brightest
    view = frames[:, :height, 2 : width + 2]
    return view[:, ::-1] if rng.random() < 0.3 else view
