"""Criteria from a file and from options: what is kept, what wins, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.benchmarks import GateConfig, parse_margins, run_parity
from edgekd.benchmarks.criteria import replace_margins
from edgekd.bundle import Bundle, Recording
from edgekd.config_reader import load_config
from edgekd.errors import UsageError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    file = write(tmp_path / "parity.toml", "min_groups = 40\n[margins]\ndice = 0.02\n")
    config = load_config(GateConfig, file)
    assert config.min_groups == 40
    assert config.margins.model_dump() == {"acc": 0.002, "miou": 0.01, "dice": 0.02, "kappa": 0.01}
    assert config.compute_hash() != GateConfig().compute_hash()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[margins]\ndize = 0.01\n", "margins.dice"),
        ("[margins]\ndice = 0\n", "greater than 0"),
        ("[margins]\ndice = nan\n", "margins.dice"),
        ("min_groups = 5\n", "greater than or equal to 20"),
        ("margin = 1\n", "margins"),
    ],
)
def test_criteria_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        load_config(GateConfig, write(tmp_path / "parity.toml", text))


@pytest.mark.parametrize("text", ["dize=0.01", "dice", "dice=much", "=0.1"])
def test_margins_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_margins([text])


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.5, float("nan")])
def test_margins_out_of_range_are_refused(margin: float) -> None:
    with pytest.raises(UsageError, match="dice"):
        replace_margins(GateConfig(), {"dice": margin})


def test_options_win_over_the_file_and_both_are_in_the_report(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path
) -> None:
    add_build("openvino")
    file = write(tmp_path / "parity.toml", "min_agreement = 0.5\n[margins]\ndice = 0.9\nacc = 0.9\n")
    report = run_parity(bundle, data=data, config=file, margins={"dice": 0.8}, quiet=True)
    assert report.results[0].margins == {"acc": 0.9, "miou": 0.01, "dice": 0.8, "kappa": 0.01}
    assert report.results[0].min_agreement == 0.5
    assert f"--config {file} --margin dice=0.8" in report.command
    assert report.to_dict()["criteria_sha256"] == report.criteria.compute_hash()


def test_more_groups_than_there_are_decide_nothing(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("openvino")
    config = GateConfig(min_groups=30, min_agreement=0.1)
    result = run_parity(bundle, data=data, config=config, quiet=True).results[0]
    assert (result.conclusion, result.passed) == ("inconclusive", False)
    assert "24 groups decide nothing, at least 30" in result.reasons[0]
