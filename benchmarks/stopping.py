"""When a measurement has enough: a number of queries, a number of seconds, and a median that stands still."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np

from edgekd.errors import UsageError

NUM_BATCHES = 10
MIN_BATCH = 10
_T_9 = 2.262
"""Student's t, 97.5 %, 9 degrees of freedom: ten batch medians."""
_CHECK_NS = 200_000_000


@dataclasses.dataclass(frozen=True)
class StopRule:
    """A measurement goes on until every minimum is met, and never beyond ``max_seconds`` for stability alone.

    Attributes:
        min_queries: queries at least.
        min_seconds: seconds at least.
        stability: go on until the median is known to ± this part of itself; None asks for nothing.
        max_seconds: where waiting for stability ends.
    """

    min_queries: int = 200
    min_seconds: float = 3.0
    stability: float | None = None
    max_seconds: float = 60.0

    def check(self) -> None:
        """Raise UsageError where the rule cannot be meant."""
        if self.min_queries < 1 or self.min_seconds < 0 or self.max_seconds < 0:
            raise UsageError(
                "a measurement that cannot be meant",
                received=f"{self.min_queries} queries, {self.min_seconds} s, at most {self.max_seconds} s",
                expected="at least one query and no negative time",
            )
        if self.stability is not None and not 0 < self.stability < 1:
            raise UsageError(
                "a stability that cannot be meant", received=self.stability, expected="between 0 and 1"
            )


class Stopwatch:
    """Applies a stop rule to samples while they are taken."""

    def __init__(self, rule: StopRule) -> None:
        """Start now."""
        self.rule = rule
        self._begin = time.perf_counter_ns()
        self._next_check = self._begin + round(rule.min_seconds * 1e9)

    def is_done(self, samples_ns: Sequence[int]) -> bool:
        """Return whether the samples so far are enough; cheap enough to be asked after each."""
        rule, now = self.rule, time.perf_counter_ns()
        if len(samples_ns) < rule.min_queries or now < self._next_check:
            return False
        if rule.stability is None or now - self._begin >= rule.max_seconds * 1e9:
            return True
        # The check costs more than a query of the null engine, so it is made now and then only.
        self._next_check = now + _CHECK_NS
        width = measure_instability(samples_ns)
        return width is not None and width <= rule.stability


def measure_instability(samples_ns: Sequence[int]) -> float | None:
    """Return the half width of the median's 95 % interval as a part of the median, by batch means.

    Samples that follow each other are alike, so they are not taken as independent: ten consecutive batches
    give ten medians, and their spread gives the interval (batch means, Schmeiser 1982, with medians). None
    with fewer than ten samples a batch.
    """
    size = len(samples_ns) // NUM_BATCHES
    if size < MIN_BATCH:
        return None
    batches = np.asarray(samples_ns[: size * NUM_BATCHES], np.float64).reshape(NUM_BATCHES, size)
    medians = np.median(batches, axis=1)
    middle = float(np.median(medians))
    if middle <= 0:
        return None
    return _T_9 * float(medians.std(ddof=1)) / math.sqrt(NUM_BATCHES) / middle
