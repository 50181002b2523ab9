"""Counting what a data set holds: cases, groups, sizes, kinds of pixels, classes, for each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekd.data.cases import Dataset
from edgekd.data.inspection import CaseFacts
from edgekd.data.splits import SPLITS


def summarise_dataset(
    dataset: Dataset, facts: Sequence[CaseFacts], splits: Mapping[str, str], num_classes: int
) -> dict[str, Any]:
    """Return the counts of a data set as JSON values.

    Args:
        dataset: all its cases.
        facts: the readable ones.
        splits: split of each case by name.
        num_classes: K, background included.

    Returns:
        Sizes in pixels; shares of pixels in 0 … 1, one for each class, None where there is no pixel.
    """
    return {
        "root": str(dataset.root),
        "layout": dataset.layout,
        "cases": len(dataset.cases),
        "usable_cases": len(facts),
        "num_classes": num_classes,
        "groups": len({case.group_or_name for case in dataset.cases}),
        "cases_with_group": sum(case.group is not None for case in dataset.cases),
        "sizes": _summarise_sizes(facts),
        "dtypes": dict(Counter(fact.dtype for fact in facts)),
        "color_images": sum(fact.is_color for fact in facts),
        "empty_masks": sum(int(fact.class_pixels[1:].sum() == 0) for fact in facts),
        "class_pixel_shares": _share_classes(facts, num_classes),
        "splits": {split: _summarise_split(dataset, facts, splits, split, num_classes) for split in SPLITS},
    }


def describe_division(dataset: Dataset, fractions: Sequence[float], salt: str) -> dict[str, Any]:
    """Return how the splits of a data set are made, as JSON values.

    Args:
        dataset: all its cases.
        fractions, salt: see `assign_splits`.

    Returns:
        ``by`` is ``hash of the group``, or ``column split`` where the data set names splits itself;
        fractions and salt are None there, because they have no part in it.
    """
    if any(case.split is not None for case in dataset.cases):
        return {"by": "column split", "fractions": None, "salt": None}
    return {"by": "hash of the group", "fractions": list(fractions), "salt": salt}


def _summarise_sizes(facts: Sequence[CaseFacts]) -> dict[str, int] | None:
    if not facts:
        return None
    heights, widths = [fact.height for fact in facts], [fact.width for fact in facts]
    return {
        "smallest_height": min(heights),
        "largest_height": max(heights),
        "smallest_width": min(widths),
        "largest_width": max(widths),
    }


def _summarise_split(
    dataset: Dataset, facts: Sequence[CaseFacts], splits: Mapping[str, str], split: str, num_classes: int
) -> dict[str, Any]:
    cases = [case for case in dataset.cases if splits.get(case.name) == split]
    inside = [fact for fact in facts if splits.get(fact.case.name) == split]
    return {
        "cases": len(cases),
        "groups": len({case.group_or_name for case in cases}),
        "empty_masks": sum(int(fact.class_pixels[1:].sum() == 0) for fact in inside),
        "class_pixel_shares": _share_classes(inside, num_classes),
    }


def _share_classes(facts: Sequence[CaseFacts], num_classes: int) -> list[float | None]:
    if not facts:
        return [None] * num_classes
    counts = np.sum([fact.class_pixels for fact in facts], axis=0)
    return [float(value) for value in counts / counts.sum()]
