"""What the parity gate found, and the files it is written to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgekd.atomic import staged_folder, write_bytes_atomic, write_text_atomic
from edgekd.benchmarks import tables
from edgekd.benchmarks.criteria import GateConfig
from edgekd.benchmarks.golden import GoldenResult
from edgekd.benchmarks.junit import build_junit
from edgekd.benchmarks.overlays import Color, Overlay
from edgekd.benchmarks.parity import ParityResult
from edgekd.benchmarks.report import write_report
from edgekd.benchmarks.report_verdict import describe_doubts
from edgekd.benchmarks.result_files import write_result
from edgekd.benchmarks.selection import Skipped
from edgekd.tables import format_markdown


@dataclasses.dataclass(frozen=True)
class BuildFacts:
    """A build that ran, and what ran it.

    Attributes:
        name: of the build, with the device where another one was asked for.
        target, precision, device: as it was loaded.
        build_sha256: of its record, which names the sha256 of every file of the build.
        engine: what the engine says of itself: version, device, precision really used.
    """

    name: str
    target: str
    precision: str
    device: str | None
    build_sha256: str
    engine: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """Every build that was compared, and every one that was not.

    Attributes:
        bundle: path of the bundle.
        manifest_sha256: of its manifest.
        data: path of the data set, None for golden frames.
        data_sha256: of the cases' names and files, None for golden frames.
        reference: what the builds were compared with.
        reference_sha256: of its masks, truths, names and groups; None for golden frames.
        cases_learned_from: how many of the cases the student learned from; None for golden frames, or where
            the bundle does not say.
        criteria: what was declared before.
        results: one a build.
        skipped: builds that did not run, with the reason.
        builds: one a result, in the same order.
        environment: the machine.
        command: the line that repeats it.
        overlays: pictures for a page, not part of the JSON form.
        legend: what their colours mean.
    """

    bundle: str
    manifest_sha256: str
    data: str | None
    data_sha256: str | None
    reference: str
    reference_sha256: str | None
    cases_learned_from: int | None
    criteria: GateConfig
    results: tuple[ParityResult | GoldenResult, ...]
    skipped: tuple[Skipped, ...]
    builds: tuple[BuildFacts, ...]
    environment: dict[str, Any]
    command: str
    overlays: tuple[Overlay, ...]
    legend: tuple[tuple[str, Color], ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    def list_cells(self) -> list[tuple[str, str]]:
        """Return each build of the bundle with what can be said of it; only what ran here has a verdict.

        Returns:
            ``passed`` (on data), ``consistent`` (with golden frames), ``failed``, ``inconsistent``,
            ``inconclusive``, ``skipped: <reason>`` or ``built, not run: <reason>``.
        """
        words = {"non-inferior": "passed", "not shown to be non-inferior": "failed"}
        ran = [(one.candidate, words.get(one.conclusion, one.conclusion)) for one in self.results]
        return [*ran, *((one.name, f"{one.status}: {one.reason}") for one in self.skipped)]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        content = {
            "bundle": self.bundle,
            "manifest_sha256": self.manifest_sha256,
            "data": self.data,
            "data_sha256": self.data_sha256,
            "reference": self.reference,
            "reference_sha256": self.reference_sha256,
            "cases_learned_from": self.cases_learned_from,
            "criteria": self.criteria.model_dump(mode="json"),
            "criteria_sha256": self.criteria.compute_hash(),
            "passed": self.passed,
            "results": [result.to_dict() for result in self.results],
            "skipped": [dataclasses.asdict(one) for one in self.skipped],
            "builds": [dataclasses.asdict(one) for one in self.builds],
            "cells": [{"name": name, "status": status} for name, status in self.list_cells()],
            "environment": self.environment,
            "command": self.command,
        }
        return {**content, "doubts": describe_doubts(content)}


def write_parity(out: Path, report: ParityReport) -> None:
    """Write what ``write_parity_files`` writes, and ``report.html``, into a new folder, all or nothing.

    Args:
        out: the folder.
        report: what was compared.

    Raises:
        UsageError: ``out`` exists.
        MachineError: the disk is full.
    """
    with staged_folder(out) as folder:
        write_parity_files(folder, report)
        write_report(
            folder,
            title=f"Parity of {Path(report.bundle).name}",
            parity=report.to_dict(),
            overlays=report.overlays,
            legend=report.legend,
            environment=report.environment,
            commands=[report.command],
        )


def write_parity_files(folder: Path, report: ParityReport) -> None:
    """Write ``parity.json``, ``parity.md`` (for a job page), ``parity.xml`` (JUnit) and ``pictures/*.png``.

    Raises:
        MachineError: the disk is full.
    """
    content = report.to_dict()
    write_result(folder, "parity", content)
    write_text_atomic(folder / "parity.md", format_summary(report))
    write_text_atomic(folder / "parity.xml", build_junit(content))
    for index, overlay in enumerate(report.overlays):
        write_bytes_atomic(folder / "pictures" / f"{index:02}.png", overlay.png)


def format_summary(report: ParityReport) -> str:
    """Return the report as Markdown, the verdict first, as a CI job page shows it."""
    content = report.to_dict()
    builders = (
        tables.build_cell_table,
        tables.build_parity_table,
        tables.build_difference_table,
        tables.build_class_table,
        tables.build_change_table,
        tables.build_worst_table,
    )
    shown = [table for table in (build(content) for build in builders) if table.rows]
    reasons = [f"- {one.candidate}: {text}" for one in report.results for text in one.reasons]
    reasons += [f"- {text}" for text in content["doubts"]]
    margins = ", ".join(f"{name} {margin:g}" for name, margin in report.criteria.margins.model_dump().items())
    if report.data is None:
        claim = "Golden frames show agreement alone; non-inferiority needs a data set with its reference."
    else:
        claim = f"Declared before: margins {margins}; criteria {report.criteria.compute_hash()[:12]}…"
    lines = [
        f"# Parity of {report.bundle}: {'passed' if report.passed else 'not passed'}\n",
        *reasons,
        *([""] if reasons else []),
        f"{claim}\n",
        *map(format_markdown, shown),
        *(f"![{one.caption}](pictures/{index:02}.png)\n" for index, one in enumerate(report.overlays)),
        f"To repeat it: `{report.command}`\n",
    ]
    return "\n".join(lines)
