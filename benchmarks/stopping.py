"""When a measurement has enough: a number of queries, a number of seconds, and a median that stands still."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.errors import UsageError

DEFAULT_QUERIES = 200
DEFAULT_ARRIVALS = 100
"""Of frames that come in time, each of which takes a period: what p99 needs."""
DEFAULT_MAX_SECONDS = 60.0
NUM_BATCHES = 10
MIN_BATCH = 10
_T_9 = 2.262
"""Student's t, 97.5 %, 9 degrees of freedom: ten batch medians."""
_CHECK_NS = 200_000_000


@dataclasses.dataclass(frozen=True)
class StopRule:
    """A measurement goes on until every minimum is met, and never beyond a limit for stability alone.

    Attributes:
        min_queries: queries at least, and frames at least where they come in time; None takes DEFAULT_QUERIES
            and DEFAULT_ARRIVALS.
        min_seconds: seconds at least.
        stability: go on until the median is known to ± this part of itself; None asks for nothing.
        max_seconds: where waiting for stability ends; None takes DEFAULT_MAX_SECONDS.
    """

    min_queries: int | None = None
    min_seconds: float = 3.0
    stability: float | None = None
    max_seconds: float | None = None

    @property
    def num_queries(self) -> int:
        """Queries at least."""
        return DEFAULT_QUERIES if self.min_queries is None else self.min_queries

    @property
    def longest_seconds(self) -> float:
        """Where waiting for stability ends."""
        return DEFAULT_MAX_SECONDS if self.max_seconds is None else self.max_seconds

    def count_arrivals(self, fps: float) -> int:
        """Return how many frames are let arrive at a rate, so that both minima are met."""
        least = DEFAULT_ARRIVALS if self.min_queries is None else self.min_queries
        return max(math.ceil(self.min_seconds * fps), least)

    def check(self) -> None:
        """Raise UsageError where the rule cannot be meant, or a part of it does nothing."""
        longest = self.longest_seconds
        if self.num_queries < 1 or self.min_seconds < 0 or longest < 0:
            raise UsageError(
                "a measurement that cannot be meant",
                received=f"{self.num_queries} queries, {self.min_seconds} s, at most {longest} s",
                expected="at least one query and no negative time",
            )
        if self.stability is not None and not 0 < self.stability < 1:
            raise UsageError(
                "a stability that cannot be meant", received=self.stability, expected="between 0 and 1"
            )

        if self.max_seconds is not None and self.stability is None:
            raise UsageError(
                "max-seconds would do nothing in this measurement",
                received=f"{self.max_seconds:g} s, and no stability to wait for",
                expected="stability",
                action="add --stability, or leave it out",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON values, its defaults by their value."""
        defaults = {"min_queries": self.num_queries, "max_seconds": self.longest_seconds}
        return {**dataclasses.asdict(self), **defaults}


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
        if len(samples_ns) < rule.num_queries or now < self._next_check:
            return False
        if rule.stability is None or now - self._begin >= rule.longest_seconds * 1e9:
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
