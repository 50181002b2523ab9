"""What changed between the student's masks and an engine's, case by case: for people, not for the verdict.

Flips, borders, areas and whole lesions say what a lost hundredth of Dice is made of. None of them decides:
the margins are declared for scores against the truth, and these compare two masks with each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.components import count_unmatched_regions, measure_hd95

SURE_MARGIN = 0.05
"""Difference of the two best logits above which a flip is no rounding: float32 engines differ by 1e-5."""

Masks = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class CaseChange:
    """One case whose masks differ, student against engine; classes above 0 together are foreground.

    Attributes:
        flips: pixels of another class.
        hd95_pixels: 95th percentile distance of the two foreground borders; None where one has none.
        area_change: foreground pixels of the engine over those of the student, minus 1; None without any.
        vanished: regions of the student's foreground that the engine's does not touch.
        appeared: regions of the engine's foreground that the student's does not touch.
        sure_flips: flips where the student's two best logits differ by more than SURE_MARGIN; None
            without logits.
    """

    flips: int
    hd95_pixels: float | None
    area_change: float | None
    vanished: int
    appeared: int
    sure_flips: int | None


@dataclasses.dataclass(frozen=True)
class Changes:
    """The changes of all cases together.

    Attributes:
        flips: pixels of another class.
        flipped_part: the same as a part of all pixels.
        sure_flips: see CaseChange; None without logits.
        largest_flip_margin: largest difference of the student's two best logits at a flipped pixel.
        max_hd95_pixels, median_hd95_pixels: over the cases that differ and have both borders.
        area_change: foreground pixels of all cases, engine over student, minus 1.
        max_area_change: the case's change farthest from 0, signed.
        vanished, appeared: regions, see CaseChange.
        emptied: cases where the student finds foreground and the engine none at all.
    """

    flips: int
    flipped_part: float
    sure_flips: int | None
    largest_flip_margin: float | None
    max_hd95_pixels: float | None
    median_hd95_pixels: float | None
    area_change: float | None
    max_area_change: float | None
    vanished: int
    appeared: int
    emptied: int


def measure_changes(
    reference: Masks, candidate: Masks, logits: npt.NDArray[np.float32] | None = None
) -> tuple[Changes, dict[int, CaseChange]]:
    """Compare masks (N, h, w) uint8 pixel by pixel.

    Args:
        reference: of the student.
        candidate: of an engine.
        logits: (N, K, h, w) float32 of the student, or None.

    Returns:
        All cases together, and by index each case that differs.
    """
    different = [int(index) for index in np.flatnonzero((reference != candidate).any(axis=(1, 2)))]
    margins = None if logits is None else _measure_logit_margins(logits)
    cases = {
        index: _compare_case(
            reference[index], candidate[index], None if margins is None else margins[index] > SURE_MARGIN
        )
        for index in different
    }
    flipped = reference != candidate
    flips = int(flipped.sum())
    distances = [one.hd95_pixels for one in cases.values() if one.hd95_pixels is not None]
    areas = [one.area_change for one in cases.values() if one.area_change is not None]
    changes = Changes(
        flips=flips,
        flipped_part=flips / max(reference.size, 1),
        sure_flips=None if margins is None else sum(one.sure_flips or 0 for one in cases.values()),
        largest_flip_margin=float(margins[flipped].max(initial=0.0)) if margins is not None else None,
        max_hd95_pixels=max(distances, default=None),
        median_hd95_pixels=float(np.median(distances)) if distances else None,
        area_change=_measure_area_change(reference, candidate),
        max_area_change=max(areas, key=abs, default=None),
        vanished=sum(one.vanished for one in cases.values()),
        appeared=sum(one.appeared for one in cases.values()),
        emptied=int(((reference > 0).any(axis=(1, 2)) & ~(candidate > 0).any(axis=(1, 2))).sum()),
    )
    return changes, cases


def describe_suspicions(changes: Changes, num_images: int) -> Sequence[str]:
    """Return sentences for patterns that point to a cause; empty where there is none."""
    if changes.emptied > num_images / 10:
        return (
            f"the engine finds nothing in {changes.emptied} of {num_images} images where the student finds a "
            "region: NaN or overflow inside an engine looks like this, its logits then compare as background",
        )
    return ()


def _compare_case(reference: Any, candidate: Any, sure: Any) -> CaseChange:
    flipped = reference != candidate
    before, after = reference > 0, candidate > 0
    return CaseChange(
        flips=int(flipped.sum()),
        hd95_pixels=measure_hd95(before, after),
        area_change=_measure_area_change(reference, candidate),
        vanished=count_unmatched_regions(before, after),
        appeared=count_unmatched_regions(after, before),
        sure_flips=None if sure is None else int((flipped & sure).sum()),
    )


def _measure_area_change(reference: Any, candidate: Any) -> float | None:
    before = int((reference > 0).sum())
    return int((candidate > 0).sum()) / before - 1 if before else None


def _measure_logit_margins(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return by how much the best logit exceeds the next: (N, K, h, w) → (N, h, w)."""
    two = np.partition(logits, -2, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]
