"""Reading a data set from a CSV table: columns image and mask and, optionally, group and split."""

from __future__ import annotations

import csv
from pathlib import Path

from edgekd.data.cases import Case, Dataset, Problem, Scan
from edgekd.errors import InputError

MANIFEST_NAME = "manifest.csv"
REQUIRED_COLUMNS = ("image", "mask")
OPTIONAL_COLUMNS = ("group", "split")


def scan_manifest(path: Path) -> Scan:
    """Return the data set that the table at ``path`` lists; its paths are relative to the table.

    Columns of other names are left alone. An empty group or split cell is an absent one.

    Raises:
        InputError: the file is no CSV table in UTF-8, lacks a column, or has no row.
    """
    rows = _read_rows(path)
    cases: list[Case] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        outcome = _read_row(path.parent, row, f"row {number}", seen)
        if isinstance(outcome, Case):
            cases.append(outcome)
        else:
            problems.append(outcome)
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    unknown = () if "group" in rows[0] else tuple(name for name in rows[0] if name and name not in known)
    return Scan(Dataset(path.parent, "csv", tuple(cases)), tuple(problems), (), unknown)


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True, restval="")
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"{path} cannot be read as a CSV table", received=error) from error
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"the table {path} lacks the column{'s' * (len(missing) > 1)} {' and '.join(missing)}",
            received="the columns " + (", ".join(columns) or "(none)"),
            expected=", ".join(REQUIRED_COLUMNS) + " and optionally " + ", ".join(OPTIONAL_COLUMNS),
        )
    if not rows:
        raise InputError(f"the table {path} has no row", expected="one row for each image")
    return rows


def _read_row(root: Path, row: dict[str, str], where: str, seen: set[str]) -> Case | Problem:
    if None in row:
        return Problem(
            "broken row", where, "it has more cells than the header; quote cells that hold a comma"
        )
    cells = {name: value.strip() for name, value in row.items()}
    name = Path(cells["image"]).as_posix() if cells["image"] else ""
    if not name:
        return Problem("mask without image", where, "the cell image is empty")
    if not cells["mask"]:
        return Problem("image without mask", name, f"the cell mask of {where} is empty")
    if name in seen:
        return Problem("image twice", name, f"{where} lists it again; merge its masks into one file")
    seen.add(name)
    for column in REQUIRED_COLUMNS:
        if not (root / cells[column]).is_file():
            return Problem(f"missing {column}", name, f"{where} names {cells[column]}, which is no file")
    return Case(
        name,
        root / cells["image"],
        (root / cells["mask"],),
        cells.get("group") or None,
        cells.get("split") or None,
    )
