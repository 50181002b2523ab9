"""Which measurements a benchmark makes, and the two that put several frames into one query.

The names are those of MLPerf Inference (Reddi et al. 2020, arXiv 1911.02549). *Single stream*: one frame a
query, the next when the last is done (``latency.py``). *Multi-stream*: a frame of each of N streams a query,
whose latency ends with the last mask. *Offline*: all frames are there, only the throughput counts. What
MLPerf calls *server* has random arrivals; frames of a scanner come in time with its frame rate, so the open
loop here is *paced* (``pacing.py``).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.loops import TimedSegmenter, run_loop, time_segment
from edgekd.benchmarks.pacing import PaceConfig
from edgekd.benchmarks.quantiles import Samples, summarise_samples_ms
from edgekd.benchmarks.stopping import StopRule
from edgekd.errors import UsageError, build_unknown_name_error

SCENARIOS = ("single-stream", "offline", "multi-stream", "paced")


@dataclasses.dataclass(frozen=True)
class ScenarioConfig:
    """The scenarios beside single stream, which is always measured.

    Attributes:
        names: of SCENARIOS.
        streams: frames a query in multi-stream.
        batch: frames a query in offline.
        paces: one paced measurement each.
    """

    names: tuple[str, ...] = ("single-stream",)
    streams: int = 4
    batch: int = 8
    paces: tuple[PaceConfig, ...] = (PaceConfig(),)

    def check(self) -> None:
        """Raise UsageError for an unknown name, or a number that cannot be meant or does nothing."""
        for name in self.names:
            if name not in SCENARIOS:
                raise build_unknown_name_error("scenario", name, SCENARIOS)
        if self.streams < 1 or self.batch < 1:
            raise UsageError(
                "a query without a frame",
                received=f"{self.streams} streams, batches of {self.batch}",
                expected="at least 1",
            )
        for pace in self.paces:
            pace.check()
        self._refuse_idle_numbers()

    def _refuse_idle_numbers(self) -> None:
        default = ScenarioConfig()
        # The seed is of more than the arrivals.
        paces = tuple(dataclasses.replace(pace, seed=PaceConfig.seed) for pace in self.paces)
        for scenario, option, changed in (
            ("multi-stream", "streams", self.streams != default.streams),
            ("offline", "batch", self.batch != default.batch),
            ("paced", "fps, jitter, queue, drop and deadline", paces != default.paces),
        ):
            if changed and scenario not in self.names:
                raise UsageError(
                    f"{option} would do nothing in these scenarios",
                    received=", ".join(self.names),
                    expected=scenario,
                    action=f"add --scenario {scenario}, or leave it out",
                )


@dataclasses.dataclass(frozen=True)
class BatchResult:
    """Queries of several frames.

    Attributes:
        scenario: ``offline`` or ``multi-stream``.
        frames_a_query: their number.
        samples_ns: (n,) int64, one a query.
        wall_ns: of all queries with what lies between them.
        interrupted: Ctrl-C ended it early.
    """

    scenario: str
    frames_a_query: int
    samples_ns: Samples
    wall_ns: int
    interrupted: bool

    @property
    def name(self) -> str:
        """What tables call it."""
        kind = "batches of" if self.scenario == "offline" else "streams:"
        return f"{self.scenario}, {kind} {self.frames_a_query}"

    @property
    def frames_per_second(self) -> float | None:
        """Throughput over the whole time, None where nothing was measured."""
        if len(self.samples_ns) == 0 or self.wall_ns <= 0:
            return None
        return len(self.samples_ns) * self.frames_a_query / (self.wall_ns / 1e9)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the numbers."""
        return (f"{self.name}: interrupted",) if self.interrupted else ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything, all samples included, as JSON values."""
        return {
            "scenario": self.scenario,
            "name": self.name,
            "frames_a_query": self.frames_a_query,
            "percentiles_ms": summarise_samples_ms(self.samples_ns),
            "frames_per_second": self.frames_per_second,
            "num_samples": len(self.samples_ns),
            "wall_ns": self.wall_ns,
            "interrupted": self.interrupted,
            "warnings": list(self.warnings),
            "samples_ns": self.samples_ns.tolist(),
        }


def measure_batches(
    segmenter: TimedSegmenter,
    frames: Sequence[npt.NDArray[Any]],
    *,
    scenario: str,
    frames_a_query: int,
    rule: StopRule,
    num_warmup: int,
) -> BatchResult:
    """Time queries of ``frames_a_query`` frames until the rule is met.

    Frames are taken in turn, so a query may hold frames of different sizes, as several probes would send.

    Args:
        segmenter: a loaded engine.
        frames: (H, W) or (H, W, 3) each.
        scenario: its name in the result.
        frames_a_query: N.
        rule: counts queries, not frames.
        num_warmup: queries run first and not kept.
    """
    number = len(frames)
    # As many queries as it takes until they begin with the first frame again.
    count = number // int(np.gcd(number, frames_a_query))
    queries = [
        [frames[(query * frames_a_query + place) % number] for place in range(frames_a_query)]
        for query in range(count)
    ]
    loop = run_loop(functools.partial(time_segment, segmenter), queries, rule, num_warmup)
    return BatchResult(scenario, frames_a_query, loop.samples_ns, loop.wall_ns, loop.interrupted)
