"""What a run tells where there is no terminal: a line an epoch, from one process, and no banner."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from disc_runs import build_train_config

from edgekd.distill import train
from edgekd.distill.report import format_epoch

FACT = {"losses": {"ce": 0.2, "total": 0.41236}, "val": {"dice": 0.71249}}


@pytest.mark.parametrize(
    ("epoch", "left_s", "end"),
    [(1, 59.0, "; less than 1 min left"), (1, 61.0, "; about 2 min left"), (3, 0.0, "undefined")],
)
def test_the_line_of_an_epoch(epoch: int, left_s: float, end: str) -> None:
    blind = {"losses": {"total": 1.0}, "val": {"dice": None}}
    record = {"epoch": epoch, "phase": 1, "learners": {"teacher": FACT, "student": blind}}
    line = format_epoch(record, 3, left_s)
    assert line.startswith(
        f"epoch {epoch}/3, phase 1: teacher loss 0.4124, val Dice 0.712; student loss 1.0000"
    )
    assert line.endswith(end)


def test_a_line_an_epoch_in_a_pipe(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(build_train_config(epochs=2), discs, tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert re.fullmatch(
        r"epoch 1/2, phase 1: model loss \d\.\d+, val Dice 0\.\d+; less than 1 min left", lines[0]
    )
    assert re.fullmatch(r"epoch 2/2, phase 1: model loss \d\.\d+, val Dice 0\.\d+", lines[1])
    assert len(lines) == 2


@pytest.mark.parametrize("quiet", [True, False])
def test_no_line_when_quiet_or_at_a_terminal(
    discs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    quiet: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: not quiet)
    train(build_train_config(epochs=1), discs, tmp_path / "run", quiet=quiet)
    assert "epoch 1/1" not in capsys.readouterr().err


PROGRAM = """
import sys
from pathlib import Path
from disc_runs import build_train_config
from edgekd.distill import devices, is_main_process, train
from edgekd.errors import EdgeKDError
devices.count_usable_cores = lambda: 2
try:
    train(build_train_config(epochs=1, devices=2), Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write("main\\n" if is_main_process() else "other\\n")
except EdgeKDError as error:
    sys.exit(f"refused: {error}")
"""


def start_two(tmp_path: Path, data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Train with two processes; Fabric starts the second from the program's file."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent / "support")]
    kept = {
        key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")
    }
    return subprocess.run(
        [sys.executable, str(program), str(data), str(out)],
        env={**kept, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_of_two_processes_one_reports(discs: Path, tmp_path: Path) -> None:
    done = start_two(tmp_path, discs, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["main", "other"]
    assert done.stderr.count("epoch 1/1") == 1
    assert "distributed" not in done.stderr


@pytest.mark.slow
def test_of_two_processes_one_refuses(tmp_path: Path) -> None:
    done = start_two(tmp_path, tmp_path / "nothing", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.count("refused: ") == 1
    assert not (tmp_path / "run").exists()
