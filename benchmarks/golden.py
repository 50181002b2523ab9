"""Agreement with the golden frames of a bundle: no torch and no data set, and no claim beyond agreement."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from edgekd.bundle import MIN_AGREEMENT, JudgedFrames
from edgekd.errors import GateFailure
from edgekd.runtime import Segmenter


@dataclasses.dataclass(frozen=True)
class GoldenResult:
    """A candidate compared with the golden frames of its bundle.

    Attributes:
        candidate: name of the build.
        num_images: golden frames compared.
        agreements: part of equal pixels, a frame.
        min_agreement: the floor all pixels together had to reach.
    """

    candidate: str
    num_images: int
    agreements: tuple[float, ...]
    min_agreement: float

    @property
    def pixel_agreement(self) -> float:
        """Part of equal pixels over all frames (they have one size)."""
        return sum(self.agreements) / len(self.agreements)

    @property
    def conclusion(self) -> Literal["consistent", "inconsistent"]:
        """Whether the floor was reached; a few frames never show non-inferiority."""
        return "consistent" if self.pixel_agreement >= self.min_agreement else "inconsistent"

    @property
    def passed(self) -> bool:
        """Whether it is consistent."""
        return self.conclusion == "consistent"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass."""
        if self.passed:
            return ()
        return (f"pixel agreement {self.pixel_agreement:.4%} is below {self.min_agreement:.2%}",)

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


def compare_golden(
    segmenter: Segmenter,
    golden: JudgedFrames,
    *,
    candidate: str,
    min_agreement: float = MIN_AGREEMENT["fp32"],
) -> GoldenResult:
    """Run the golden frames, one at a time, and compare the masks with those of the student.

    Raises:
        GateFailure: there is no golden frame.
        SegmenterFault: the engine failed.
    """
    if len(golden) == 0:
        raise GateFailure("no golden frame to compare", expected="at least one")
    agreements = [
        float((segmenter.segment([frame])[0] == mask).mean())
        for frame, mask in zip(golden.frames, golden.masks, strict=True)
    ]
    return GoldenResult(candidate, len(golden), tuple(agreements), min_agreement)
