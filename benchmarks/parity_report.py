"""What the parity gate found, and the files it is written to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgekd.atomic import staged_folder, write_text_atomic
from edgekd.benchmarks import tables
from edgekd.benchmarks.golden import GoldenResult
from edgekd.benchmarks.overlays import Color, Overlay
from edgekd.benchmarks.parity import ParityResult
from edgekd.benchmarks.report import write_report
from edgekd.benchmarks.result_files import write_result
from edgekd.benchmarks.selection import Skipped
from edgekd.tables import format_markdown


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """Every build that was compared, and every one that was not.

    Attributes:
        bundle: path of the bundle.
        manifest_sha256: of its manifest.
        data: path of the data set, None for golden frames.
        reference: what the builds were compared with.
        results: one a build.
        skipped: builds that did not run, with the reason.
        environment: the machine.
        command: the line that repeats it.
        overlays: pictures for a page, not part of the JSON form.
        legend: what their colours mean.
    """

    bundle: str
    manifest_sha256: str
    data: str | None
    reference: str
    results: tuple[ParityResult | GoldenResult, ...]
    skipped: tuple[Skipped, ...]
    environment: dict[str, Any]
    command: str
    overlays: tuple[Overlay, ...]
    legend: tuple[tuple[str, Color], ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "bundle": self.bundle,
            "manifest_sha256": self.manifest_sha256,
            "data": self.data,
            "reference": self.reference,
            "passed": self.passed,
            "results": [result.to_dict() for result in self.results],
            "skipped": [dataclasses.asdict(one) for one in self.skipped],
            "environment": self.environment,
            "command": self.command,
        }


def write_parity(out: Path, report: ParityReport) -> None:
    """Write ``parity.json``, ``parity.md`` and ``report.html`` into a new folder, all or nothing.

    Args:
        out: the folder.
        report: what was compared.

    Raises:
        UsageError: ``out`` exists.
        MachineError: the disk is full.
    """
    content = report.to_dict()
    builders = (tables.build_difference_table, tables.build_worst_table, tables.build_skipped_table)
    shown = [tables.build_parity_table(content), *(build(content) for build in builders)]
    shown = [table for table in shown if table.rows]
    reasons = [f"- {one.candidate}: {text}" for one in report.results for text in one.reasons]
    with staged_folder(out) as folder:
        write_result(folder, "parity", content)
        lines = [f"# Parity of {report.bundle}: {'passed' if report.passed else 'not passed'}\n"]
        lines += [*reasons, *([""] if reasons else []), *map(format_markdown, shown)]
        write_text_atomic(folder / "parity.md", "\n".join(lines))
        write_report(
            folder,
            title=f"Parity of {Path(report.bundle).name}",
            parity=content,
            overlays=report.overlays,
            legend=report.legend,
            environment=report.environment,
            commands=[report.command],
        )
