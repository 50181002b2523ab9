"""The latency harness: load, first query, single stream, stages, then whatever scenarios are asked for.

It knows neither model nor data: it is given a way to load a segmenter, and frames. Every sample is kept in
nanoseconds of ``time.perf_counter_ns`` (monotonic).

Loading is timed in a process that may have run already (process-warm): files may lie in the page cache and
libraries may be imported. It is not the start of a device. No progress bar runs meanwhile: its thread would
be measured too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from edgekd.benchmarks.disturbance import read_counters, subtract_counters
from edgekd.benchmarks.energy import INTERRUPTED, NO_METER, EnergyResult, measure_energy
from edgekd.benchmarks.environment import describe_conditions
from edgekd.benchmarks.latency_result import LatencyResult, ScenarioResult
from edgekd.benchmarks.loops import LoopResult, TimedSegmenter, run_loop, time_segment, time_stages
from edgekd.benchmarks.paced_result import PacedResult
from edgekd.benchmarks.pacing import PaceConfig, measure_paced
from edgekd.benchmarks.power import PowerMeter
from edgekd.benchmarks.scenarios import BatchResult, ScenarioConfig, measure_batches
from edgekd.benchmarks.stopping import StopRule
from edgekd.errors import InputError, UsageError


def measure_latency(
    load_segmenter: Callable[[], TimedSegmenter],
    frames: Sequence[npt.NDArray[Any]],
    *,
    min_queries: int | None = None,
    min_seconds: float = 5.0,
    stability: float | None = None,
    max_seconds: float | None = None,
    num_warmup: int = 20,
    scenarios: ScenarioConfig | None = None,
    find_meter: Callable[[], PowerMeter | None] | None = None,
) -> LatencyResult:
    """Load, run the first query, warm up, then measure end to end, by stage and by scenario.

    Args:
        load_segmenter: called once; its result is closed at the end.
        frames: (H, W) or (H, W, 3) each; one a query, in turn.
        min_queries: samples to take at least, in each loop; for None see ``StopRule``.
        min_seconds: time to measure at least, in each loop.
        stability, max_seconds: see ``StopRule``.
        num_warmup: queries that are run and not kept, before each loop.
        scenarios: what to measure beside the single stream; None takes nothing.
        find_meter: opens the meter of the power for a loop of its own at the end, and not before: one that
            runs a tool would disturb the latencies, and its unread lines would be of another time. None
            measures no energy.

    Raises:
        InputError: no frame.
        UsageError: minima or scenarios that cannot be meant.
        KeyboardInterrupt: Ctrl-C came before anything was measured.
    """
    if len(frames) == 0:
        raise InputError("no frame to measure with", expected="at least one")
    if num_warmup < 0:
        raise UsageError("a warm-up that cannot be meant", received=num_warmup, expected="0 or more")
    rule = StopRule(min_queries, min_seconds, stability, max_seconds)
    rule.check()
    chosen = scenarios or ScenarioConfig()
    chosen.check()
    conditions = {"before": describe_conditions()}
    counters = read_counters()
    begin = time.perf_counter_ns()
    segmenter = load_segmenter()
    load_ns = time.perf_counter_ns() - begin
    with contextlib.closing(segmenter):
        begin = time.perf_counter_ns()
        segmenter.segment([frames[0]])
        first_ns = time.perf_counter_ns() - begin
        run = _Run(segmenter, frames, rule, num_warmup)
        single = run.measure_single_stream()
        stages = dict(segmenter.stages)
        stage_loop = run.measure_stages(stages)
        others = run.measure_scenarios(chosen)
        conditions["during"] = subtract_counters(counters, read_counters())
        conditions["after"] = describe_conditions()
        energy = run.measure_energy(find_meter)
        facts = _read_facts(segmenter)
    return LatencyResult(
        load_ns=load_ns,
        first_ns=first_ns,
        samples_ns=single.samples_ns,
        stage_samples_ns=dict(zip(stages, stage_loop.columns, strict=False)),
        num_warmup=num_warmup,
        num_frames=len(frames),
        frame_shapes=tuple(sorted({frame.shape for frame in frames})),
        interrupted=run.interrupted,
        conditions=conditions,
        facts=facts,
        scenarios=others,
        energy=energy,
        rule=rule,
    )


@dataclasses.dataclass
class _Run:
    """The measurements of one loaded engine; after Ctrl-C in one of them the others are left out."""

    segmenter: TimedSegmenter
    frames: Sequence[npt.NDArray[Any]]
    rule: StopRule
    num_warmup: int
    interrupted: bool = False

    def measure_single_stream(self) -> LoopResult:
        return self._run_loop(functools.partial(time_segment, self.segmenter))

    def measure_stages(self, stages: dict[str, Callable[[Any], Any]]) -> LoopResult:
        return self._run_loop(functools.partial(time_stages, stages))

    def measure_scenarios(self, config: ScenarioConfig) -> tuple[ScenarioResult, ...]:
        sizes = {"offline": config.batch, "multi-stream": config.streams}
        results: list[ScenarioResult] = []
        for name in config.names:
            if name in sizes and not self.interrupted:
                results.append(self._measure_batches(name, sizes[name]))
            for pace in config.paces if name == "paced" else ():
                if not self.interrupted:
                    results.append(self._measure_pace(pace))
        return tuple(results)

    def measure_energy(self, find_meter: Callable[[], PowerMeter | None] | None) -> EnergyResult | str:
        if find_meter is None:
            return "nobody asked for it"
        if self.interrupted:
            return INTERRUPTED
        try:
            meter = find_meter()
            if meter is None:
                return NO_METER
            with contextlib.closing(meter):
                return measure_energy(self.segmenter, self.frames, meter, self.rule.min_seconds)
        except KeyboardInterrupt:
            self.interrupted = True
            return INTERRUPTED

    def _run_loop(self, time_query: Callable[[Any], tuple[int, ...]]) -> LoopResult:
        if self.interrupted:
            return LoopResult((), 0, True)
        loop = run_loop(time_query, [[frame] for frame in self.frames], self.rule, self.num_warmup)
        self.interrupted = loop.interrupted
        return loop

    def _measure_batches(self, scenario: str, frames_a_query: int) -> BatchResult:
        result = measure_batches(
            self.segmenter,
            self.frames,
            scenario=scenario,
            frames_a_query=frames_a_query,
            rule=self.rule,
            num_warmup=-(-self.num_warmup // frames_a_query),
        )
        self.interrupted = result.interrupted
        return result

    def _measure_pace(self, pace: PaceConfig) -> PacedResult:
        count = self.rule.count_arrivals(pace.fps)
        result = measure_paced(self.segmenter, self.frames, pace, count, num_warmup=self.num_warmup)
        self.interrupted = result.interrupted
        return result


def _read_facts(segmenter: Any) -> dict[str, Any]:
    engine = getattr(segmenter, "engine", None)
    if engine is None:
        return {}
    return {"engine": engine.name, "synchronisation": engine.synchronisation, **engine.facts()}
