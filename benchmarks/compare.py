"""Results of several devices, releases or precisions side by side, each in relation to the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekd.benchmarks.result_files import KINDS, Kind, read_result
from edgekd.benchmarks.tables import METRIC_NAMES
from edgekd.errors import InputError, UsageError
from edgekd.tables import Table, format_ms


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rows of several result files; a build that one of them lacks has None there.

    Attributes:
        reports: the files in the order given, the first is the baseline.
        rows: each with ``build``, ``quantity``, ``unit``, ``values`` (one a file) and ``ratios`` to the first
            (None for differences, which have no ratio).
        warnings: reasons why the columns may not be comparable.
    """

    reports: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {"reports": list(self.reports), "rows": list(self.rows), "warnings": list(self.warnings)}

    def to_table(self) -> Table:
        """Return one line a build and quantity, with the ratio to the first file in brackets."""
        rows = tuple(
            (
                f"{row['build']} {row['quantity']}",
                *map(_format_cell, row["values"], row["ratios"], [row] * len(self.reports)),
            )
            for row in self.rows
        )
        return Table("Side by side, ratio to the first in brackets", ("Quantity", *self.reports), rows)


def compare_reports(paths: Sequence[Path]) -> Comparison:
    """Compare result files, or the folders that hold them.

    Args:
        paths: at least two; of a folder every result file in it is taken.

    Raises:
        UsageError: fewer than two.
        InputError: a path holds no result, or the files have no build in common to compare.
        IntegrityError: a file was written by a newer program.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no report {path}", expected="a result folder or JSON file")
    if len(paths) < 2:
        raise UsageError("nothing to compare", received=f"{len(paths)} report", expected="two or more")
    columns = [_read_column(path) for path in paths]
    keys = list(dict.fromkeys(key for column in columns for key in column.quantities))
    if not any(sum(key in column.quantities for column in columns) > 1 for key in keys):
        raise InputError(
            "the reports have nothing in common",
            received="; ".join(
                f"{column.name}: {', '.join(sorted(column.builds)) or 'nothing'}" for column in columns
            ),
            expected="the same build measured in two of them",
        )
    rows = [_build_row(key, columns) for key in keys]
    return Comparison(tuple(column.name for column in columns), tuple(rows), tuple(_find_doubts(columns)))


@dataclasses.dataclass(frozen=True)
class _Column:
    name: str
    manifests: frozenset[str]
    frames: frozenset[str]
    quantities: dict[tuple[str, str, str], float | None]

    @property
    def builds(self) -> set[str]:
        return {build for build, _, _ in self.quantities}


def _read_column(path: Path) -> _Column:
    files = (
        [path / f"{kind}.json" for kind in KINDS if (path / f"{kind}.json").is_file()]
        if path.is_dir()
        else [path]
    )
    if not files:
        raise InputError(f"{path} holds no result", expected="parity.json or benchmark.json in it")
    results = [read_result(file) for file in files]
    quantities: dict[tuple[str, str, str], float | None] = {}
    for kind, content in results:
        quantities.update(_list_quantities(kind, content, files))
    return _Column(
        name=str(path),
        manifests=frozenset(content["manifest_sha256"] for _, content in results),
        frames=frozenset(
            str(content[key]) for _, content in results for key in ("frames", "data") if key in content
        ),
        quantities=quantities,
    )


def _list_quantities(
    kind: Kind, content: dict[str, Any], files: Sequence[Path]
) -> Iterator[tuple[tuple[str, str, str], float | None]]:
    try:
        for result in content["results"]:
            if kind == "benchmark":
                for name, value in result["percentiles_ms"].items():
                    yield (result["name"], name, "ms"), value
            else:
                yield (result["candidate"], "pixels equal", ""), result["pixel_agreement"]
                for name, difference in result.get("differences", {}).items():
                    yield (result["candidate"], f"Δ{METRIC_NAMES[name]}", "Δ"), difference["delta"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"a result in {', '.join(map(str, files))} is damaged",
            received=f"{type(error).__name__}: {error}",
        ) from error


def _build_row(key: tuple[str, str, str], columns: Sequence[_Column]) -> dict[str, Any]:
    build, quantity, unit = key
    values = [column.quantities.get(key) for column in columns]
    first = values[0]
    has_ratio = unit == "ms" and first is not None and first > 0
    ratios = [value / first if has_ratio and first and value is not None else None for value in values]
    return {"build": build, "quantity": quantity, "unit": unit, "values": values, "ratios": ratios}


def _find_doubts(columns: Sequence[_Column]) -> Iterator[str]:
    if len(frozenset().union(*(column.manifests for column in columns))) > 1:
        yield "the reports are of different bundles: another student was measured, not only another machine"
    if len({column.frames for column in columns}) > 1:
        yield "the reports were made on different frames"


def _format_cell(value: float | None, ratio: float | None, row: dict[str, Any]) -> str:
    if value is None:
        return "–"
    if row["unit"] == "ms":
        return f"{format_ms(value)} ms" + ("" if ratio is None else f" ({ratio:.2f})")
    return f"{value:+.5f}" if row["unit"] == "Δ" else f"{value:.4%}"
