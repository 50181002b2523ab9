"""Who may import whom is held by a tool; here the tool is seen to hold it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("edgekd", "export", "benchmarks", "cli.py", "pyproject.toml")


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tmp_path / part, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, tmp_path / part)
    return tmp_path


def _lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("importlinter")
    # The tool puts the current folder first on its path, so it reads the copy.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    return subprocess.run(
        [*command, "--no-cache"],
        cwd=tree,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tree)},
        check=False,
    )


def test_rules_hold(copied_tree: Path) -> None:
    done = _lint_imports(copied_tree)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "statement", "broken"),
    [
        ("edgekd/runtime/null.py", "import torch", "The device side never imports torch"),
        ("benchmarks/latency.py", "import edgekd.models", "The device side never imports torch"),
        ("edgekd/runtime/null.py", "import edgekd.data", "The runtime knows no data set"),
        ("edgekd/specs.py", "import edgekd.errors", None),
        ("edgekd/specs.py", "import edgekd.bundle", "errors and specs import nothing internal"),
        ("export/__init__.py", "import edgekd.distill", "The order of the rooms"),
        ("export/api.py", "import torch", "Torch and the networks enter export by trace alone"),
        ("edgekd/distill/__init__.py", "import edgekd.benchmarks.suites", "Nobody imports the suites"),
        ("edgekd/distill/__init__.py", "import edgekd.cli", "The order of the rooms"),
    ],
)
def test_planted_import_is_refused(
    copied_tree: Path, module: str, statement: str, broken: str | None
) -> None:
    with (copied_tree / module).open("a") as file:
        file.write(f"\n{statement}  # noqa\n")
    done = _lint_imports(copied_tree)
    assert done.returncode == 1, done.stdout + done.stderr
    if broken is not None:
        assert broken in done.stdout


@pytest.mark.parametrize("name", ["export", "benchmarks", "cli"])
def test_root_names_are_banned(tmp_path: Path, name: str) -> None:
    (tmp_path / "wrong.py").write_text(f'"""A module."""\n\nimport {name}\n\nprint({name})\n')
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*command, "wrong.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"edgekd.{name}" in done.stdout
