"""What the cells of an experiment wrote, put together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.benchmarks.suites.distillation.gains import Pair, build_pair
from edgekd.benchmarks.suites.distillation.plan import Cell, Plan, list_cells, list_choices
from edgekd.errors import InputError

_REPAIR = "run it again without its file, or keep each plan's cells in a folder of its own"


@dataclass(frozen=True)
class Results:
    """The JSON files of an experiment, as far as they are there.

    Attributes:
        plan: the experiment.
        cells: cell → content of its file.
        missing: names of the cells without a file.
    """

    plan: Plan
    cells: Mapping[Cell, Mapping[str, Any]]
    missing: tuple[str, ...]

    def list_pairs(self, method: str, split: str, other: str = "control") -> list[Pair]:
        """Return each finished run of a method beside another of its set, structure and seed.

        Args:
            method: the method.
            split: ``val`` or ``test``.
            other: ``control``, or ``student`` for that of the plan's first method.
        """
        pairs: list[Pair] = []
        for cell, content in self.cells.items():
            base = self.cells.get(Cell("student", cell.set, cell.student, cell.seed, self.plan.base_method))
            if cell.kind == "student" and cell.method == method and base is not None:
                theirs = base["confusions"][other][split]
                ours = content["confusions"]["student"][split]
                pairs.append(
                    build_pair(cell.set, cell.student, cell.seed, content["groups"][split], theirs, ours)
                )
        return pairs

    def list_longer_pairs(self) -> list[Pair]:
        """Return each control of twice the steps beside the control, on the validation split."""
        pairs: list[Pair] = []
        for cell, content in self.cells.items():
            base = self.cells.get(Cell("student", cell.set, cell.student, cell.seed, self.plan.base_method))
            if cell.kind == "longer" and base is not None:
                control, longer = base["confusions"]["control"]["val"], content["confusions"]["model"]["val"]
                pairs.append(
                    build_pair(cell.set, cell.student, cell.seed, content["groups"]["val"], control, longer)
                )
        return pairs

    def find_network(self, set_name: str, role: str, student: str = "") -> list[Mapping[str, Any]]:
        """Return what the runs say of a network: its scores on val and test, its size."""
        if role == "teacher":
            return [
                content["networks"]["model"]
                for cell, content in self.cells.items()
                if cell == Cell("teacher", set_name)
            ]
        return [
            content["networks"][role]
            for cell, content in self.cells.items()
            if (cell.kind, cell.set, cell.student, cell.method)
            == ("student", set_name, student, self.plan.base_method)
        ]


def read_results(plan: Plan, out: Path) -> Results:
    """Return the results below ``out``.

    Raises:
        InputError: no cell has finished, or one was run by other choices than the plan's or on other data
            than the rest of its set.
    """
    cells: dict[Cell, Mapping[str, Any]] = {}
    missing: list[str] = []
    for cell in list_cells(plan):
        path = out / f"{cell.name}.json"
        if path.is_file():
            cells[cell] = json.loads(path.read_text())
        else:
            missing.append(cell.name)
    if not cells:
        raise InputError(f"no cell of the experiment in {out} has finished", action=f"run `make -C {out}`")
    _check_choices(plan, cells)
    _check_data(cells)
    return Results(plan, cells, tuple(missing))


def _check_choices(plan: Plan, cells: Mapping[Cell, Mapping[str, Any]]) -> None:
    """Raise InputError for a cell that another plan has left in the folder.

    An option that its run did not know yet is not compared.
    """
    for cell, content in cells.items():
        config = {**content["config"], "mask_part": content.get("mask_part", plan.mask_part)}
        choices = {**json.loads(json.dumps(list_choices(plan, cell))), "mask_part": plan.mask_part}
        for key, expected in choices.items():
            if key in config and not _agree(config[key], expected):
                raise InputError(
                    f"the cell {cell.name} was run by another plan",
                    received=f"{key} {config[key]}",
                    expected=f"{key} {expected}",
                    action=_REPAIR,
                )


def _check_data(cells: Mapping[Cell, Mapping[str, Any]]) -> None:
    """Raise InputError where two cells of a set saw different data."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for cell, content in cells.items():
        for part, sha256 in content["data_sha256"].items():
            name, seen = first.setdefault((cell.set, part), (cell.name, sha256))
            if seen != sha256:
                raise InputError(
                    f"the cells {name} and {cell.name} saw different data",
                    received=f"{part} {seen[:8]} and {sha256[:8]}",
                    expected=f"one set {cell.set}",
                    action=_REPAIR,
                )


def _agree(found: Any, expected: Any) -> bool:
    """Return whether a value is the expected one; of a table, as far as it is named."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        return all(key in found and _agree(found[key], value) for key, value in expected.items())
    return found == expected


def average(networks: Iterable[Mapping[str, Any]], split: str, metric: str) -> float:
    """Return the mean of a score over runs; NaN where there is none."""
    values = [one[split][metric] for one in networks if one[split][metric] is not None]
    return sum(values) / len(values) if values else float("nan")
