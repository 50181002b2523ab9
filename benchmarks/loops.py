"""The closed loop: queries one after another, timed by the caller's function, until a stop rule is met.

The garbage collector rests while samples are taken, because its pauses belong to this process and not to the
engine. Ctrl-C ends a loop and keeps what it has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edgekd.benchmarks.quantiles import Samples
from edgekd.benchmarks.stopping import StopRule, Stopwatch


class TimedSegmenter(Protocol):
    """What the harness needs of a segmenter."""

    @property
    def stages(self) -> Mapping[str, Callable[[Any], Any]]:
        """The steps of one query in order."""
        ...

    def segment(self, frames: Any) -> Any:
        """Run one query end to end."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopResult:
    """What a loop took.

    Attributes:
        columns: one (n,) int64 array in ns for each value of the timing function.
        wall_ns: from the first sample's start to the last one's end.
        interrupted: Ctrl-C ended it.
    """

    columns: tuple[Samples, ...]
    wall_ns: int
    interrupted: bool

    @property
    def samples_ns(self) -> Samples:
        """The first column, empty where nothing was measured."""
        return self.columns[0] if self.columns else np.zeros(0, np.int64)


def run_loop(
    time_query: Callable[[Any], tuple[int, ...]], queries: Sequence[Any], rule: StopRule, num_warmup: int
) -> LoopResult:
    """Time queries in turn, again from the first at the end, until the rule is met.

    Args:
        time_query: runs one query and returns its times in ns, always as many.
        queries: what it is called with.
        rule: when to stop; stability is judged on the sum of a query's times.
        num_warmup: queries that are run first and not kept.
    """
    rows: list[tuple[int, ...]] = []
    totals: list[int] = []
    interrupted, begin, number = False, time.perf_counter_ns(), len(queries)
    try:
        for index in range(num_warmup):
            time_query(queries[index % number])
        with rest_garbage_collector():
            watch = Stopwatch(rule)
            begin = time.perf_counter_ns()
            while not watch.is_done(totals):
                row = time_query(queries[len(rows) % number])
                rows.append(row)
                totals.append(sum(row))
    except KeyboardInterrupt:
        interrupted = True
    wall_ns = time.perf_counter_ns() - begin
    columns = tuple(np.array(column, np.int64) for column in zip(*rows, strict=True))
    return LoopResult(columns, wall_ns, interrupted)


def time_segment(segmenter: TimedSegmenter, batch: Any) -> tuple[int, ...]:
    """Run one query end to end and return its time."""
    begin = time.perf_counter_ns()
    segmenter.segment(batch)
    return (time.perf_counter_ns() - begin,)


def time_stages(stages: Mapping[str, Callable[[Any], Any]], batch: Any) -> tuple[int, ...]:
    """Run the stages of one query and return the time of each."""
    value: Any = batch
    times_ns: list[int] = []
    for stage in stages.values():
        begin = time.perf_counter_ns()
        value = stage(value)
        times_ns.append(time.perf_counter_ns() - begin)
    return tuple(times_ns)


@contextlib.contextmanager
def rest_garbage_collector() -> Iterator[None]:
    """Collect once, then keep the collector from running inside the block."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
