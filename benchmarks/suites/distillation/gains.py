"""How much a method gains over the control, over sets, structures, seeds and cases, with an interval.

A resample draws the groups of each set with replacement, the same ones for every structure, seed and side
(paired cluster bootstrap: Davison & Hinkley 1997, section 3.8), and beside it the seeds of each set and
structure, so that the interval holds for other patients and for other initial weights. Of n seeds n - 1 are
drawn: n would make the variance of their mean (n - 1) / n of what it is, a third too little for three seeds,
and n - 1 make it unbiased (rescaling bootstrap: Rao & Wu, J. Amer. Statist. Assoc. 83 (1988) 231). Of a
single seed nothing can be drawn: such an interval is about cases alone. The gain of a resample is the mean
over sets and structures of the mean over its seeds. Intervals are percentiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.bootstrap import draw_weights, sum_groups
from edgekd.errors import InputError
from edgekd.metrics import METRICS, score_sums, summarise_cases

NUM_RESAMPLES = 4000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A run beside its control on the same cases.

    Attributes:
        set, student, seed: which run.
        groups: (N,) the groups of the cases.
        control, method: (N, S) case sums, see ``edgekd.metrics.summarise_cases``.
        num_classes: K.
    """

    set: str
    student: str
    seed: int
    groups: tuple[str, ...]
    control: Floats
    method: Floats
    num_classes: int


@dataclass(frozen=True)
class Gain:
    """A mean difference, method - control.

    Attributes:
        delta: on all cases and seeds.
        low, high: two-sided 95 % interval.
        lower: one-sided lower 95 % bound.
        p_value: two-sided: twice the smaller part of resamples on one side of 0, at least 2 / resamples;
            None where runs of the plan are missing.
        num_seeds: the fewest seeds of a set and structure; of a single one the interval is about cases alone.
        most_seeds: the most.
    """

    delta: float
    low: float
    high: float
    lower: float
    p_value: float | None
    num_seeds: int
    most_seeds: int


def build_pair(
    set_name: str,
    student: str,
    seed: int,
    groups: Sequence[str],
    control: Sequence[Sequence[int]],
    method: Sequence[Sequence[int]],
) -> Pair:
    """Return the pair of two recorded runs.

    Args:
        set_name, student, seed: which.
        groups: of the N cases.
        control, method: N confusion matrices, each K * K counts, rows the truth.

    Raises:
        InputError: the cases of both sides differ.
    """
    sides = [np.asarray(counts, np.int64) for counts in (control, method)]
    if sides[0].shape != sides[1].shape or len(groups) != len(sides[0]):
        raise InputError("two runs that are not paired", received=[side.shape for side in sides])
    num_classes = round(sides[0].shape[1] ** 0.5)
    sums = [summarise_cases(side.reshape(-1, num_classes, num_classes)) for side in sides]
    if not np.array_equal(_count_truth(sides[0], num_classes), _count_truth(sides[1], num_classes)):
        raise InputError("two runs were judged by different masks", received=f"{set_name}, {student}, {seed}")
    return Pair(set_name, student, seed, tuple(groups), sums[0], sums[1], num_classes)


def estimate_gains(
    pairs: Sequence[Pair], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Gain]:
    """Return the gain in each of ``METRICS``.

    Args:
        pairs: any number of sets, structures and seeds.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: no pair.
    """
    if not pairs:
        raise InputError("there is no run beside a control", expected="at least one")
    rng = np.random.default_rng(seed)
    deltas: list[Floats] = []
    points: list[Floats] = []
    counts: list[int] = []
    for name in dict.fromkeys(pair.set for pair in pairs):
        of_set = [pair for pair in pairs if pair.set == name]
        num_groups = len(set(of_set[0].groups))
        weights = np.concatenate(list(draw_weights(rng, num_groups, num_resamples)))
        for student in dict.fromkeys(pair.student for pair in of_set):
            runs = [pair for pair in of_set if pair.student == student]
            resampled = np.stack([_score_difference(run, weights) for run in runs])
            counts.append(len(runs))
            chosen = rng.integers(len(runs), size=(num_resamples, max(1, len(runs) - 1)))
            deltas.append(resampled[chosen, :, np.arange(num_resamples)[:, None]].mean(axis=1))
            whole = np.ones((1, num_groups))
            points.append(np.mean([_score_difference(run, whole) for run in runs], axis=0)[:, 0])
    resamples, point = np.mean(deltas, axis=0), np.mean(points, axis=0)
    return {
        metric: _summarise(float(point[index]), resamples[:, index], counts)
        for index, metric in enumerate(METRICS)
    }


def describe_scope(gains: Iterable[Gain]) -> str:
    """Return what the intervals of some gains are about: cases and seeds, or cases alone."""
    repeated = {count > 1 for gain in gains for count in (gain.num_seeds, gain.most_seeds)}
    if repeated == {True}:
        return "cases and seeds"
    return (
        "cases alone, as of one seed" if repeated == {False} else "cases, and seeds where there are several"
    )


def adjust_holm(p_values: Mapping[str, float], num_methods: int) -> dict[str, float]:
    """Return the p-values adjusted for the number of methods (Holm, Scand. J. Statist. 1979).

    Args:
        p_values: of the methods that have one.
        num_methods: all that are tried. Those without a p-value yet count as if theirs were the largest,
            so that no value here can rise when they get one.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        highest = max(highest, min(1.0, (num_methods - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def _count_truth(counts: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    return counts.reshape(len(counts), num_classes, num_classes).sum(axis=2)


def _score_difference(pair: Pair, weights: Floats) -> Floats:
    """Return (len(METRICS), R): method - control for each resample's weights of the groups (R, G)."""
    before, after = (
        score_sums(weights @ sum_groups(sums, pair.groups), pair.num_classes)
        for sums in (pair.control, pair.method)
    )
    return np.stack([after[metric] - before[metric] for metric in METRICS])


def _summarise(delta: float, resamples: Floats, seeds: Sequence[int]) -> Gain:
    kept = resamples[~np.isnan(resamples)]
    low, lower, high = np.quantile(kept, (0.025, 0.05, 0.975), method="inverted_cdf")
    tail = min(float((kept <= 0).mean()), float((kept >= 0).mean()))
    p_value = min(1.0, max(2 * tail, 2 / len(kept)))
    return Gain(delta, float(low), float(high), float(lower), p_value, min(seeds), max(seeds))
