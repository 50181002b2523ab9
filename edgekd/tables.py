"""A table of text, the one form of results for terminal, Markdown and report, and how values become text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Table:
    """A title, column names, and rows of that length with text ready to be shown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def format_markdown(table: Table) -> str:
    """Return a table as GitHub Markdown under a heading of its own."""
    lines = [_join_cells(table.columns), "|" + " --- |" * len(table.columns), *map(_join_cells, table.rows)]
    return f"## {table.title}\n\n" + "\n".join(lines) + "\n"


def format_score(value: float | None) -> str:
    """Return a score in 0..1 with four decimals."""
    return NOT_MEASURED if value is None or math.isnan(value) else f"{value:.4f}"


def format_agreement(value: float) -> str:
    """Return a part of pixels in percent, rounded down: all but one of them is never 100."""
    return f"{math.floor(1e6 * value + 1e-6) / 1e4:.4f}%"


def format_floor(value: float) -> str:
    """Return a part of pixels that must be reached, in percent with all its digits."""
    return f"{100 * value:.8g}%"


def format_ms(value: float | None) -> str:
    """Return milliseconds with three significant digits, and no fewer than the microsecond."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def format_count(value: int | None) -> str:
    """Return a count with thousands apart, above a million in M or G."""
    if value is None:
        return NOT_MEASURED
    for limit, unit in ((10**9, "G"), (10**6, "M")):
        if value >= limit:
            return f"{value / limit:.2f} {unit}"
    return f"{value:,}"


def format_bytes(value: int | None) -> str:
    """Return a file size in kB or MB (powers of ten)."""
    if value is None:
        return NOT_MEASURED
    return f"{value / 1e6:.2f} MB" if value >= 10**6 else f"{value / 1e3:.1f} kB"


def _join_cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
