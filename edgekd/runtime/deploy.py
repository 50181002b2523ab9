"""The steps around a deploy graph in host memory, which ONNX Runtime and OpenVINO have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.runtime.base import Masks, Stage
from edgekd.runtime.frames import Batch, FramePacker, WriteLuma
from edgekd.specs import PreprocessSpec

RunGraph = Callable[[npt.NDArray[Any], Masks], None]
"""Runs a graph on pixels (n, H, W, C) and writes the masks (n, h, w) into its second argument."""
Inferred = tuple[list[Batch], Masks]


class DeployStages:
    """Packs frames, runs the graph into masks that are kept, and puts these in the order of the frames.

    The masks hold until the next call. Memory is taken for the largest call seen and then used again.

    Args:
        spec: the bundle's preprocessing.
        run: the graph.
        frames_a_run: how many frames the graph takes at once; a run with fewer repeats the last. None means
            any number.
        write_luma: see `FramePacker`.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        run: RunGraph,
        *,
        frames_a_run: int | None = None,
        write_luma: WriteLuma | None = None,
    ) -> None:
        self._packer = FramePacker(spec, write_luma)
        self._run = run
        self._frames_a_run = frames_a_run
        self._masks: Masks = np.empty((0, spec.height, spec.width), np.uint8)
        self._views: dict[tuple[int, int], Masks] = {}
        self._filled: npt.NDArray[Any] = np.empty(0, np.uint8)

    def list(self) -> Mapping[str, Stage]:
        """Return ``preprocess`` (channels, batches), ``infer`` (the graph), ``postprocess`` (order)."""
        return {"preprocess": self._packer.pack, "infer": self._infer, "postprocess": _order_masks}

    def _infer(self, batches: list[Batch]) -> Inferred:
        count = sum(len(batch.places) for batch in batches)
        # The masks of what fills a run up lie behind those of its frames, where the next run writes its own.
        self._reserve(count + (self._frames_a_run or 1) - 1)
        start = 0
        for batch in batches:
            step = self._frames_a_run or len(batch.places)
            for first in range(0, len(batch.places), step):
                pixels = batch.pixels[first : first + step]
                self._run(self._fill(pixels, step), self._view(start, start + step))
                start += len(pixels)
        return batches, self._view(0, count)

    def _fill(self, pixels: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        if len(pixels) == count:
            return pixels
        shape = (count, *pixels.shape[1:])
        if self._filled.shape != shape or self._filled.dtype != pixels.dtype:
            self._filled = np.empty(shape, pixels.dtype)
        self._filled[: len(pixels)] = pixels
        self._filled[len(pixels) :] = pixels[-1]
        return self._filled

    def _reserve(self, count: int) -> None:
        if count > len(self._masks):
            self._views.clear()
            self._masks = np.empty((count, *self._masks.shape[1:]), np.uint8)

    def _view(self, start: int, stop: int) -> Masks:
        """Return the same array for the same masks, so that an engine knows what it wrote into before."""
        return self._views.setdefault((start, stop), self._masks[start:stop])


def _order_masks(inferred: Inferred) -> Masks:
    batches, masks = inferred
    if len(batches) == 1:
        return masks
    return masks[np.argsort([place for batch in batches for place in batch.places])]
