"""The latency harness: queries of one frame, timed one after another, every sample kept in nanoseconds.

It knows neither model nor data: it is given a way to load a segmenter, and frames. MLPerf calls this the
single-stream scenario. The clock is ``time.perf_counter_ns`` (monotonic); the garbage collector rests while
samples are taken, because its pauses belong to this process and not to the engine.

Loading is timed in a process that may have run already (process-warm): files may lie in the page cache and
libraries may be imported. It is not the start of a device. No progress bar runs meanwhile: its thread would
be measured too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.environment import describe_conditions
from edgekd.benchmarks.quantiles import Samples, summarise_samples_ms
from edgekd.cores import count_usable_cores
from edgekd.errors import InputError, UsageError

MAX_SPREAD = 2.0
"""p99 / p50 above this is reported as unstable."""
MAX_DRIFT = 0.10
"""Relative difference of the medians of both halves above which the samples are reported as drifting."""
MAX_LOAD_PER_CORE = 0.5
"""Load average a core before the start above which the machine is reported as busy."""


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
class LatencyResult:
    """What one engine took; times in ns as measured, percentiles in ms.

    Attributes:
        load_ns: time to load the segmenter, process-warm.
        first_ns: first query after loading.
        samples_ns: (n,) int64, end to end queries in steady state, in order.
        stage_samples_ns: (m,) int64 a stage, from a second loop over the engine's stages.
        num_warmup: queries between the first one and the samples.
        num_frames: different frames that were cycled through.
        frame_shapes: their shapes.
        interrupted: Ctrl-C ended the measurement early; what was measured is kept.
        conditions: load average, clock and temperature before and after.
        facts: what the engine says about itself.
    """

    load_ns: int
    first_ns: int
    samples_ns: Samples
    stage_samples_ns: dict[str, Samples]
    num_warmup: int
    num_frames: int
    frame_shapes: tuple[tuple[int, ...], ...]
    interrupted: bool
    conditions: dict[str, dict[str, Any]]
    facts: dict[str, Any]

    @property
    def percentiles_ms(self) -> dict[str, float | None]:
        """p50, p90, p99 and max of the end to end samples in ms; None is "not measured"."""
        return summarise_samples_ms(self.samples_ns)

    @property
    def stage_percentiles_ms(self) -> dict[str, dict[str, float | None]]:
        """The same for each stage."""
        return {name: summarise_samples_ms(samples) for name, samples in self.stage_samples_ns.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the numbers, one sentence each."""
        return tuple(_find_doubts(self))

    def to_dict(self) -> dict[str, Any]:
        """Return everything, all samples included, as JSON values."""
        return {
            "load_ns": self.load_ns,
            "load_is": "process-warm",
            "first_ns": self.first_ns,
            "percentiles_ms": self.percentiles_ms,
            "stage_percentiles_ms": self.stage_percentiles_ms,
            "num_samples": len(self.samples_ns),
            "num_warmup": self.num_warmup,
            "num_frames": self.num_frames,
            "frame_shapes": [list(shape) for shape in self.frame_shapes],
            "interrupted": self.interrupted,
            "warnings": list(self.warnings),
            "conditions": self.conditions,
            "facts": self.facts,
            "samples_ns": self.samples_ns.tolist(),
            "stage_samples_ns": {name: samples.tolist() for name, samples in self.stage_samples_ns.items()},
        }


def measure_latency(
    load_segmenter: Callable[[], TimedSegmenter],
    frames: Sequence[npt.NDArray[Any]],
    *,
    min_queries: int = 200,
    min_seconds: float = 5.0,
    num_warmup: int = 20,
) -> LatencyResult:
    """Load, run the first query, warm up, then measure end to end and by stage until both minima are met.

    Args:
        load_segmenter: called once; its result is closed at the end.
        frames: (H, W) or (H, W, 3) each; one a query, in turn.
        min_queries: samples to take at least, in each of the two loops.
        min_seconds: time to measure at least, in each of the two loops.
        num_warmup: queries that are run and not kept, before each loop.

    Raises:
        InputError: no frame.
        UsageError: minima that cannot be meant.
        KeyboardInterrupt: Ctrl-C came before anything was measured.
    """
    if len(frames) == 0:
        raise InputError("no frame to measure with", expected="at least one")
    if min_queries < 1 or min_seconds < 0 or num_warmup < 0:
        raise UsageError(
            "a measurement that cannot be meant",
            received=f"{min_queries} queries, {min_seconds} s, {num_warmup} to warm up",
            expected="at least one query, no negative time or warm-up",
        )
    before = describe_conditions()
    begin = time.perf_counter_ns()
    segmenter = load_segmenter()
    load_ns = time.perf_counter_ns() - begin
    batches = [[frame] for frame in frames]
    with contextlib.closing(segmenter):
        begin = time.perf_counter_ns()
        segmenter.segment(batches[0])
        first_ns = time.perf_counter_ns() - begin
        loop = _Loop(batches, min_queries, round(min_seconds * 1e9), num_warmup)
        columns = loop.measure(lambda batch: (_time_query(segmenter, batch),))
        stages = dict(segmenter.stages)
        stage_columns = (
            loop.measure(lambda batch: _time_stages(stages, batch)) if not loop.interrupted else []
        )
        facts = _read_facts(segmenter)
    return LatencyResult(
        load_ns=load_ns,
        first_ns=first_ns,
        samples_ns=columns[0] if columns else np.zeros(0, np.int64),
        stage_samples_ns=dict(zip(stages, stage_columns, strict=False)),
        num_warmup=num_warmup,
        num_frames=len(frames),
        frame_shapes=tuple(sorted({frame.shape for frame in frames})),
        interrupted=loop.interrupted,
        conditions={"before": before, "after": describe_conditions()},
        facts=facts,
    )


@dataclasses.dataclass
class _Loop:
    batches: list[list[npt.NDArray[Any]]]
    min_queries: int
    min_ns: int
    num_warmup: int
    interrupted: bool = False

    def measure(self, query: Callable[[Any], tuple[int, ...]]) -> list[Samples]:
        """Return one array of samples a column of ``query``'s result; Ctrl-C ends it and keeps them."""
        rows: list[tuple[int, ...]] = []
        try:
            for index in range(self.num_warmup):
                query(self.batches[index % len(self.batches)])
            with _rest_garbage_collector():
                end = time.perf_counter_ns() + self.min_ns
                while len(rows) < self.min_queries or time.perf_counter_ns() < end:
                    rows.append(query(self.batches[len(rows) % len(self.batches)]))
        except KeyboardInterrupt:
            self.interrupted = True
        return [np.array(column, np.int64) for column in zip(*rows, strict=True)]


def _time_query(segmenter: TimedSegmenter, batch: Any) -> int:
    begin = time.perf_counter_ns()
    segmenter.segment(batch)
    return time.perf_counter_ns() - begin


def _time_stages(stages: Mapping[str, Callable[[Any], Any]], batch: Any) -> tuple[int, ...]:
    value: Any = batch
    times_ns: list[int] = []
    for stage in stages.values():
        begin = time.perf_counter_ns()
        value = stage(value)
        times_ns.append(time.perf_counter_ns() - begin)
    return tuple(times_ns)


@contextlib.contextmanager
def _rest_garbage_collector() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_facts(segmenter: Any) -> dict[str, Any]:
    engine = getattr(segmenter, "engine", None)
    if engine is None:
        return {}
    return {"engine": engine.name, "synchronisation": engine.synchronisation, **engine.facts()}


def _find_doubts(result: LatencyResult) -> Iterator[str]:
    if result.interrupted:
        yield "interrupted: fewer samples than asked for"
    summary = result.percentiles_ms
    p50, p99 = summary["p50"], summary["p99"]
    if p99 is None:
        yield f"p99 is not measured: {len(result.samples_ns)} samples, at least 100 are needed"
    elif p50 is not None and p99 > MAX_SPREAD * p50:
        yield f"unstable: p99 is {p99 / p50:.1f} times p50; other work, power saving or heat disturb it"
    half = len(result.samples_ns) // 2
    if half >= 10:
        first, second = np.median(result.samples_ns[:half]), np.median(result.samples_ns[half:])
        if abs(second - first) > MAX_DRIFT * min(first, second):
            yield f"drifting: the median of the second half is {second / first:.2f} times that of the first"
    load = result.conditions.get("before", {}).get("load_average_1min")
    cores = count_usable_cores()
    if isinstance(load, float) and load > MAX_LOAD_PER_CORE * cores:
        yield f"busy machine: load average {load:.2f} on {cores} usable cores before the start"
