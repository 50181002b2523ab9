"""What a run says of its own gain: the student beside its control on the test split, with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgekd.bootstrap import MAX_UNDEFINED_PART, draw_weights, sum_groups
from edgekd.data import LoadedCases
from edgekd.distill.predict import predict_masks
from edgekd.metrics import METRICS, count_confusions, score_sums, summarise_cases
from edgekd.stats import MIN_GROUPS

GainVerdict = Literal["helped", "did harm", "not shown", "undecided"]
CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
FROZEN_SPREAD = 1e-12  # of a score in 0..1: resamples no further apart are equal but for rounding


def estimate_gain(
    student: nn.Module, control: nn.Module, cases: LoadedCases, num_classes: int, seed: int
) -> dict[str, Any]:
    """Return student - control of each of ``METRICS`` with its interval, as JSON values.

    A percentile interval of the paired cluster bootstrap over groups (Davison & Hinkley 1997, section 3.8).
    The gate's bounds in ``edgekd.bootstrap`` are wider: they allow for harm that no case showed, which is a
    question about an engine and not about a mean. As there, fewer than MIN_GROUPS groups or a degenerate
    bootstrap decide nothing: the verdict is then ``undecided``, whatever the interval.

    Args:
        student, control: on the processor, as the scores beside.
        cases: the test split.
        num_classes: K.
        seed: of the resampling.
    """
    num_groups = len(set(cases.groups))
    before, after = (_sum_groups(one, cases, num_classes) for one in (control, student))
    # The first row is no resample: every group once. Of many groups all resamples would not fit the memory.
    resamples = draw_weights(np.random.default_rng(seed), num_groups, NUM_RESAMPLES)
    blocks = [
        (score_sums(weights @ after, num_classes), score_sums(weights @ before, num_classes))
        for weights in chain([np.ones((1, num_groups))], resamples)
    ]
    return {
        metric: _summarise(np.concatenate([one[metric] - other[metric] for one, other in blocks]), num_groups)
        for metric in METRICS
    }


def _sum_groups(network: nn.Module, cases: LoadedCases, num_classes: int) -> NDArray[np.float64]:
    masks = predict_masks(network, cases.images)
    sums = summarise_cases(count_confusions(cases.truths, masks, num_classes))
    return sum_groups(sums, cases.groups)


def judge_gain(difference: Mapping[str, Any]) -> GainVerdict:
    """Return what one metric's entry of ``estimate_gain`` shows, also one recorded without its verdict."""
    low, high = difference["interval_low"], difference["interval_high"]
    if low is None or high is None or difference["degenerate"] or difference["num_groups"] < MIN_GROUPS:
        return "undecided"
    return "helped" if low > 0 else "did harm" if high < 0 else "not shown"


def describe_gain(gain: Mapping[str, Any]) -> str:
    """Return in a sentence whether this one run shows that distillation helped, by the Dice interval."""
    dice = gain["dice"]
    verdict = judge_gain(dice)
    if verdict == "undecided":
        return f"whether distillation helped cannot be told: {_explain_undecided(dice)}"
    shown = "is not shown to help" if verdict == "not shown" else verdict
    low, high = dice["interval_low"], dice["interval_high"]
    return (
        f"distillation {shown} in this run: Dice {_format_points(dice['delta'])} points against the control "
        f"({CONFIDENCE:.0%} interval {_format_points(low)} to {_format_points(high)}, "
        f"{dice['num_groups']} groups)"
    )


def _summarise(differences: NDArray[np.float64], num_groups: int) -> dict[str, Any]:
    delta, resamples = float(differences[0]), differences[1:]
    kept = resamples[~np.isnan(resamples)]
    undefined = math.isnan(delta) or len(kept) < (1 - MAX_UNDEFINED_PART) * len(resamples)
    # Resamples that all give the same gain, as those of one group do, say nothing about its spread.
    degenerate = undefined or (delta != 0 and bool(np.ptp(kept) <= FROZEN_SPREAD))
    tail = (1 - CONFIDENCE) / 2
    low, high = (None, None) if degenerate else map(float, np.quantile(kept, (tail, 1 - tail)))
    summary = {
        "delta": None if math.isnan(delta) else delta,
        "interval_low": low,
        "interval_high": high,
        "num_groups": num_groups,
        "degenerate": degenerate,
    }
    return {**summary, "verdict": judge_gain(summary)}


def _explain_undecided(dice: Mapping[str, Any]) -> str:
    if dice["delta"] is None:
        return "Dice is undefined on the test split"
    size = f"(Dice {_format_points(dice['delta'])} points against the control)"
    num_groups = dice["num_groups"]
    if num_groups < MIN_GROUPS:
        return f"fewer than {MIN_GROUPS} groups decide nothing, and the test split has {num_groups} {size}"
    return f"the resamples give no interval, undefined on too many of them or equal on all {size}"


def _format_points(value: float) -> str:
    return f"{100 * value:+.2f}"
