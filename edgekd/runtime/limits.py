"""What a graph of fixed shapes takes: frames of another size are refused before the engine is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edgekd.errors import InputError


@dataclass(frozen=True)
class FrameLimits:
    """The frames of a call that a build takes.

    Attributes:
        batch: frames a run; a run with fewer is filled up and takes as long. None means any number.
        frame_size: (H, W) of every frame; None means any.
        rebuild: the command that makes a build without limits, for messages.
    """

    batch: int | None = None
    frame_size: tuple[int, int] | None = None
    rebuild: str | None = None

    @classmethod
    def read(cls, facts: Mapping[str, Any], rebuild: str) -> FrameLimits:
        """Return the limits that a build's facts name."""
        size = facts.get("frame_size")
        return cls(facts.get("batch"), None if size is None else (size[0], size[1]), rebuild)

    def check(self, frames: Sequence[npt.NDArray[Any]]) -> None:
        """Raise InputError unless the frames of a call have the size."""
        for frame in frames:
            if self.frame_size is not None and frame.shape[:2] != self.frame_size:
                raise InputError(
                    "this build was exported for frames of another size",
                    received=f"{frame.shape[0]}×{frame.shape[1]} (height × width)",
                    expected="{}×{}".format(*self.frame_size),
                    action=self.rebuild,
                )
