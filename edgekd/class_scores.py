"""Dice and IoU of each class: where a mean over several classes hides that one of them is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import InputError
from edgekd.json_values import replace_non_finite


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class on a set of images, each in 0..1 or NaN where undefined.

    Attributes:
        name: of the class.
        dice: mean of its Dice over the images whose truth holds it; NaN for the background. Where it is found
            and is not shows in ``iou`` alone; ``Scores.dice`` counts that too.
        iou: intersection over union, pooled over the set.
        num_images: images whose truth holds the class.
    """

    name: str
    dice: float
    iou: float
    num_images: int

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Return the fields as JSON values, None for NaN."""
        return replace_non_finite(asdict(self))


def score_classes(confusions: npt.NDArray[np.int64], names: Sequence[str]) -> tuple[ClassScores, ...]:
    """Score every class of a set of images, the background first.

    Args:
        confusions: (N, K, K) int64, one matrix an image, rows are the truth.
        names: of the K classes.

    Raises:
        InputError: the shapes do not fit.
    """
    if confusions.ndim != 3 or confusions.shape[1:] != (len(names), len(names)):
        raise InputError(
            "not a confusion matrix an image",
            received=confusions.shape,
            expected=f"(N, {len(names)}, {len(names)})",
        )
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    in_truth = confusions.sum(axis=2)
    in_both = in_truth + confusions.sum(axis=1)
    scored: list[ClassScores] = []
    for index, name in enumerate(names):
        counted = in_truth[:, index] > 0
        dice = 2 * hits[counted, index] / in_both[counted, index] if index else np.empty(0)
        overlap, together = int(hits[:, index].sum()), int(in_both[:, index].sum())
        scored.append(
            ClassScores(
                name,
                dice=float(dice.mean()) if len(dice) else math.nan,
                iou=overlap / (together - overlap) if together else math.nan,
                num_images=int(counted.sum()),
            )
        )
    return tuple(scored)


def list_foreground(classes: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the foreground classes worth a table of their own: none where there is only one.

    Args:
        classes: ``ClassScores.to_dict()`` of each class, the background first.
    """
    return classes[1:] if len(classes) > 2 else ()
