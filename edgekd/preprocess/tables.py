"""Interpolation tables: for every output pixel, the first input pixel it reads and the weight of each tap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError


@dataclass(frozen=True)
class InterpolationTable:
    """One axis of a resize: ``output[i] = sum over t of weights[i, t] * input[starts[i] + t]``.

    Attributes:
        starts: (out,) int32, first input index of every output index; ``starts + taps <= in_size``.
        weights: (out, taps) float64, every row sums to 1; taps that a row does not need weigh 0.
    """

    starts: NDArray[np.int32]
    weights: NDArray[np.float64]

    @property
    def taps(self) -> int:
        """Input pixels read for every output pixel."""
        return self.weights.shape[1]


@lru_cache(maxsize=64)
def build_interpolation_table(in_size: int, out_size: int, antialias: bool) -> InterpolationTable:
    """Return the table that resizes an axis of ``in_size`` to ``out_size`` pixels.

    Half-pixel centres: output ``i`` sits at ``(i + 0.5) * in_size / out_size`` in input pixels, input ``j``
    at ``j + 0.5``. The weight is the triangle ``1 - |distance| / support`` with a support of one input pixel,
    or of ``in_size / out_size`` pixels where that is more and ``antialias`` is set. Taps outside the image
    are dropped and the rest rescaled to sum to 1; with a support of one pixel that repeats the edge.
    Computed in float64; the arrays are read-only and shared between calls.

    Raises:
        InputError: a size below 1.

    Source: the area-of-support resampling of Heckbert's *Fundamentals of Texture Mapping* (1989), in the
    discretisation of Pillow's ``BILINEAR`` before its rounding of weights to integers.
    """
    if in_size < 1 or out_size < 1:
        raise InputError(
            "a resize needs sizes of at least one pixel", received=f"{in_size} to {out_size} pixels"
        )
    ratio = in_size / out_size
    support = max(ratio, 1.0) if antialias else 1.0
    centres = (np.arange(out_size) + 0.5) * ratio
    first = np.clip(np.floor(centres - support + 0.5), 0, in_size).astype(np.int64)
    last = np.clip(np.floor(centres + support + 0.5), 0, in_size).astype(np.int64)
    # Every row gets as many taps as the longest one, moved inwards where it would leave the image.
    taps = int((last - first).max())
    starts = np.minimum(first, in_size - taps)
    distances = np.abs(starts[:, None] + np.arange(taps) + 0.5 - centres[:, None])
    weights = np.maximum(1.0 - distances / support, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    table = InterpolationTable(starts.astype(np.int32), weights)
    table.starts.setflags(write=False)
    table.weights.setflags(write=False)
    return table
