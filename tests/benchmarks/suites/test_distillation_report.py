"""The suite's report of made-up cells: which p-values it gives, and what it says of the test split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.benchmarks.suites.distillation.plan import Cell, Plan, Student, list_cells
from edgekd.benchmarks.suites.distillation.report import write_report
from edgekd.benchmarks.suites.distillation.results import Results

METHODS: dict[str, dict[str, Any]] = {"default": {}, "cwd": {"losses": "cwd:3"}, "kl": {"losses": "kl:1"}}

VAL_SCORE, TEST_SCORE = 0.5, 0.6789


def build_plan(methods: dict[str, dict[str, Any]]) -> Plan:
    students = tuple(Student(label=label, name="unet-narrow") for label in ("one", "two"))
    return Plan(
        sets=("busi",), students=students, seeds=(0, 1), common={}, teacher={}, distill={}, methods=methods
    )


def draw_cell(cell: Cell) -> dict[str, Any]:
    """Return the content of a cell whose student finds some more of 25 lesions than its control."""
    rng = np.random.default_rng(cell.seed)
    hits = {"control": rng.integers(90, 110, 25), "student": rng.integers(100, 125, 25)}
    counts = {role: [[780, 20, 200 - hit, hit] for hit in values.tolist()] for role, values in hits.items()}
    groups = [f"g{index}" for index in range(25)]
    scores = {
        split: dict.fromkeys(("acc", "miou", "dice", "kappa"), value)
        for split, value in (("val", VAL_SCORE), ("test", TEST_SCORE))
    }
    network = {**scores, "model": {"parameters": 1000, "macs": 1000}}
    return {
        "networks": dict.fromkeys(("model", "control", "student"), network),
        "groups": {"val": groups, "test": groups},
        "confusions": {role: {"val": rows, "test": rows} for role, rows in counts.items()},
        "environment": {"cores": 2, "machine": "x86_64", "python": "3.11", "libraries": {}},
    }


def build_results(methods: dict[str, dict[str, Any]], *, missing: tuple[str, ...] = ()) -> Results:
    """Return the cells of an experiment, without those whose names end so."""
    plan = build_plan(methods)
    cells = {cell: draw_cell(cell) for cell in list_cells(plan) if not cell.name.endswith(missing)}
    return Results(plan, cells, tuple(cell.name for cell in list_cells(plan) if cell not in cells))


def read_ablation(text: str) -> dict[str, list[str]]:
    """Return method → the other cells of its row in the table of methods."""
    lines = text.split("Methods on the validation split")[1].split("Scores on")[0].splitlines()
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_only_methods_with_all_runs_have_a_p_value_and_it_is_adjusted_for_all(tmp_path: Path) -> None:
    results = build_results(METHODS, missing=("two-s1-cwd", "-kl"))
    rows = read_ablation(write_report(results, tmp_path))
    assert {name: row[-2] for name, row in rows.items()} == {
        "default": "4 of 4",
        "cwd": "3 of 4",
        "kl": "0 of 4",
    }
    # The smallest p-value that 4000 resamples give is 0.0005; three methods are tried.
    assert {name: row[-1] for name, row in rows.items()} == {"default": "0.002", "cwd": "–", "kl": "–"}
    assert rows["kl"][1:5] == ["–"] * 4 and rows["cwd"][1].startswith("+")
    gains = json.loads((tmp_path / "gains.json").read_text())
    assert gains["methods, p of Dice (Holm)"] == {"default": pytest.approx(3 * 0.0005)}
    p_values = {name: one["dice"]["p_value"] for name, one in gains["methods, validation"].items()}
    assert p_values == {"default": pytest.approx(0.0005), "cwd": None}


def test_methods_are_compared_on_the_runs_that_both_have(tmp_path: Path) -> None:
    results = build_results(METHODS, missing=("two-s1-cwd", "-kl"))
    for cell in results.cells:
        if cell.method == "cwd":
            # Ten more hits of each 200-pixel lesion than the first method's student.
            counts = results.cells[cell]["confusions"]["student"]
            counts["val"] = [[a, b, c - 10, d + 10] for a, b, c, d in counts["val"]]
    text = write_report(results, tmp_path)
    rows = read_ablation(text)
    assert "Dice − default's, same runs" in text
    assert rows["default"][5] == rows["kl"][5] == "–"
    found = json.loads((tmp_path / "gains.json").read_text())["methods beside default, validation"]
    assert found.keys() == {"cwd"}
    # All but constant over cases and seeds: 20 / (200 + 20 + hits) more, 100 to 124 of them.
    assert 0.02 < found["cwd"]["dice"]["low"] <= found["cwd"]["dice"]["high"] < 0.08
    assert rows["cwd"][5].startswith(f"{100 * found['cwd']['dice']['delta']:+.2f} (")
    assert "One seed of a set and student, where it is about cases alone: cwd." in text


def test_an_ablation_says_nothing_of_the_test_split(tmp_path: Path) -> None:
    (tmp_path / "gains.png").write_text("of an earlier report")
    text = write_report(build_results(METHODS), tmp_path)
    assert "Scores on the validation split" in text and "50.00" in text
    assert "test split" not in text and "67.89" not in text and "gains.png" not in text
    assert not (tmp_path / "gains.png").exists()
    gains = json.loads((tmp_path / "gains.json").read_text())
    assert all("validation" in key or "Holm" in key for key in gains)


def test_one_method_is_judged_on_the_test_split(tmp_path: Path) -> None:
    text = write_report(build_results({"default": {}}), tmp_path)
    assert "Gain on the test split" in text and "67.89" in text
    assert (tmp_path / "gains.png").is_file()
    assert list(json.loads((tmp_path / "gains.json").read_text())) == ["mean", "busi, one", "busi, two"]
