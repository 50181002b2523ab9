"""Latency of a bundle's builds on real frames, with everything needed to doubt it."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.frame_sizes import leave_misfits
from edgekd.benchmarks.latency import measure_latency
from edgekd.benchmarks.latency_result import LatencyResult
from edgekd.benchmarks.power import find_meter
from edgekd.benchmarks.scenarios import ScenarioConfig
from edgekd.benchmarks.selection import (
    Choice,
    Skipped,
    choose_builds,
    format_command,
    format_frame_size,
    list_one_size,
)
from edgekd.benchmarks.stopping import StopRule
from edgekd.bundle import GOLDEN_FILE, Build, Bundle, read_judged_frames
from edgekd.data import find_cases, hash_cases, read_frame
from edgekd.errors import EdgeKDError, UsageError
from edgekd.runtime import ENGINES

MAX_DATA_FRAMES = 32
"""Frames of a data set that are cycled through: enough sizes and contents, still in memory."""


@dataclasses.dataclass(frozen=True)
class BenchmarkReport:
    """Latency of every build that ran, and every build that did not.

    Attributes:
        bundle: path of the bundle.
        manifest_sha256: of its manifest.
        frames: what was segmented, in words.
        frames_sha256: of the files they came from, or of the golden frames' file.
        results: name of the build and what it took, in the order measured.
        skipped: builds that did not run, with the reason.
        environment: the machine.
        command: the line that repeats it.
        interrupted: Ctrl-C ended it; what was measured until then is here.
        fault: the error that ended it; what was measured until then is here.
    """

    bundle: str
    manifest_sha256: str
    frames: str
    frames_sha256: str
    results: tuple[tuple[str, LatencyResult], ...]
    skipped: tuple[Skipped, ...]
    environment: dict[str, Any]
    command: str
    interrupted: bool
    fault: EdgeKDError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, all samples included."""
        return {
            "bundle": self.bundle,
            "manifest_sha256": self.manifest_sha256,
            "frames": self.frames,
            "frames_sha256": self.frames_sha256,
            "interrupted": self.interrupted,
            "fault": None if self.fault is None else str(self.fault),
            "results": [{"name": name, **result.to_dict()} for name, result in self.results],
            "skipped": [dataclasses.asdict(one) for one in self.skipped],
            "environment": self.environment,
            "command": self.command,
        }


def run_benchmark(
    bundle: Bundle | Path,
    *,
    data: Path | None = None,
    targets: Sequence[str] | None = None,
    precision: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    rule: StopRule | None = None,
    num_warmup: int = 20,
    scenarios: ScenarioConfig | None = None,
    cache: Path | None = None,
    quiet: bool = False,
) -> BenchmarkReport:
    """Measure builds of a bundle one after another.

    Ctrl-C, or an engine that fails, ends the measurement and keeps what is there; see the report's
    ``interrupted`` and ``fault``.

    Args:
        bundle: an opened bundle or its path.
        data: take the first 32 frames of a data set, at their own size; None takes the golden frames.
        targets: builds to measure, also ``null`` and ``scripted``; empty takes every build that can run here.
        precision, device: narrow the builds; None takes all, each on its own device.
        threads: processor threads of the engines that run on the processor; None leaves it to them.
        rule, num_warmup, scenarios: see ``measure_latency``.
        cache: where an engine may keep compiled code.
        quiet: no notice before each build.

    Raises:
        UsageError: minima or scenarios that cannot be meant.
        InputError: no data, or a frame the bundle cannot take.
        MachineError: a named target cannot run here, or no build can.
        EdgeKDError: the first build failed.
        KeyboardInterrupt: Ctrl-C came before any build was measured.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    limits, chosen = rule or StopRule(), scenarios or ScenarioConfig()
    limits.check()
    chosen.check()
    choices, skipped = choose_builds(opened, targets or (), precision, device, allow_probes=True)
    if threads is not None and not any(choice.is_on_processor for choice in choices):
        raise UsageError(
            "threads are those of engines on the processor",
            received=f"threads={threads}, and no build that runs there",
            action="leave them out",
        )
    frames, description, digest = _gather_frames(opened, data, choices)
    if data is not None:
        shapes = (frame.shape for frame in frames)
        choices, misfits = leave_misfits(opened, choices, shapes, named=bool(targets))
        skipped += misfits
    series = _Series(opened, frames, limits, num_warmup, chosen, cache, threads, quiet)
    series.measure(choices)
    return BenchmarkReport(
        bundle=str(opened.path),
        manifest_sha256=opened.manifest_sha256,
        frames=description,
        frames_sha256=digest,
        results=tuple(series.results),
        skipped=(*skipped, *series.list_unreached(choices)),
        environment=describe_environment(),
        command=_format_command(
            opened.path, data, targets, precision, device, threads, cache, limits, chosen
        ),
        interrupted=series.interrupted,
        fault=series.fault,
    )


@dataclasses.dataclass
class _Series:
    """Builds measured in turn, until all are done, Ctrl-C comes or one fails."""

    bundle: Bundle
    frames: Sequence[npt.NDArray[Any]]
    rule: StopRule
    num_warmup: int
    scenarios: ScenarioConfig
    cache: Path | None
    threads: int | None
    quiet: bool
    results: list[tuple[str, LatencyResult]] = dataclasses.field(default_factory=list)
    interrupted: bool = False
    fault: EdgeKDError | None = None

    def measure(self, choices: Sequence[Choice]) -> None:
        try:
            for choice in choices:
                self._announce(choice)
                result = self._measure_one(choice)
                self.results.append((choice.name, result))
                if result.interrupted:
                    self.interrupted = True
                    break
        except KeyboardInterrupt:
            if not self.results:
                raise
            self.interrupted = True
        except EdgeKDError as error:
            if not self.results:
                raise
            self.fault = error

    def list_unreached(self, choices: Sequence[Choice]) -> list[Skipped]:
        """Return the builds that were not measured: the one that failed, and those behind it."""
        missing = [choice.name for choice in choices[len(self.results) :]]
        if self.fault is None:
            return [Skipped(name, "interrupted before it was measured") for name in missing]
        first, *others = missing
        return [
            Skipped(first, f"failed: {self.fault}", is_obstacle=True),
            *(Skipped(name, f"not reached after {first} failed") for name in others),
        ]

    def _measure_one(self, choice: Choice) -> LatencyResult:
        device = choice.device or ENGINES[choice.target].device
        return measure_latency(
            functools.partial(choice.load, self.bundle, self.cache, self.threads),
            self.frames,
            min_queries=self.rule.min_queries,
            min_seconds=self.rule.min_seconds,
            stability=self.rule.stability,
            max_seconds=self.rule.max_seconds,
            num_warmup=self.num_warmup,
            scenarios=self.scenarios,
            find_meter=functools.partial(find_meter, target=choice.target, device=device),
        )

    def _announce(self, choice: Choice) -> None:
        if not self.quiet:
            names = ", ".join(["stages", *(name for name in self.scenarios.names if name != "single-stream")])
            rule = self.rule
            sys.stderr.write(
                f"measuring {choice.name}: single stream, {names}; each at least {rule.min_seconds:g} s\n"
            )


def _gather_frames(
    bundle: Bundle, data: Path | None, choices: Sequence[Choice]
) -> tuple[list[npt.NDArray[Any]], str, str]:
    if data is None:
        holder = _find_one_size(bundle, choices)
        if holder is not None and GOLDEN_FILE not in holder.record.files:
            # The bundle's own frames have that size.
            holder = None
        frames = list(read_judged_frames(bundle, holder).frames)
        files = bundle.manifest.files if holder is None else holder.record.files
        size = "" if holder is None else f" at {format_frame_size(holder)}"
        return frames, f"{len(frames)} golden frames of the bundle{size}", files[GOLDEN_FILE].sha256
    cases = find_cases(data).cases[:MAX_DATA_FRAMES]
    frames = [read_frame(case.image, bundle.manifest.preprocess) for case in cases]
    return frames, f"the first {len(frames)} frames of {data}", hash_cases(cases)


def _find_one_size(bundle: Bundle, choices: Sequence[Choice]) -> Build | None:
    """Return the build whose one size of frame all take, or None where any size will do."""
    own = list_one_size(bundle, choices)
    if len({format_frame_size(build) for build in own.values()}) > 1:
        raise UsageError(
            "these builds have no size of frame in common",
            received=", ".join(f"{name}: {format_frame_size(build)}" for name, build in own.items()),
            action="name one of them by --target, --precision and --device",
        )
    return next(iter(own.values()), None)


def _format_command(
    bundle: Path,
    data: Path | None,
    targets: Sequence[str] | None,
    precision: str | None,
    device: str | None,
    threads: int | None,
    cache: Path | None,
    rule: StopRule,
    scenarios: ScenarioConfig,
) -> str:
    options: dict[str, object] = {"data": data, "target": targets, "precision": precision, "device": device}
    options |= {"threads": threads, "cache": cache}
    options |= {"min-queries": rule.min_queries, "min-seconds": rule.min_seconds}
    if rule.stability is not None:
        options |= {"stability": rule.stability, "max-seconds": rule.longest_seconds}
    options["scenario"] = list(scenarios.names)
    if "offline" in scenarios.names:
        options["batch"] = scenarios.batch
    if "multi-stream" in scenarios.names:
        options["streams"] = scenarios.streams
    if "paced" in scenarios.names:
        pace = scenarios.paces[0]
        options |= {"fps": [f"{one.fps:g}" for one in scenarios.paces], "jitter": pace.jitter}
        options |= {"queue": pace.queue, "drop": pace.drop, "deadline-ms": pace.deadline_ms}
    return format_command("benchmark", bundle, options)
