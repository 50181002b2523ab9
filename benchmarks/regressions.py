"""When is a value worse than its baseline? One rule a kind of quantity, each with its noise in mind.

Scores are exact on their data, so any loss beyond the margin counts. A median latency is judged by the
interval of its ratio, from batch means, because neighbouring samples are alike. Tails and missed deadlines
belong to the machine as much as to the engine: they are judged only where both runs were undisturbed. Where
one was not, a median counts as moved only if the fastest tenth of the samples moved with it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgekd.benchmarks.quantiles import bound_rate
from edgekd.benchmarks.quantities import Quantity, Unit
from edgekd.benchmarks.stopping import NUM_BATCHES, measure_instability
from edgekd.errors import UsageError

Verdict = Literal["worse", "better", "same", "not judged"]
ACC_PART = 0.2
"""Acc counts the background too, so its margin is a fifth of the others', as in the gate."""
TAIL_FACTOR = 2.0
"""A p99 may move by so many times the slowdown accepted: it is known less well than a median."""
FLOOR_PART = 0.1
"""The quantile that must have moved as well where a run was disturbed."""
_T_18 = 1.734
"""Student's t, 95 % one-sided, 18 degrees of freedom: ten batches on each side."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is accepted.

    Attributes:
        max_drop: loss of Dice, mIoU or kappa, in their own unit.
        max_slowdown: longer latency, lower throughput or more energy, as a part of the baseline.
    """

    max_drop: float = 0.005
    max_slowdown: float = 0.10

    def check(self) -> None:
        """Raise UsageError where the limits cannot be meant."""
        if not 0 <= self.max_drop <= 1 or not self.max_slowdown >= 0:
            raise UsageError(
                "limits that cannot be meant",
                received=f"a drop of {self.max_drop}, a slowdown of {self.max_slowdown}",
                expected="0 to 1, and 0 or more",
            )


def judge_quantity(
    quantity: str, unit: Unit, before: Quantity, after: Quantity, limits: Limits, *, quiet: bool
) -> Verdict:
    """Return whether ``after`` is worse than ``before``.

    Args:
        quantity, unit: what it is.
        before, after: baseline and candidate.
        limits: what is accepted.
        quiet: both runs were undisturbed, so that tails can be judged.
    """
    if before.value is None or after.value is None:
        return "not judged"
    if unit == "verdict":
        return _order(after.value - before.value, 0.0)
    if unit == "score":
        limit = limits.max_drop * (ACC_PART if quantity == "Acc" else 1.0)
        return _order(after.value - before.value, limit)
    if unit == "rate":
        return _judge_rate(before, after) if quiet else "not judged"
    if unit == "mJ":
        log_ratio = math.log(after.value / before.value) if before.value > 0 < after.value else 0.0
        return _order(-log_ratio, math.log1p(limits.max_slowdown))
    if unit == "1/s" or (unit == "ms" and quantity == "p50"):
        return _judge_median(before, after, limits.max_slowdown, quiet)
    if unit == "ms" and quantity == "p99" and quiet:
        return _judge_latency(before, after, 0.99, TAIL_FACTOR * limits.max_slowdown)
    return "not judged"


def estimate_ratio(
    before: Sequence[int], after: Sequence[int], part: float = 0.5
) -> tuple[float, float] | None:
    """Return the logarithm of the ratio of two quantiles and the half width of its one-sided 95 % bound.

    None where a side has too few samples for ten batches.
    """
    sides = [_estimate_log_quantile(samples, part) for samples in (before, after)]
    if sides[0] is None or sides[1] is None:
        return None
    (log_before, error_before), (log_after, error_after) = sides[0], sides[1]
    return log_after - log_before, _T_18 * math.hypot(error_before, error_after)


def _judge_median(before: Quantity, after: Quantity, accepted: float, quiet: bool) -> Verdict:
    verdict = _judge_latency(before, after, 0.5, accepted)
    if quiet or verdict in ("same", "not judged"):
        return verdict
    # A slower engine is slower in its best moments too; a neighbour leaves these alone.
    floor = _judge_latency(before, after, FLOOR_PART, accepted)
    return verdict if floor == verdict else "same"


def _judge_latency(before: Quantity, after: Quantity, part: float, accepted: float) -> Verdict:
    estimate = estimate_ratio(before.samples_ns, after.samples_ns, part)
    if estimate is None:
        return "not judged"
    log_ratio, half_width = estimate
    limit = math.log1p(accepted)
    if log_ratio - half_width > limit:
        return "worse"
    return "better" if log_ratio + half_width < -limit else "same"


def _estimate_log_quantile(samples_ns: Sequence[int], part: float) -> tuple[float, float] | None:
    size = len(samples_ns) // NUM_BATCHES
    if size < 1 / min(part, 1 - part) or measure_instability(samples_ns) is None:
        return None
    batches = np.asarray(samples_ns[: size * NUM_BATCHES], np.float64).reshape(NUM_BATCHES, size)
    logs = np.log(np.maximum(np.quantile(batches, part, axis=1), 1.0))
    return float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(NUM_BATCHES)


def _judge_rate(before: Quantity, after: Quantity) -> Verdict:
    ceilings = [bound_rate(one.events, one.trials) or 1.0 for one in (before, after)]
    floors = [1 - (bound_rate(one.trials - one.events, one.trials) or 1.0) for one in (before, after)]
    if floors[1] > ceilings[0]:
        return "worse"
    return "better" if ceilings[1] < floors[0] else "same"


def _order(gain: float, limit: float) -> Verdict:
    # A margin of 0.005 must not be crossed by what is 0.005 but for its rounding.
    if gain < -limit - 1e-12:
        return "worse"
    return "better" if gain > limit + 1e-12 else "same"
