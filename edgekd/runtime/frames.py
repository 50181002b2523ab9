"""From frames as they arrive to what a deploy graph takes, without taking memory for every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekd.preprocess.reference import LUMA_BLUE, LUMA_GREEN, LUMA_RED
from edgekd.runtime.base import Frames
from edgekd.specs import PreprocessSpec

WriteLuma = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], None]
"""Writes the luma of a frame (H, W, 3) into (H, W), both uint8, contiguous and writeable."""
# So many rows of a frame are summed at a time that the 32-bit sums stay in the processor's cache.
_LUMA_ROWS = 64


class Batch(NamedTuple):
    """Frames of one size: ``places`` of them in the call, ``pixels`` (n, H, W, C) uint8 or uint16."""

    places: tuple[int, ...]
    pixels: npt.NDArray[Any]


class FramePacker:
    """Makes contiguous batches of frames, with the channels that a specification names.

    A frame that is so already is passed on as a view. Others are copied into one buffer, which grows to the
    largest call seen and is then used again: a batch holds until the next call.

    Args:
        spec: the bundle's preprocessing.
        write_luma: what an engine has that is faster than NumPy.
    """

    def __init__(self, spec: PreprocessSpec, write_luma: WriteLuma | None = None) -> None:
        self._spec = spec
        self._write_faster = write_luma
        self._dtype = np.dtype(spec.frame_dtype)
        self._buffer: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._sums: npt.NDArray[np.uint32] = np.empty((2, _LUMA_ROWS, 0), np.uint32)

    def pack(self, frames: Frames) -> list[Batch]:
        """Return the frames as batches of one size each.

        A colour frame for a grey model becomes its exact integer luma; a grey frame for a colour model
        becomes three equal channels.
        """
        if isinstance(frames, np.ndarray) and self._is_ready(frames, frames.ndim - 1):
            return [Batch(tuple(range(len(frames))), self._add_channel(frames))]
        places: dict[tuple[int, ...], list[int]] = {}
        for index, frame in enumerate(frames):
            places.setdefault(frame.shape, []).append(index)
        groups = [[frames[index] for index in indices] for indices in places.values()]
        self._reserve(sum(self._count_bytes(group) for group in groups))
        batches: list[Batch] = []
        offset = 0
        for indices, group in zip(places.values(), groups, strict=True):
            size = self._count_bytes(group)
            pixels = self._copy(group, self._buffer[offset : offset + size]) if size else self._view(group[0])
            batches.append(Batch(tuple(indices), pixels))
            offset += size
        return batches

    def _is_ready(self, pixels: npt.NDArray[Any], frame_rank: int) -> bool:
        return _is_readable(pixels) and (frame_rank == 3) == (self._spec.color == "rgb")

    def _add_channel(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return pixels if self._spec.color == "rgb" else pixels[..., None]

    def _view(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._add_channel(frame)[None]

    def _count_bytes(self, group: Sequence[npt.NDArray[Any]]) -> int:
        """Return what frames of one size need in the buffer: nothing where a view will do."""
        frame = group[0]
        if len(group) == 1 and self._is_ready(frame, frame.ndim):
            return 0
        return len(group) * frame.shape[0] * frame.shape[1] * self._spec.channels * self._dtype.itemsize

    def _reserve(self, size_bytes: int) -> None:
        if size_bytes > self._buffer.size:
            self._buffer = np.empty(size_bytes, np.uint8)

    def _copy(self, group: Sequence[npt.NDArray[Any]], memory: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        shape = (len(group), *group[0].shape[:2], self._spec.channels)
        pixels: npt.NDArray[Any] = np.ndarray(shape, self._dtype, memory)
        for frame, target in zip(group, pixels, strict=True):
            if frame.ndim == 3 and self._spec.color == "gray":
                faster = self._write_faster if frame.dtype == np.uint8 and _is_readable(frame) else None
                (faster or self._write_luma)(frame, target[..., 0])
            else:
                np.copyto(target, frame if frame.ndim == 3 else frame[..., None])
        return pixels

    def _write_luma(self, frame: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
        """Write what `edgekd.preprocess.convert_to_gray` returns, in memory that is there already."""
        height, width = target.shape
        if self._sums.shape[2] < width:
            self._sums = np.empty((2, _LUMA_ROWS, width), np.uint32)
        red, green, blue = (0, 1, 2) if self._spec.frame_order == "rgb" else (2, 1, 0)
        for top in range(0, height, _LUMA_ROWS):
            rows = frame[top : top + _LUMA_ROWS]
            total, part = self._sums[:, : len(rows), :width]
            # Widened by copying: a product that widens would take a buffer of its own every time.
            np.copyto(total, rows[..., red])
            total *= LUMA_RED
            for channel, weight in ((green, LUMA_GREEN), (blue, LUMA_BLUE)):
                np.copyto(part, rows[..., channel])
                part *= weight
                total += part
            total += 32768
            total >>= 16
            np.copyto(target[top : top + _LUMA_ROWS], total, casting="unsafe")


def _is_readable(pixels: npt.NDArray[Any]) -> bool:
    """Return whether engines read pixels where they lie: OpenVINO would copy what is read-only each time."""
    return pixels.flags.c_contiguous and pixels.flags.writeable
