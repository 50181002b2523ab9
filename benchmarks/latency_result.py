"""What one engine took, and the reasons to doubt it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekd.benchmarks.disturbance import find_disturbances
from edgekd.benchmarks.energy import NO_METER, EnergyResult
from edgekd.benchmarks.paced_result import PacedResult
from edgekd.benchmarks.quantiles import Samples, summarise_samples_ms
from edgekd.benchmarks.scenarios import BatchResult
from edgekd.benchmarks.stopping import StopRule, measure_instability
from edgekd.tables import NOT_MEASURED

MAX_SPREAD = 2.0
"""p99 / p50 above this is reported as unstable."""
MAX_DRIFT = 0.10
"""Relative difference of the medians of both halves above which the samples are reported as drifting."""

ScenarioResult = BatchResult | PacedResult


@dataclasses.dataclass(frozen=True)
class LatencyResult:
    """What one engine took; times in ns as measured, percentiles in ms.

    Attributes:
        load_ns: time to load the segmenter, process-warm.
        first_ns: first query after loading.
        samples_ns: (n,) int64, end to end queries in steady state, in order: the single stream.
        stage_samples_ns: (m,) int64 a stage, from a second loop over the engine's stages.
        num_warmup: queries between the first one and the samples.
        num_frames: different frames that were cycled through.
        frame_shapes: their shapes.
        interrupted: Ctrl-C ended the measurement early; what was measured is kept.
        conditions: load average, clock and temperature before and after, counters of what happened during.
        facts: what the engine says about itself.
        scenarios: the other scenarios, in the order measured.
        energy: per frame, or why it was not measured.
        rule: when the loops stopped.
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
    scenarios: tuple[ScenarioResult, ...] = ()
    energy: EnergyResult | str = NO_METER
    rule: StopRule = dataclasses.field(default_factory=StopRule)

    @property
    def percentiles_ms(self) -> dict[str, float | None]:
        """p50, p90, p99, p99.9 and max of the end to end samples in ms; None is "not measured"."""
        return summarise_samples_ms(self.samples_ns)

    @property
    def stage_percentiles_ms(self) -> dict[str, dict[str, float | None]]:
        """The same for each stage."""
        return {name: summarise_samples_ms(samples) for name, samples in self.stage_samples_ns.items()}

    @property
    def instability(self) -> float | None:
        """Half width of the median's 95 % interval as a part of the median, see ``measure_instability``."""
        return measure_instability(self.samples_ns.tolist())

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
            "stop_rule": self.rule.to_dict(),
            "instability": self.instability,
            "interrupted": self.interrupted,
            "warnings": list(self.warnings),
            "conditions": self.conditions,
            "facts": self.facts,
            "energy": NOT_MEASURED if isinstance(self.energy, str) else self.energy.to_dict(),
            "energy_note": self.energy if isinstance(self.energy, str) else "",
            "scenarios": [one.to_dict() for one in self.scenarios],
            "samples_ns": self.samples_ns.tolist(),
            "stage_samples_ns": {name: samples.tolist() for name, samples in self.stage_samples_ns.items()},
        }


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
    asked, reached = result.rule.stability, result.instability
    if asked is not None and (reached is None or reached > asked):
        shown = "unknown" if reached is None else f"± {reached:.1%}"
        yield (
            f"not settled: the median is known to {shown} after {result.rule.longest_seconds:g} s, "
            f"± {asked:.1%} was asked for"
        )
    yield from find_disturbances(result.conditions)
    for one in result.scenarios:
        yield from one.warnings
