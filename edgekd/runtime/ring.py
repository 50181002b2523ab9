"""Preallocated masks, taken in turn."""

from __future__ import annotations

import numpy as np

from edgekd.errors import UsageError
from edgekd.runtime.base import Masks, Segmenter


class MaskRing:
    """A ring of mask buffers for ``segment(frames, out=ring.take())``.

    The masks of the last ``slots`` calls stay as they are; the next one writes over the oldest. One thread
    takes; whoever reads a mask must be done with it ``slots`` calls later.

    Args:
        segmenter: whose masks the buffers have the size of.
        slots: number of buffers.
        frames: frames of a call.

    Raises:
        UsageError: fewer than one slot or frame.
    """

    def __init__(self, segmenter: Segmenter, slots: int = 3, frames: int = 1) -> None:
        if min(slots, frames) < 1:
            raise UsageError(
                "a ring without buffers", received=f"{slots} slots of {frames} frames", expected="1 or more"
            )
        spec = segmenter.spec
        self._slots: list[Masks] = [
            np.zeros((frames, spec.height, spec.width), np.uint8) for _ in range(slots)
        ]
        self._next = 0

    def take(self) -> Masks:
        """Return the buffer (frames, h, w) uint8 that was taken longest ago."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        return slot
