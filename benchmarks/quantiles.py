"""Percentiles of latency samples by one documented rule, and how sure a rate of misses is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p99.9": 0.999}
SUMMARY = (*PERCENTILES, "max")
"""Keys of every summary, in the order shown."""

Samples = npt.NDArray[np.int64]
"""(n,) int64, nanoseconds in the order measured."""


def take_quantile_ns(samples: Samples, part: float) -> int | None:
    """Return the sample below or at which ``part`` of all samples lie (nearest rank, no interpolation).

    None, that is "not measured", where fewer than 1 / (1 - part) samples exist: then the quantile would be
    the maximum under another name. p99.9 needs 1000 samples, p99 100, p90 ten, p50 two.
    """
    needed = math.ceil(round(1.0 / (1.0 - part), 6))
    if len(samples) < needed:
        return None
    rank = math.ceil(round(part * len(samples), 6))
    return int(np.sort(samples)[rank - 1])


def summarise_samples_ms(samples: Samples) -> dict[str, float | None]:
    """Return p50, p90, p99, p99.9 and max in ms, None where there are too few samples."""
    quantiles = {name: take_quantile_ns(samples, part) for name, part in PERCENTILES.items()}
    quantiles["max"] = int(samples.max()) if len(samples) else None
    return {name: None if value is None else value / 1e6 for name, value in quantiles.items()}


def bound_rate(events: int, trials: int, confidence: float = 0.95) -> float | None:
    """Return the one-sided upper bound of a rate after ``events`` in ``trials`` (Clopper & Pearson 1934).

    It is the rate at which so few events would be seen with probability 1 - ``confidence``; without any event
    in n trials about 3 / n. It takes the trials as independent. Misses come in runs, so a reader should look
    at the longest run as well. None without a trial.
    """
    if trials == 0:
        return None
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _sum_binomial(events, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _sum_binomial(events: int, trials: int, rate: float) -> float:
    """Return the probability of at most ``events`` in ``trials``, summed from its largest term down."""
    if rate >= 1.0:
        return 0.0
    log_rate, log_rest = math.log(rate) if rate > 0 else -math.inf, math.log1p(-rate)
    total = 0.0
    for count in range(events, -1, -1):
        choices = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
        powers = (count * log_rate if count else 0.0) + (trials - count) * log_rest
        term = math.exp(choices + powers)
        total += term
        if term < 1e-17 * total:
            break
    return total
