"""Is a candidate no worse than its reference? Paired bootstrap over groups, and the verdict drawn from it.

Images of one patient are alike, so whole groups are resampled, with the same groups for both sides
(cluster bootstrap: Davison & Hinkley 1997, section 3.8). Intervals are percentile intervals: they hold the
scores' own range, need no variance estimate, and are what is read most easily. BCa would correct their bias,
but its jackknife is unstable for pooled scores of few groups; with few groups nothing is decided here.

Non-inferiority (CONSORT extension, Piaggio et al. 2012): the one-sided lower bound of
candidate - reference lies above -margin.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekd.errors import InputError, UsageError

FloatArray = npt.NDArray[np.float64]
Decision = Literal["pass", "fail", "inconclusive"]

DEFAULT_MARGINS: Mapping[str, float] = {"acc": 0.002, "miou": 0.01, "dice": 0.01, "kappa": 0.01}
MIN_GROUPS = 20
MAX_UNDEFINED_PART = 0.01
"""Above this part of resamples without a score, the bootstrap is called degenerate."""

_BLOCK_ELEMENTS = 4_000_000  # 32 MB of weights at a time


@dataclasses.dataclass(frozen=True)
class Difference:
    """One score of both sides and how sure its difference is.

    Attributes:
        reference, candidate: the score on all groups, NaN where undefined.
        delta: candidate - reference.
        lower: one-sided lower bound of delta at the confidence asked for.
        interval_low, interval_high: two-sided percentile interval of delta at the same confidence.
        num_groups: groups resampled.
        degenerate: the resamples say nothing about delta (see ``paired_bootstrap``).
    """

    reference: float
    candidate: float
    delta: float
    lower: float
    interval_low: float
    interval_high: float
    num_groups: int
    degenerate: bool

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """Return the fields as JSON values, None for what is not finite."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in dataclasses.asdict(self).items()
        }


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The decision for each score and for all of them together.

    Attributes:
        overall: ``pass`` only where every score passes; ``fail`` where one fails; else ``inconclusive``.
        metrics: one decision a score.
        reasons: why it does not pass, one sentence each.
    """

    overall: Decision
    metrics: dict[str, Decision]
    reasons: tuple[str, ...]


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
    The result is degenerate where a score is undefined on all groups, where more than 1 % of the resamples
    are undefined, or where delta is not zero but every resample gives the same value.

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
        _sum_groups(reference_sums, groups),
        _sum_groups(candidate_sums, groups),
    )
    num_groups = len(reference_groups)
    rng = np.random.default_rng(seed)
    blocks: dict[str, list[FloatArray]] = {name: [] for name in names}
    remaining = num_resamples
    while remaining > 0:
        block = min(remaining, max(1, _BLOCK_ELEMENTS // num_groups))
        weights = rng.multinomial(num_groups, np.full(num_groups, 1.0 / num_groups), size=block).astype(
            np.float64
        )
        before, after = score(weights @ reference_groups), score(weights @ candidate_groups)
        for name in names:
            blocks[name].append(np.asarray(after[name] - before[name], np.float64))
        remaining -= block
    reference, candidate = score(reference_groups.sum(axis=0)), score(candidate_groups.sum(axis=0))
    return {
        name: _summarise_resamples(
            float(reference[name]),
            float(candidate[name]),
            np.concatenate(blocks[name]),
            num_groups,
            confidence,
        )
        for name in names
    }


def decide_non_inferiority(
    differences: Mapping[str, Difference],
    margins: Mapping[str, float] = DEFAULT_MARGINS,
    *,
    min_groups: int = MIN_GROUPS,
    identical: bool,
) -> Verdict:
    """Judge each difference against its margin; all must pass.

    Args:
        differences: from ``paired_bootstrap``.
        margins: the largest loss accepted for each score, above zero, in the score's own unit.
        min_groups: fewer groups decide nothing.
        identical: the masks of both sides are equal pixel by pixel, so there is nothing left to estimate.

    Raises:
        UsageError: no margin, one that is not above zero, or one for a score that was not measured.
    """
    _check_margins(differences, margins)
    if identical:
        return Verdict("pass", dict.fromkeys(margins, "pass"), ())
    num_groups = min(differences[name].num_groups for name in margins)
    if num_groups < min_groups:
        reason = f"{num_groups} groups decide nothing, at least {min_groups} are needed"
        return Verdict("inconclusive", dict.fromkeys(margins, "inconclusive"), (reason,))
    decisions: dict[str, Decision] = {}
    reasons: list[str] = []
    for name, margin in margins.items():
        decisions[name], reason = _decide_metric(name, differences[name], margin)
        if reason:
            reasons.append(reason)
    found = set(decisions.values())
    overall: Decision = "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"
    return Verdict(overall, decisions, tuple(reasons))


def _decide_metric(name: str, difference: Difference, margin: float) -> tuple[Decision, str]:
    if difference.degenerate:
        return (
            "inconclusive",
            f"{name}: the bootstrap is degenerate, the resamples say nothing about the difference",
        )
    if difference.lower > -margin:
        return "pass", ""
    return "fail", f"{name}: the lower bound {difference.lower:+.4f} is not above {-margin:+.4f}"


def _summarise_resamples(
    reference: float, candidate: float, deltas: FloatArray, num_groups: int, confidence: float
) -> Difference:
    delta = candidate - reference
    undefined = np.isnan(deltas)
    frozen = delta != 0 and bool(np.ptp(np.where(undefined, delta, deltas)) <= 1e-12 * max(1.0, abs(delta)))
    worst, best = np.where(undefined, -np.inf, deltas), np.where(undefined, np.inf, deltas)
    tail = 1.0 - confidence
    return Difference(
        reference=reference,
        candidate=candidate,
        delta=delta,
        lower=_take_quantile(worst, tail),
        interval_low=_take_quantile(worst, tail / 2),
        interval_high=_take_quantile(best, 1 - tail / 2),
        num_groups=num_groups,
        degenerate=math.isnan(delta) or float(undefined.mean()) > MAX_UNDEFINED_PART or frozen,
    )


def _take_quantile(values: FloatArray, part: float) -> float:
    """Quantile by the inverse of the empirical distribution: always a value seen, never between two."""
    return float(np.quantile(values, part, method="inverted_cdf"))


def _sum_groups(sums: FloatArray, groups: Sequence[str]) -> FloatArray:
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


def _check_margins(differences: Mapping[str, Difference], margins: Mapping[str, float]) -> None:
    if not margins:
        raise UsageError("no margin to judge by", expected="one or more scores with a margin")
    for name, margin in margins.items():
        if name not in differences:
            raise UsageError(
                "a margin for a score that was not measured",
                received=repr(name),
                expected="one of " + ", ".join(sorted(differences)),
            )
        if not margin > 0:
            raise UsageError(
                f"the margin of {name} cannot be meant", received=margin, expected="a number above zero"
            )
