"""What a run says of its own gain: the student beside its control on the test split, with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgekd.data import LoadedCases
from edgekd.distill.predict import pick_masks, predict_logits
from edgekd.metrics import METRICS, count_confusions, score_sums, summarise_cases
from edgekd.stats import MAX_UNDEFINED_PART, draw_weights, sum_groups

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000


def estimate_gain(
    student: nn.Module, control: nn.Module, cases: LoadedCases, num_classes: int, seed: int
) -> dict[str, Any]:
    """Return student - control of each of ``METRICS`` with its interval, as JSON values.

    A percentile interval of the paired cluster bootstrap over groups (Davison & Hinkley 1997, section 3.8).
    The gate's bounds in ``edgekd.stats`` are wider: they allow for harm that no case showed, which is a
    question about an engine and not about a mean.

    Args:
        student, control: on the same device.
        cases: the test split.
        num_classes: K.
        seed: of the resampling.
    """
    num_groups = len(set(cases.groups))
    resamples = draw_weights(np.random.default_rng(seed), num_groups, NUM_RESAMPLES)
    # The first row is no resample: every group once.
    weights = np.concatenate([np.ones((1, num_groups)), *resamples])
    before, after = (_score_resamples(one, cases, num_classes, weights) for one in (control, student))
    return {metric: _summarise(after[metric] - before[metric], num_groups) for metric in METRICS}


def _score_resamples(
    network: nn.Module, cases: LoadedCases, num_classes: int, weights: NDArray[np.float64]
) -> Mapping[str, NDArray[np.float64]]:
    masks = pick_masks(predict_logits(network, cases.images))
    sums = summarise_cases(count_confusions(cases.truths, masks, num_classes))
    return score_sums(weights @ sum_groups(sums, cases.groups), num_classes)


def _summarise(differences: NDArray[np.float64], num_groups: int) -> dict[str, Any]:
    delta, resamples = float(differences[0]), differences[1:]
    kept = resamples[~np.isnan(resamples)]
    degenerate = math.isnan(delta) or len(kept) < (1 - MAX_UNDEFINED_PART) * len(resamples)
    tail = (1 - CONFIDENCE) / 2
    low, high = (None, None) if degenerate else map(float, np.quantile(kept, (tail, 1 - tail)))
    return {
        "delta": None if math.isnan(delta) else delta,
        "interval_low": low,
        "interval_high": high,
        "num_groups": num_groups,
        "degenerate": degenerate,
    }


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
