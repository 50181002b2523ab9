"""What a run says of its own gain: the student beside its control on the test split, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from edgekd.data import LoadedCases
from edgekd.distill.predict import pick_masks, predict_logits
from edgekd.metrics import METRICS, count_confusions, score_sums, summarise_cases
from edgekd.stats import paired_bootstrap

CONFIDENCE = 0.95


def estimate_gain(
    student: nn.Module, control: nn.Module, cases: LoadedCases, num_classes: int, seed: int
) -> dict[str, Any]:
    """Return student - control of each of ``METRICS``, bootstrapped over groups, as JSON values.

    Args:
        student, control: on the same device.
        cases: the test split.
        num_classes: K.
        seed: of the resampling.
    """
    sums = [
        summarise_cases(
            count_confusions(cases.truths, pick_masks(predict_logits(network, cases.images)), num_classes)
        )
        for network in (control, student)
    ]
    differences = paired_bootstrap(
        sums[0],
        sums[1],
        cases.groups,
        partial(score_sums, num_classes=num_classes),
        names=METRICS,
        seed=seed,
        confidence=CONFIDENCE,
    )
    return {metric: difference.to_dict() for metric, difference in differences.items()}


def describe_gain(gain: Mapping[str, Any]) -> str:
    """Return in a sentence whether this one run shows that distillation helped, by the Dice interval."""
    dice = gain["dice"]
    low, high = dice["interval_low"], dice["interval_high"]
    if dice["degenerate"] or low is None or high is None:
        return "whether distillation helped cannot be told: Dice is undefined on too many resamples"
    verdict = "helped" if low > 0 else "did harm" if high < 0 else "is not shown to help"
    return (
        f"distillation {verdict} in this run: Dice {100 * dice['delta']:+.2f} points against the control "
        f"({CONFIDENCE:.0%} interval {100 * low:+.2f} to {100 * high:+.2f}, {dice['num_groups']} groups)"
    )
