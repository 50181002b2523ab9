"""Latency of a bundle's builds on real frames, written down with everything needed to doubt it."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgekd.atomic import check_output_is_new, staged_folder, write_text_atomic
from edgekd.benchmarks import tables
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.latency import LatencyResult, measure_latency
from edgekd.benchmarks.report import write_report
from edgekd.benchmarks.result_files import write_result
from edgekd.benchmarks.selection import Choice, Skipped, choose_builds, format_command
from edgekd.bundle import Bundle, read_golden
from edgekd.data import find_cases, read_frame
from edgekd.tables import format_markdown

MAX_DATA_FRAMES = 32
"""Frames of a data set that are cycled through: enough sizes and contents, still in memory."""


@dataclasses.dataclass(frozen=True)
class BenchmarkReport:
    """Latency of every build that ran, and every build that did not.

    Attributes:
        bundle: path of the bundle.
        manifest_sha256: of its manifest.
        frames: what was segmented, in words.
        results: name of the build and what it took, in the order measured.
        skipped: builds that did not run, with the reason.
        environment: the machine.
        command: the line that repeats it.
        interrupted: Ctrl-C ended it; what was measured until then is here.
    """

    bundle: str
    manifest_sha256: str
    frames: str
    results: tuple[tuple[str, LatencyResult], ...]
    skipped: tuple[Skipped, ...]
    environment: dict[str, Any]
    command: str
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, all samples included."""
        return {
            "bundle": self.bundle,
            "manifest_sha256": self.manifest_sha256,
            "frames": self.frames,
            "interrupted": self.interrupted,
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
    min_queries: int = 200,
    min_seconds: float = 3.0,
    num_warmup: int = 20,
    out: Path | None = None,
    cache: Path | None = None,
    quiet: bool = False,
) -> BenchmarkReport:
    """Measure builds of a bundle one after another.

    Ctrl-C ends the measurement and keeps what is there: the report says ``interrupted``.

    Args:
        bundle: an opened bundle or its path.
        data: take the first 32 frames of a data set, at their own size; None takes the golden frames.
        targets: builds to measure, also ``null`` and ``scripted``; empty takes every build that can run here.
        precision, device: narrow the builds; None takes all, each on its own device.
        threads: processor threads of the engines; None leaves it to them.
        min_queries, min_seconds, num_warmup: see ``measure_latency``.
        out: new folder for ``benchmark.json``, ``benchmark.md`` and ``report.html``; None writes nothing.
        cache: where an engine may keep compiled code.
        quiet: no notice before each build.

    Raises:
        UsageError: ``out`` exists, or minima that cannot be meant.
        InputError: no data, or a frame the bundle cannot take.
        MachineError: a named target cannot run here, or no build can.
        KeyboardInterrupt: Ctrl-C came before any build was measured.
    """
    if out is not None:
        check_output_is_new(out)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    options = {"data": data, "target": targets, "precision": precision, "device": device, "threads": threads}
    options |= {"min-queries": min_queries, "min-seconds": min_seconds}
    choices, skipped = choose_builds(opened, targets or (), precision, device, allow_probes=True)
    frames, description = _gather_frames(opened, data)
    results: list[tuple[str, LatencyResult]] = []
    interrupted = False
    for choice in choices:
        if not quiet:
            _announce(choice, min_queries, min_seconds)
        try:
            result = measure_latency(
                functools.partial(choice.load, opened, cache, threads),
                frames,
                min_queries=min_queries,
                min_seconds=min_seconds,
                num_warmup=num_warmup,
            )
        except KeyboardInterrupt:
            if not results:
                raise
            interrupted = True
            break
        results.append((choice.name, result))
        if result.interrupted:
            interrupted = True
            break
    report = BenchmarkReport(
        bundle=str(opened.path),
        manifest_sha256=opened.manifest_sha256,
        frames=description,
        results=tuple(results),
        skipped=(*skipped, *_list_unreached(choices[len(results) :])),
        environment=describe_environment(),
        command=format_command("benchmark", opened.path, options),
        interrupted=interrupted,
    )
    if out is not None:
        write_benchmark(out, report)
    return report


def write_benchmark(out: Path, report: BenchmarkReport) -> None:
    """Write ``benchmark.json``, ``benchmark.md`` and ``report.html`` into a new folder, all or nothing.

    Raises:
        UsageError: ``out`` exists.
        MachineError: the disk is full.
    """
    content = report.to_dict()
    stages = tables.build_stage_table(content)
    shown = [
        tables.build_latency_table(content),
        *([stages] if stages.rows else []),
        *([tables.build_skipped_table(content)] if report.skipped else []),
        tables.build_environment_table(report.environment),
    ]
    warnings = [f"- {name}: {text}" for name, result in report.results for text in result.warnings]
    with staged_folder(out) as folder:
        write_result(folder, "benchmark", content)
        lines = [
            f"# Latency of {report.bundle}\n",
            f"Frames: {report.frames}.\n",
            *map(format_markdown, shown),
        ]
        if warnings:
            lines += ["## Reasons to doubt the numbers\n", *warnings, ""]
        write_text_atomic(folder / "benchmark.md", "\n".join(lines))
        write_report(
            folder,
            title=f"Latency of {Path(report.bundle).name}",
            latency=content,
            environment=report.environment,
            commands=[report.command],
        )


def _gather_frames(bundle: Bundle, data: Path | None) -> tuple[list[npt.NDArray[Any]], str]:
    if data is None:
        frames = list(read_golden(bundle).frames)
        return frames, f"{len(frames)} golden frames of the bundle"
    cases = find_cases(data).cases[:MAX_DATA_FRAMES]
    frames = [read_frame(case.image, bundle.manifest.preprocess) for case in cases]
    return frames, f"the first {len(frames)} frames of {data}"


def _list_unreached(choices: Sequence[Choice]) -> list[Skipped]:
    return [Skipped(choice.name, "interrupted before it was measured") for choice in choices]


def _announce(choice: Choice, min_queries: int, min_seconds: float) -> None:
    sys.stderr.write(f"measuring {choice.name}: twice at least {min_queries} queries and {min_seconds:g} s\n")
