"""How sure is the difference of two sides' scores? Paired bootstrap over groups.

Images of one patient are alike, so whole groups are resampled, with the same groups for both sides
(cluster bootstrap: Davison & Hinkley 1997, section 3.8). Bounds are studentised (bootstrap-t: Efron &
Tibshirani 1993, section 12.5) on the jackknife's pseudo-values of the groups, to which NUM_UNSEEN groups are
added that lost (for the upper bound: gained) as much as the group that changed most. Losses of real engines
are rare and heavy, and by the rule of three (Hanley & Lippman-Hand 1983) a failure of three in n may be
unseen in n groups. Without these groups a studentised bound passed up to 28 % of the engines that lose just
the margin, with 20 real groups; ``benchmarks.suites.gate_power`` measures it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import InputError, UsageError
from edgekd.json_values import replace_non_finite

FloatArray = npt.NDArray[np.float64]

MAX_UNDEFINED_PART = 0.01
"""Above this part of resamples without a score, the bootstrap is called degenerate."""

NUM_UNSEEN = 3
"""Groups added to each side: the numerator of the rule of three."""
SMALLEST_SPREAD = 0.25
"""Floor of a resample's standard error, as a part of that of all groups: where most groups do not differ at
all, many resamples hold none that does, and their error would be zero."""

_BLOCK_ELEMENTS = 4_000_000  # 32 MB of weights at a time


@dataclasses.dataclass(frozen=True)
class Difference:
    """One score of both sides and how sure its difference is.

    Attributes:
        reference, candidate: the score on all groups, NaN where undefined.
        delta: candidate - reference.
        lower, upper: one-sided bounds of delta, each at the confidence asked for.
        interval_low, interval_high: two-sided interval of delta at the same confidence.
        num_groups: groups resampled.
        degenerate: the resamples say nothing about delta (see ``paired_bootstrap``).
    """

    reference: float
    candidate: float
    delta: float
    lower: float
    upper: float
    interval_low: float
    interval_high: float
    num_groups: int
    degenerate: bool

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """Return the fields as JSON values, None for what is not finite."""
        return replace_non_finite(dataclasses.asdict(self))


def paired_bootstrap(
    reference_sums: FloatArray,
    candidate_sums: FloatArray,
    groups: Sequence[str],
    score: Callable[[FloatArray], Mapping[str, npt.NDArray[Any]]],
    *,
    names: Sequence[str],
    num_resamples: int = 10000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Bootstrap the differences of scores that are functions of additive case sums.

    A resample draws as many groups as there are, with replacement, for both sides alike. A resample in which
    a score is undefined counts as the worst possible one in the lower bounds and the best in the upper.
    The result is degenerate where a score is undefined on all groups or without one of them, where more than
    1 % of the resamples are undefined, or where delta is not zero but every resample gives the same value.

    Args:
        reference_sums: (N, S) float64, one row a case, for example from ``metrics.summarise_cases``.
        candidate_sums: (N, S) float64, the same cases in the same order.
        groups: N names; cases of one name are resampled together.
        score: maps sums (..., S) to arrays (...) by name.
        names: the scores wanted.
        num_resamples: resamples drawn.
        seed: of the resampling.
        confidence: of the one-sided bound and of the two-sided interval, in 0..1.

    Raises:
        InputError: no case, or the shapes differ.
        UsageError: a confidence or number of resamples that cannot be meant.
    """
    _check_arguments(reference_sums, candidate_sums, groups, num_resamples, confidence)
    reference_groups, candidate_groups = (
        sum_groups(reference_sums, groups),
        sum_groups(candidate_sums, groups),
    )
    num_groups = len(reference_groups)
    reference, candidate = score(reference_groups.sum(axis=0)), score(candidate_groups.sum(axis=0))
    values = _measure_pseudo_values(reference_groups, candidate_groups, score, names)
    rng = np.random.default_rng(seed)
    deltas: dict[str, list[FloatArray]] = {name: [] for name in names}
    for weights in draw_weights(rng, num_groups, num_resamples):
        before, after = score(weights @ reference_groups), score(weights @ candidate_groups)
        for name in names:
            deltas[name].append(np.asarray(after[name] - before[name], np.float64))
    bounds = {name: _measure_bounds(values[name], num_resamples, seed) for name in names}
    return {
        name: _summarise_resamples(
            float(reference[name]),
            float(candidate[name]),
            np.concatenate(deltas[name]),
            bounds[name],
            num_groups,
            confidence,
        )
        for name in names
    }


def draw_weights(rng: np.random.Generator, num_groups: int, num_resamples: int) -> Iterator[FloatArray]:
    """Yield how often each resample holds each group, (r, n) float64, in blocks that fit the memory."""
    remaining = num_resamples
    while remaining > 0:
        block = min(remaining, max(1, _BLOCK_ELEMENTS // num_groups))
        yield rng.multinomial(num_groups, np.full(num_groups, 1.0 / num_groups), size=block).astype(
            np.float64
        )
        remaining -= block


def _measure_pseudo_values(
    reference: FloatArray,
    candidate: FloatArray,
    score: Callable[[FloatArray], Mapping[str, npt.NDArray[Any]]],
    names: Sequence[str],
) -> dict[str, FloatArray]:
    """Return the pseudo-value of each group, n delta - (n - 1) (delta without the group): (n,) float64."""
    whole = [score(groups.sum(axis=0)) for groups in (reference, candidate)]
    without = [score(groups.sum(axis=0) - groups) for groups in (reference, candidate)]
    count = len(reference)
    return {
        name: count * float(whole[1][name] - whole[0][name])
        - (count - 1) * np.asarray(without[1][name] - without[0][name], np.float64)
        for name in names
    }


def _measure_bounds(values: FloatArray, num_resamples: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return by how much the mean may lie below and above, one value a resample, for losses and for gains.

    The values with NUM_UNSEEN more at minus (plus) the largest are resampled; each resample gives
    ``mean - error * deviation``, a value of the bound's distribution.
    """
    if not np.isfinite(values).all():
        return np.full(1, -np.inf), np.full(1, np.inf)
    largest = float(np.abs(values).max())
    return (
        _resample_mean(np.append(values, [-largest] * NUM_UNSEEN), num_resamples, seed),
        _resample_mean(np.append(values, [largest] * NUM_UNSEEN), num_resamples, seed),
    )


def _resample_mean(values: FloatArray, num_resamples: int, seed: int) -> FloatArray:
    mean, error = float(values.mean()), _measure_errors(np.ones((1, len(values))), values).item()
    if error == 0:
        return np.full(1, mean)
    parts: list[FloatArray] = []
    for weights in draw_weights(np.random.default_rng(seed), len(values), num_resamples):
        errors = np.maximum(_measure_errors(weights, values), SMALLEST_SPREAD * error)
        parts.append(mean - error * (weights @ values / len(values) - mean) / errors)
    return np.concatenate(parts)


def _measure_errors(weights: FloatArray, values: FloatArray) -> FloatArray:
    """Return the standard error of the mean in each resample: (r, n) weights → (r,)."""
    count = len(values)
    variance = np.maximum(weights @ values**2 / count - (weights @ values / count) ** 2, 0.0)
    return np.sqrt(variance / max(count - 1, 1))


def _summarise_resamples(
    reference: float,
    candidate: float,
    deltas: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    num_groups: int,
    confidence: float,
) -> Difference:
    delta = candidate - reference
    undefined = np.isnan(deltas)
    part_undefined = float(undefined.mean())
    frozen = delta != 0 and bool(np.ptp(np.where(undefined, delta, deltas)) <= 1e-12 * max(1.0, abs(delta)))
    tail = 1.0 - confidence
    # An undefined resample counts as the worst for the lower bounds and as the best for the upper.
    below, above = bounds
    if part_undefined > 0:
        below = np.append(below, np.full(math.ceil(part_undefined * len(below)), -np.inf))
        above = np.append(above, np.full(math.ceil(part_undefined * len(above)), np.inf))
    return Difference(
        reference=reference,
        candidate=candidate,
        delta=delta,
        lower=_take_quantile(below, tail),
        upper=_take_quantile(above, 1 - tail),
        interval_low=_take_quantile(below, tail / 2),
        interval_high=_take_quantile(above, 1 - tail / 2),
        num_groups=num_groups,
        degenerate=frozen
        or math.isnan(delta)
        or part_undefined > MAX_UNDEFINED_PART
        or not math.isfinite(float(below[0])),
    )


def _take_quantile(values: FloatArray, part: float) -> float:
    """Quantile by the inverse of the empirical distribution: always a value seen, never between two."""
    return float(np.quantile(values, part, method="inverted_cdf"))


def sum_groups(sums: FloatArray, groups: Sequence[str]) -> FloatArray:
    """Return the case sums (N, S) added up by group, (G, S) float64, groups in the order of their names."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    totals = np.zeros((len(names), sums.shape[1]), np.float64)
    np.add.at(totals, index, sums)
    return totals


def _check_arguments(
    reference: FloatArray, candidate: FloatArray, groups: Sequence[str], num_resamples: int, confidence: float
) -> None:
    if reference.ndim != 2 or reference.shape != candidate.shape or len(groups) != len(reference):
        raise InputError(
            "case sums that are not paired",
            received=f"{reference.shape}, {candidate.shape} and {len(groups)} groups",
            expected="two equal (N, S) arrays and N groups",
        )
    if len(reference) == 0:
        raise InputError("no case to resample", expected="at least one")
    if not 0.5 < confidence < 1 or num_resamples < 1:
        raise UsageError(
            "a bootstrap that cannot be meant",
            received=f"confidence {confidence}, {num_resamples} resamples",
            expected="confidence between 0.5 and 1, at least one resample",
        )
