"""Results of several devices, releases or precisions side by side, each judged against the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.atomic import staged_folder, write_text_atomic
from edgekd.benchmarks.change_control import build_changes_table, find_device, list_changes
from edgekd.benchmarks.comparability import check_criteria, find_doubts, have_same_data, is_lost
from edgekd.benchmarks.quantities import Column, Quantity, Unit, read_column
from edgekd.benchmarks.regressions import Limits, Verdict, judge_quantity
from edgekd.benchmarks.report_cells import list_tradeoff
from edgekd.benchmarks.report_comparison import write_comparison_page
from edgekd.benchmarks.result_files import write_result
from edgekd.errors import InputError, UsageError
from edgekd.tables import Table, format_agreement, format_markdown, format_ms


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rows of several result files; a build that one of them lacks has None there.

    Attributes:
        reports: the files in the order given, the first is the baseline.
        rows: each with ``build``, ``quantity``, ``unit``, ``values`` (one a file), ``ratios`` to the first
            (None for differences, which have no ratio) and ``verdicts`` (None for the first).
        changes: what was measured and on what, see ``list_changes``.
        limits: what was accepted.
        warnings: reasons why the columns may not be comparable.
        points: Dice and median latency of each build in each report that has both, see ``list_tradeoff``.
    """

    reports: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    changes: tuple[dict[str, Any], ...]
    limits: Limits
    warnings: tuple[str, ...]
    points: tuple[dict[str, Any], ...] = ()

    @property
    def regressions(self) -> tuple[str, ...]:
        """Every value that is worse than the baseline's, in words."""
        return tuple(self._name_verdicts("worse"))

    @property
    def passed(self) -> bool:
        """Whether nothing that was judged is worse."""
        return not self.regressions

    @property
    def verdict(self) -> str:
        """The answer in a line."""
        if not self.judged:
            return f"side by side only: nothing could be judged against {self.reports[0]}"
        if self.passed:
            better = len(list(self._name_verdicts("better")))
            return f"nothing is worse than in {self.reports[0]}" + (f", {better} better" if better else "")
        return f"worse than in {self.reports[0]}: " + "; ".join(self.regressions)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "reports": list(self.reports),
            "passed": self.passed,
            "judged": self.judged,
            "verdict": self.verdict,
            "limits": dataclasses.asdict(self.limits),
            "rows": list(self.rows),
            "changes": list(self.changes),
            "points": list(self.points),
            "warnings": list(self.warnings),
        }

    def to_table(self) -> Table:
        """Return one line a build and quantity, with ratio to the first file and verdict behind the value."""
        rows = tuple(
            (f"{row['build']} {row['quantity']}", *(_format_cell(row, at) for at in range(len(self.reports))))
            for row in self.rows
        )
        title = "Side by side: ratio to the first in brackets, and what is worse or better"
        return Table(title, ("Quantity", *self.reports), rows)

    def list_tables(self) -> list[Table]:
        """Return the values, then the change-control table."""
        return [self.to_table(), build_changes_table(self.reports, self.changes)]

    @property
    def judged(self) -> int:
        """How many values were judged."""
        return sum(verdict != "not judged" for row in self.rows for verdict in row["verdicts"][1:])

    def _name_verdicts(self, wanted: Verdict) -> Iterator[str]:
        for row in self.rows:
            for report, verdict in zip(self.reports, row["verdicts"], strict=True):
                if verdict == wanted:
                    yield f"{row['build']} {row['quantity']} in {report}"


def compare_reports(
    paths: Sequence[Path], *, max_drop: float = Limits.max_drop, max_slowdown: float = Limits.max_slowdown
) -> Comparison:
    """Compare result files, or the folders that hold them, and judge each against the first.

    Args:
        paths: at least two; of a folder every result file in it is taken.
        max_drop, max_slowdown: see ``Limits``.

    Raises:
        UsageError: fewer than two, or limits that cannot be meant.
        InputError: a path holds no result, gates were judged by different criteria, or the files have no
            build in common to compare.
        IntegrityError: a file was written by a newer program.
    """
    limits = Limits(max_drop, max_slowdown)
    limits.check()
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no report {path}", expected="a result folder or JSON file")
    if len(paths) < 2:
        raise UsageError("nothing to compare", received=f"{len(paths)} report", expected="two or more")
    columns = [read_column(path) for path in paths]
    check_criteria(columns)
    keys = list(dict.fromkeys(key for column in columns for key in column.quantities))
    if not any(sum(key in column.quantities for column in columns) > 1 for key in keys):
        raise InputError(
            "the reports have nothing in common",
            received="; ".join(
                f"{column.name}: {', '.join(sorted(column.builds)) or 'nothing'}" for column in columns
            ),
            expected="the same build measured in two of them",
            action=_advise_folders(columns),
        )
    rows = [_build_row(key, columns, limits) for key in keys]
    return Comparison(
        tuple(column.name for column in columns),
        tuple(rows),
        tuple(list_changes(columns)),
        limits,
        tuple(dict.fromkeys(find_doubts(columns))),
        tuple(point for column in columns for point in _list_points(column)),
    )


def write_comparison(out: Path, comparison: Comparison) -> None:
    """Write ``comparison.json``, ``comparison.md`` and ``report.html`` into a new folder, all or nothing.

    Raises:
        UsageError: ``out`` exists or cannot be written.
        MachineError: the disk is full.
    """
    content = comparison.to_dict()
    with staged_folder(out) as folder:
        write_result(folder, "comparison", content)
        lines = [f"# {comparison.verdict[0].upper()}{comparison.verdict[1:]}\n"]
        lines += [f"- {text}" for text in comparison.warnings] + [""] * bool(comparison.warnings)
        lines += map(format_markdown, comparison.list_tables())
        write_text_atomic(folder / "comparison.md", "\n".join(lines))
        write_comparison_page(folder, content, comparison.list_tables())


def _advise_folders(columns: Sequence[Column]) -> str | None:
    """Return what to name instead where one file holds verdicts and another one latencies."""
    kinds = {frozenset(kind for kind, _ in column.contents) for column in columns}
    return None if len(kinds) == 1 else "name the result folders: parity and latency have files of their own"


def _build_row(key: tuple[str, str, Unit], columns: Sequence[Column], limits: Limits) -> dict[str, Any]:
    build, quantity, unit = key
    found = [column.quantities.get(key, Quantity(None)) for column in columns]
    values = [one.value for one in found]
    first = values[0]
    has_ratio = unit in ("ms", "1/s", "mJ") and first is not None and first > 0
    ratios = [value / first if has_ratio and first and value is not None else None for value in values]
    verdicts: list[Verdict | None] = [None]
    for column, one in zip(columns[1:], found[1:], strict=True):
        verdicts.append(_judge(key, columns[0], column, found[0], one, limits))
    return {
        "build": build,
        "quantity": quantity,
        "unit": unit,
        "values": values,
        "ratios": ratios,
        "verdicts": verdicts,
    }


def _judge(
    key: tuple[str, str, Unit],
    first: Column,
    column: Column,
    before: Quantity,
    after: Quantity,
    limits: Limits,
) -> Verdict:
    build, quantity, unit = key
    if unit == "verdict" and before.value and after.value is None and is_lost(build, first, column):
        # It passed, and now it does not even run.
        return "worse"
    if unit == "verdict" and after.value and first.gate != column.gate:
        return "not judged"
    if unit == "score" and not have_same_data(first, column):
        return "not judged"
    if unit in ("ms", "1/s", "mJ", "rate") and find_device(first) != find_device(column):
        return "not judged"
    if before.list_differences(after):
        return "not judged"
    quiet = build not in first.disturbed | column.disturbed
    return judge_quantity(quantity, unit, before, after, limits, quiet=quiet)


def _list_points(column: Column) -> list[dict[str, Any]]:
    contents = {kind: content for kind, content in column.contents}
    points = list_tradeoff(contents.get("parity"), contents.get("benchmark"))
    return [{**point, "series": column.name} for point in points]


def _format_cell(row: Mapping[str, Any], at: int) -> str:
    value, ratio, verdict = row["values"][at], row["ratios"][at], row["verdicts"][at]
    if value is None:
        return "did not run worse" if verdict == "worse" else "–"
    shown = _format_value(value, row["unit"]) + ("" if ratio is None else f" ({ratio:.2f})")
    return f"{shown} {verdict}" if verdict in ("worse", "better") else shown


def _format_value(value: float, unit: Unit) -> str:
    formats = {
        "ms": lambda: f"{format_ms(value)} ms",
        "Δ": lambda: f"{value:+.5f}",
        "score": lambda: f"{value:.4f}",
        "verdict": lambda: "yes" if value else "no",
        "rate": lambda: f"{value:.2%}",
        "1/s": lambda: f"{value:.1f}",
        "mJ": lambda: f"{value:.2f} mJ",
    }
    return formats.get(unit, lambda: format_agreement(value))()
