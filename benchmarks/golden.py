"""Agreement with the golden frames of a bundle: no torch and no data set, and no claim beyond agreement."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekd.bundle import MIN_AGREEMENT, MIN_FOREGROUND_OVERLAP, JudgedFrames
from edgekd.errors import GateFailure
from edgekd.metrics import measure_overlap
from edgekd.runtime import Segmenter
from edgekd.tables import format_agreement, format_floor


@dataclasses.dataclass(frozen=True)
class GoldenResult:
    """A candidate compared with the golden frames of its bundle.

    Attributes:
        candidate: name of the build.
        num_images: golden frames compared.
        agreements: part of equal pixels, a frame.
        overlap: Dice of the foreground of all frames together; None where the student marks next to nothing.
        min_agreement: the floor all pixels together had to reach.
    """

    candidate: str
    num_images: int
    agreements: tuple[float, ...]
    overlap: float | None
    min_agreement: float

    @property
    def pixel_agreement(self) -> float:
        """Part of equal pixels over all frames (they have one size)."""
        return sum(self.agreements) / len(self.agreements)

    @property
    def conclusion(self) -> Literal["consistent", "inconsistent", "inconclusive"]:
        """Whether the floors were reached; few frames never show non-inferiority, and empty masks nothing."""
        if self.pixel_agreement < self.min_agreement:
            return "inconsistent"
        if self.overlap is None:
            return "inconclusive"
        return "consistent" if self.overlap >= MIN_FOREGROUND_OVERLAP else "inconsistent"

    @property
    def passed(self) -> bool:
        """Whether it is consistent."""
        return self.conclusion == "consistent"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass."""
        if self.passed:
            return ()
        if self.pixel_agreement < self.min_agreement:
            shown = format_agreement(self.pixel_agreement)
            return (f"pixel agreement {shown} is below {format_floor(self.min_agreement)}",)
        if self.overlap is None:
            return (
                "the student marks next to nothing on the golden frames, so that an engine which never does "
                "would agree: judge it with --data DATA, or distil with --golden DATA",
            )
        return (f"Dice of the foreground {self.overlap:.4f} is below {MIN_FOREGROUND_OVERLAP}",)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "kind": "golden",
            **dataclasses.asdict(self),
            "pixel_agreement": self.pixel_agreement,
            "conclusion": self.conclusion,
            "passed": self.passed,
            "reasons": list(self.reasons),
        }


def segment_golden(segmenter: Segmenter, golden: JudgedFrames) -> npt.NDArray[np.uint8]:
    """Return the masks (N, h, w) uint8 that an engine makes of N golden frames, one at a time.

    Raises:
        GateFailure: there is no golden frame.
        SegmenterFault: the engine failed.
    """
    if len(golden) == 0:
        raise GateFailure("no golden frame to compare", expected="at least one")
    return np.stack([segmenter.segment([frame])[0] for frame in golden.frames])


def compare_golden(
    masks: npt.NDArray[np.uint8],
    golden: JudgedFrames,
    *,
    candidate: str,
    min_agreement: float = MIN_AGREEMENT["fp32"],
) -> GoldenResult:
    """Compare an engine's masks of the golden frames, as `segment_golden` gives them, with the student's."""
    agreements = [float((one == other).mean()) for one, other in zip(masks, golden.masks, strict=True)]
    overlap = measure_overlap(masks, golden.masks)
    return GoldenResult(candidate, len(golden), tuple(agreements), overlap, min_agreement)
