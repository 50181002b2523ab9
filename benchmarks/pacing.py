"""Frames that arrive with the scanner's frame rate, whether the engine is ready or not: the open loop.

A loop that sends the next frame when the last is done hides every stall: it simply asks less often meanwhile
(coordinated omission, Tene 2013). Here the arrivals are laid down before the start, and a latency counts from
the arrival, not from the moment the engine took the frame.

One thread suffices for that. Between two queries everything that has arrived by the clock enters the queue in
its order, and where the queue is full a frame is dropped by the policy: the same frames in the same order as
with a thread of its own, whose wake-ups would disturb the engine.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.loops import TimedSegmenter, rest_garbage_collector
from edgekd.benchmarks.paced_result import NEVER, PacedResult
from edgekd.errors import UsageError

SPIN_NS = 1_000_000
"""The last millisecond before an arrival is spent spinning: a sleep ends late by up to a scheduler tick."""
LEAD_NS = 5_000_000


@dataclasses.dataclass(frozen=True)
class PaceConfig:
    """How frames arrive, wait and are dropped.

    Attributes:
        fps: frames a second.
        jitter: each arrival is moved by up to this part of a period, evenly, either way; 0 to below 0.5.
        queue: frames that can wait while one is computed, at least 1.
        drop: which frame goes where the queue is full: ``oldest``, as a live view wants it, or ``newest``.
        deadline_ms: a mask later than this after its frame's arrival is a miss; None takes one period.
        seed: of the jitter.
    """

    fps: float = 30.0
    jitter: float = 0.0
    queue: int = 2
    drop: Literal["oldest", "newest"] = "oldest"
    deadline_ms: float | None = None
    seed: int = 0

    @property
    def period_ns(self) -> int:
        """Time between two arrivals without jitter."""
        return round(1e9 / self.fps)

    @property
    def deadline_ns(self) -> int:
        """The deadline in force."""
        return self.period_ns if self.deadline_ms is None else round(self.deadline_ms * 1e6)

    def check(self) -> None:
        """Raise UsageError where the values cannot be meant."""
        if not 0 < self.fps <= 10_000:
            raise UsageError(
                "a frame rate that cannot be meant", received=self.fps, expected="above 0, up to 10000"
            )
        if not 0 <= self.jitter < 0.5:
            raise UsageError(
                "a jitter that cannot be meant", received=self.jitter, expected="0 to below 0.5 of a period"
            )
        if self.queue < 1:
            raise UsageError("a queue without a place", received=self.queue, expected="at least 1")
        if self.drop not in ("oldest", "newest"):
            raise UsageError("an unknown drop policy", received=self.drop, expected="oldest or newest")
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise UsageError("a deadline that cannot be met", received=self.deadline_ms, expected="above 0")


def plan_arrivals_ns(config: PaceConfig, count: int) -> npt.NDArray[np.int64]:
    """Return ``count`` arrivals in ns from the start, ascending, jitter included."""
    places = np.arange(count, dtype=np.float64)
    if config.jitter > 0:
        places += np.random.default_rng(config.seed).uniform(-config.jitter, config.jitter, count)
    # The first one is not before the start.
    return np.round((places - min(0.0, float(places[0]))) * config.period_ns).astype(np.int64)


def measure_paced(
    segmenter: TimedSegmenter,
    frames: Sequence[npt.NDArray[Any]],
    config: PaceConfig,
    count: int,
    *,
    num_warmup: int = 0,
) -> PacedResult:
    """Let ``count`` frames arrive and segment those that are not dropped, first come first served.

    Ctrl-C ends it and keeps the frames until then.

    Args:
        segmenter: a loaded engine.
        frames: shown in turn.
        config: how they arrive.
        count: arrivals, at least one.
        num_warmup: queries run first, one after another, and not kept.
    """
    arrivals_ns = plan_arrivals_ns(config, count)
    starts_ns = np.full(count, NEVER, np.int64)
    ends_ns = np.full(count, NEVER, np.int64)
    batches = [[frame] for frame in frames]
    interrupted = False
    queue: collections.deque[int] = collections.deque()
    arrived = 0
    try:
        for index in range(num_warmup):
            segmenter.segment(batches[index % len(batches)])
        with rest_garbage_collector():
            begin = time.perf_counter_ns() + LEAD_NS
            due_ns = (begin + arrivals_ns).tolist()
            while arrived < count or queue:
                if not queue:
                    _wait_until(due_ns[arrived])
                arrived = _admit(queue, due_ns, arrived, time.perf_counter_ns(), config)
                index = queue.popleft()
                start = time.perf_counter_ns()
                segmenter.segment(batches[index % len(batches)])
                end = time.perf_counter_ns()
                starts_ns[index], ends_ns[index] = start - begin, end - begin
    except KeyboardInterrupt:
        interrupted = True
        # What was in work or waiting was neither finished nor dropped: it is as if it had not arrived.
        count = _find_last_finished(ends_ns) + 1
    return PacedResult(
        fps=config.fps,
        jitter=config.jitter,
        queue=config.queue,
        drop=config.drop,
        deadline_ns=config.deadline_ns,
        arrivals_ns=arrivals_ns[:count],
        starts_ns=starts_ns[:count],
        ends_ns=ends_ns[:count],
        interrupted=interrupted,
    )


def _admit(
    queue: collections.deque[int], due_ns: Sequence[int], arrived: int, now_ns: int, config: PaceConfig
) -> int:
    """Put all that has arrived by now into the queue, dropping by the policy; return their number so far."""
    while arrived < len(due_ns) and due_ns[arrived] <= now_ns:
        if len(queue) < config.queue:
            queue.append(arrived)
        elif config.drop == "oldest":
            queue.popleft()
            queue.append(arrived)
        arrived += 1
    return arrived


def _wait_until(due_ns: int) -> None:
    remaining_ns = due_ns - time.perf_counter_ns()
    if remaining_ns > SPIN_NS:
        time.sleep((remaining_ns - SPIN_NS) / 1e9)
    while time.perf_counter_ns() < due_ns:
        pass


def _find_last_finished(ends_ns: npt.NDArray[np.int64]) -> int:
    finished = np.flatnonzero(ends_ns != NEVER)
    return int(finished[-1]) if len(finished) else -1
