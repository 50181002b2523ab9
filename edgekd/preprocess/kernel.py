"""What the CUDA kernel's compiler, its launcher and its tests must agree on; needs no GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.preprocess.tables import InterpolationTable, build_interpolation_table
from edgekd.specs import FRAME_BITS, PreprocessSpec

KERNEL_SOURCE = Path(__file__).with_name("kernels.cu")
# Entry point by number of channels in the frame; both are in every module.
ENTRY_POINTS = {1: "preprocess_gray_frames", 3: "preprocess_color_frames"}
# A warp reads along a row; eight rows share the source rows that their filters overlap on.
BLOCK_WIDTH, BLOCK_HEIGHT = 32, 8
# Rounding must be what the source says: no contraction, no flush to zero, correctly rounded division.
ROUNDING_OPTIONS = ("--fmad=false", "--ftz=false", "--prec-div=true")


def build_kernel_options(spec: PreprocessSpec, *, half: bool = False) -> tuple[str, ...]:
    """Return the ``-D`` options that compile ``spec`` into the kernel.

    Normalisation is folded in float64 into one gain and one offset a channel,
    ``(x * scale - mean) / std = x * (scale / std) - mean / std``, written as exact float32 literals.

    Args:
        spec: the steps.
        half: store IEEE half precision instead of float.
    """
    gains = [spec.scale / std for std in spec.std]
    offsets = [(0.0 - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    macros: dict[str, int | str] = {
        "PIXEL_BITS": FRAME_BITS[spec.frame_dtype],
        "CROP_TOP": spec.crop.top if spec.crop else 0,
        "CROP_LEFT": spec.crop.left if spec.crop else 0,
        "OUT_CHANNELS": spec.channels,
        "OUT_HEIGHT": spec.height,
        "OUT_WIDTH": spec.width,
        "FRAME_IS_BGR": int(spec.frame_order == "bgr"),
        "HALF_OUT": int(half),
    }
    for channel in range(3):
        # The source names three channels; of a grey tensor it uses the first.
        macros[f"GAIN_{channel}"] = _format_float32(gains[channel % spec.channels])
        macros[f"OFFSET_{channel}"] = _format_float32(offsets[channel % spec.channels])
    return tuple(f"-D{name}={value}" for name, value in macros.items())


def pack_table(table: InterpolationTable) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return a table as the kernel reads it: starts (out,) int32 and weights (taps, out) float32."""
    return table.starts, np.ascontiguousarray(table.weights.T, dtype=np.float32)


def compute_grid(spec: PreprocessSpec, count: int) -> tuple[int, int, int]:
    """Return the launch grid (x, y, z) that covers ``count`` tensors."""
    return -(-spec.width // BLOCK_WIDTH), -(-spec.height // BLOCK_HEIGHT), count


def count_moved_bytes(spec: PreprocessSpec, frame_shape: tuple[int, ...], *, half: bool = False) -> int:
    """Return the bytes that the kernel must move between memory and GPU for one frame.

    ``R · K · F · p + C · h · w · e + 4 · (h · (1 + r) + w · (1 + k))``: the R rows times K columns of the
    frame that the filters touch, each read once because the cache serves their overlaps, with F channels of p
    bytes; the tensor, written once, with elements of e bytes (2 in half, else 4); and the tables of r taps a
    row and k a column, int32 starts and float32 weights.

    Args:
        spec: the steps.
        frame_shape: (H, W) or (H, W, 3).
        half: the tensor is IEEE half precision.
    """
    height, width = frame_shape[:2] if spec.crop is None else (spec.crop.height, spec.crop.width)
    rows = build_interpolation_table(height, spec.height, spec.antialias)
    columns = build_interpolation_table(width, spec.width, spec.antialias)
    pixel_bytes = np.dtype(spec.frame_dtype).itemsize * (1 if len(frame_shape) == 2 else frame_shape[2])
    read = _count_touched(rows) * _count_touched(columns) * pixel_bytes
    written = spec.channels * spec.height * spec.width * (2 if half else 4)
    tables = 4 * (spec.height * (1 + rows.taps) + spec.width * (1 + columns.taps))
    return read + written + tables


def _count_touched(table: InterpolationTable) -> int:
    """Return how many different pixels of an axis a table reads."""
    return np.unique(table.starts[:, None] + np.arange(table.taps)).size


def _format_float32(value: float) -> str:
    return f"{float(np.float32(value)).hex()}f"
