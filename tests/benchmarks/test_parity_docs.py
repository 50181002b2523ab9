"""What docs/parity.md shows works as written."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd import cli
from edgekd.benchmarks import GateConfig
from edgekd.bundle import Bundle, Recording
from edgekd.config_reader import load_config

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "parity.md").read_text()


def read_block(marker: str) -> str:
    found = re.search(rf"<!-- {marker}: tested -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"the page has no block marked {marker!r}"
    return found[1]


def test_the_criteria_shown_are_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "parity.toml"
    file.write_text(read_block("criteria"))
    assert load_config(GateConfig, file) == GateConfig()


def test_the_one_step_writes_what_the_page_says(
    bundle: Bundle,
    add_build: Callable,
    data: Path,
    reference: Recording,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_build("onnx")
    folder = tmp_path / "job"
    shutil.copytree(bundle.path, folder / "student.edgekd")
    shutil.copyfile(bundle.path.parent / "reference.npz", folder / "reference.npz")
    shutil.copytree(data, folder / "DATA")
    (folder / "parity.toml").write_text(read_block("criteria"))
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(read_block("command"))
    assert program == "edgekd"
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, (done.stdout, done.stderr)
    written = {path.name for path in (folder / "parity").iterdir()}
    assert written == {"parity.json", "parity.md", "parity.xml", "report.html", "pictures"}
    assert {"parity.xml", "certificate.json"} <= {path.name for path in folder.iterdir()}
