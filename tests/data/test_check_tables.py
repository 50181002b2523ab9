"""What `edgekd data check` shows: kinds in one row, splits in a table, and the splits that training takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from edgekd import cli
from edgekd.data import Finding, assign_splits, check_dataset, find_cases, tables

MakeFolder = Callable[..., Path]


def _check(data: Path, *arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "check", str(data), *map(str, arguments)])


def _read_facts(data: Path) -> dict[str, str]:
    table = tables.build_facts_table(check_dataset(data, 3, quiet=True).summary)
    return {row[0]: row[1] for row in table.rows}


@pytest.fixture
def three_classes(make_folder: MakeFolder) -> Path:
    """Thirty cases whose masks hold the classes 0, 1 and 2."""
    root = make_folder(30)
    mask = np.zeros((40, 48), np.uint8)
    mask[:10], mask[10:14] = 1, 2
    for index in range(30):
        Image.fromarray(mask).save(root / f"masks/c{index}.png")
    return root


def test_findings_of_one_kind_share_a_row() -> None:
    findings = [
        *(Finding("fault", "size mismatch", f"c{index}", f"detail {index}") for index in range(7)),
        Finding("fault", "unusable mask", "c9", "no mask"),
        Finding("warning", "size mismatch", "c8", "another severity"),
        Finding("warning", "class absent", None, "no pixel of class 1 in val"),
        Finding("warning", "class absent", None, "no pixel of class 1 in test"),
    ]
    assert tables.build_findings_table(findings).rows == (
        ("fault", "size mismatch", "7", "c0, c1, c2, c3, c4 and 2 more", "detail 0"),
        ("fault", "unusable mask", "1", "c9", "no mask"),
        ("warning", "size mismatch", "1", "c8", "another severity"),
        ("warning", "class absent", "–", "the set", "no pixel of class 1 in val"),
        ("warning", "class absent", "–", "the set", "no pixel of class 1 in test"),
    )


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        ([], "no faults, no warnings"),
        (["fault"], "1 fault, no warnings"),
        (["fault", "fault", "warning"], "2 faults, 1 warning"),
    ],
)
def test_verdict_counts_in_the_right_number(severities: list[str], verdict: str) -> None:
    findings = [Finding(severity, "kind", None, "detail") for severity in severities]  # type: ignore[arg-type]
    assert tables.format_verdict(findings) == verdict


def test_table_groups_what_json_lists(three_classes: Path) -> None:
    shown = _check(three_classes, "--quiet")
    assert shown.exit_code == 1
    assert [line.split()[:4] for line in shown.stdout.splitlines() if line.startswith("  fault ")] == [
        ["fault", "undeclared", "classes", "30"]
    ]
    findings = json.loads(_check(three_classes, "--json").stdout)["findings"]
    assert sum(one["kind"] == "undeclared classes" for one in findings) == 30


def test_splits_have_a_table_of_their_own(three_classes: Path) -> None:
    table = tables.build_splits_table(check_dataset(three_classes, 3, quiet=True).summary)
    parts = assign_splits(find_cases(three_classes))
    assert table.columns == ("Split", "Cases", "Groups", "Empty masks", "Class 1 %", "Class 2 %")
    # Ten and four of forty rows of pixels.
    assert table.rows == tuple(
        (name, str(count), str(count), "0", "25.00", "10.00")
        for name, count in (*((split, len(cases)) for split, cases in parts.items()), ("all", 30))
    )


def test_very_many_classes_are_cut_aloud(three_classes: Path) -> None:
    table = tables.build_splits_table(check_dataset(three_classes, 20, quiet=True).summary)
    assert table.columns[-1] == "Class 8 %" and "11 more with --json" in table.title


def test_facts_are_words(three_classes: Path, rng: np.random.Generator) -> None:
    facts = _read_facts(three_classes)
    assert facts["image sizes"] == "40×48 (height × width)"
    assert facts["groups"] == "none named: each case counts as its own"
    assert facts["splits"] == "by hash of the group, fractions 0.7 / 0.15 / 0.15, salt 'edgekd'"
    Image.fromarray(rng.integers(0, 256, (50, 45), dtype=np.uint8)).save(three_classes / "images/c0.png")
    Image.fromarray(np.ones((50, 45), np.uint8)).save(three_classes / "masks/c0.png")
    facts = _read_facts(three_classes)
    assert facts["image sizes"] == "40×45 to 50×48 (height × width)"


def test_set_without_a_usable_case_has_tables_too(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "masks/a.png")
    done = _check(tmp_path)
    assert done.exit_code == 1 and "None" not in done.stdout and "1 fault, no warnings" in done.stdout
    splits = tables.build_splits_table(check_dataset(tmp_path, quiet=True).summary)
    assert splits.rows[-1] == ("all", "0", "0", "–", "–")


def test_config_gives_splits_and_classes_and_the_option_wins(three_classes: Path, tmp_path: Path) -> None:
    config = tmp_path / "choices.json"
    split = {"fractions": [0.4, 0.3, 0.3], "salt": "study"}
    names = ["background", "lesion", "cyst"]
    config.write_text(json.dumps({"epochs": 3, "split": split, "classes": {"names": names}}))
    done = _check(three_classes, "--config", config, "--json")
    assert done.exit_code == 0
    summary = json.loads(done.stdout)["summary"]
    assert summary["num_classes"] == 3 and summary["division"] == {"by": "hash of the group", **split}
    parts = assign_splits(find_cases(three_classes), fractions=split["fractions"], salt="study")
    assert [part["cases"] for part in summary["splits"].values()] == [len(part) for part in parts.values()]
    shown = _check(three_classes, "--config", config, "--quiet").stdout
    assert "fractions 0.4 / 0.3 / 0.3, salt 'study'" in shown
    assert _check(three_classes, "--config", config, "--classes", 2).exit_code == 1
    config.write_text('{"splits": {}}')
    assert _check(three_classes, "--config", config).exit_code == 2


@pytest.mark.parametrize(
    ("choices", "kind"),
    [
        ({"frame_dtype": "uint16"}, "unexpected bit depth"),
        ({"crop": {"top": 0, "left": 8, "height": 40, "width": 41}}, "crop outside image"),
    ],
)
def test_config_gives_the_frames_that_are_judged(
    three_classes: Path, tmp_path: Path, choices: dict[str, Any], kind: str
) -> None:
    config = tmp_path / "choices.json"
    config.write_text(json.dumps(choices))
    done = _check(three_classes, "--classes", 3, "--config", config, "--json")
    assert done.exit_code == 1
    assert [finding["kind"] for finding in json.loads(done.stdout)["findings"]] == [kind]


def test_a_set_of_16_bit_is_told_before_distill_refuses_its_first_image(
    three_classes: Path, rng: np.random.Generator
) -> None:
    for path in (three_classes / "images").iterdir():
        Image.fromarray(rng.integers(0, 65536, (40, 48), dtype=np.uint16)).save(path)
    done = _check(three_classes, "--classes", 3, "--json")
    assert done.exit_code == 1
    assert [one["kind"] for one in json.loads(done.stdout)["findings"]] == ["unexpected bit depth"]
