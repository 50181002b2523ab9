"""Tables on terminals of several widths: whatever is one word stays in one line."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgekd.tables import Table
from edgekd.terminal_tables import print_table

BUILDS = Table(
    "Builds [of all]",
    ("Build", "p50", "p99", "Verdict", "In the bundle", "Detail"),
    (
        (
            "onnx-fp32-cpu",
            "1.234 ms",
            "1,234.5 ms",
            "non-inferior",
            "builds/onnx-fp32-cpu",
            "whole and sound",
        ),
        ("tensorrt-rtx-fp16-gpu", "–", "not measured", "built, not run", "builds/tensorrt-rtx-fp16-gpu", ""),
    ),
)
FACTS = Table("Facts", ("fact", "value"), (("sha256", 64 * "a"), ("splits", "by hash of the group " * 6)))


def print_lines(table: Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(console, table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [50, 72, 80, 90, 100, 110, 120, 200])
def test_no_word_and_no_number_is_cut(width: int) -> None:
    lines = print_lines(BUILDS, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for cell in (cell for row in BUILDS.rows for cell in row):
        for piece in [cell] if cell.endswith("ms") else cell.split():
            assert piece in text
    assert "[of all]" in text


def test_columns_stand_side_by_side_where_they_fit_and_else_in_rows_of_their_own() -> None:
    wide, narrow = print_lines(BUILDS, 140), print_lines(BUILDS, 80)
    assert any("onnx-fp32-cpu" in line and "non-inferior" in line for line in wide)
    assert not any("onnx-fp32-cpu" in line and "non-inferior" in line for line in narrow)
    assert any(line.split() == ["Verdict", "non-inferior"] for line in narrow)
    # An empty cell says nothing.
    assert sum("Detail" in line for line in narrow) == 1


def test_a_table_without_rows_keeps_its_head() -> None:
    lines = print_lines(Table("None", BUILDS.columns, ()), 44)
    assert any("Buil" in line for line in lines)


def test_what_is_wider_than_half_the_terminal_is_folded() -> None:
    lines = print_lines(FACTS, 40)
    assert max(map(len, lines)) <= 40
    assert "".join(line.replace("sha256", "").strip() for line in lines).count("a" * 20) >= 3


def test_short_cells_stay_in_one_line_beside_long_ones() -> None:
    rows = (("fault", "undeclared classes", "what is to be known about it, at length " * 9),)
    lines = print_lines(Table("Findings", ("Severity", "Kind", "Detail"), rows), 90)
    assert any("fault      undeclared classes   what is" in line for line in lines)
