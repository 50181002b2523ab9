"""Tables on a terminal of any width: no figure, name or command is ever cut in two.

Imported late: rich takes its time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from edgekd.tables import Table

# A number with or without its unit, or the sign for one that was not measured.
NUMBER = re.compile(r"^([-+]?[\d,.]+( ?(%|ms|kB|MB|M|G))?|–|not measured)$")
_FRAME = 3  # characters that rich puts around each column of a table, and one more around all


class _PipeConsole(Console):
    """A console that leaves a closed pipe to its caller; rich would end the program with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def build_console(width: int | None) -> Console:
    """Return a console on stdout, as wide as the terminal where ``width`` is None."""
    return _PipeConsole(highlight=False, width=width)


def print_table(console: Console, table: Table) -> None:
    """Print a table with its columns side by side, or row by row where these would not fit."""
    columns = list(zip(table.columns, *table.rows, strict=True))
    room = console.width - _FRAME * len(columns) - 1
    needed = [_measure_column(cells, console.width // 2) for cells in columns]
    if sum(needed) > room and len(columns) > 2 and table.rows:
        console.print(_build_stack(table))
    else:
        console.print(_build_table(table, _share_out(room, needed, [max(map(cell_len, c)) for c in columns])))


def _measure_column(cells: Sequence[str], most: int) -> int:
    """Return the width that a column needs, of what stands between spaces at most ``most`` characters."""
    pieces = [piece for cell in cells for piece in ([cell] if NUMBER.match(cell) else cell.split())]
    return max((min(most, cell_len(piece)) for piece in pieces), default=1)


def _share_out(room: int, needed: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return the columns' widths: what they need, and of what is left equal parts, the modest ones first."""
    wishes = [most - least for least, most in zip(needed, wanted, strict=True)]
    widths, left = list(needed), max(0, room - sum(needed))
    modest = sorted(range(len(wishes)), key=wishes.__getitem__)
    for position, index in enumerate(modest):
        given = max(0, min(wishes[index], left // (len(modest) - position)))
        widths[index] += given
        left -= given
    return widths


def _build_table(table: Table, widths: list[int]) -> RenderableType:
    # Text, since rich would read square brackets in a str as markup.
    built = RichTable(title=_build_title(table), title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(table.columns):
        is_numeric = all(NUMBER.match(row[index]) for row in table.rows)
        justify = "right" if is_numeric else "left"
        built.add_column(Text(name), justify=justify, overflow="fold", width=widths[index])
    for row in table.rows:
        built.add_row(*map(Text, row))
    return built


def _build_stack(table: Table) -> RenderableType:
    """Return each row below its first cell, one line a column that says anything."""
    built = RichTable(title=_build_title(table), title_justify="left", box=None, show_header=False)
    built.add_column(no_wrap=True)
    built.add_column(overflow="fold")
    for first, *others in table.rows:
        built.add_row(Text(""), Text(""))
        built.add_row(Text(table.columns[0], style="bold"), Text(first, style="bold"))
        for name, cell in zip(table.columns[1:], others, strict=True):
            if cell:
                built.add_row(Text(f"  {name}"), Text(cell))
    return built


def _build_title(table: Table) -> Text:
    return Text(table.title, style="bold")
