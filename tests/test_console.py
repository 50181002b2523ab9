"""How a verb answers, with verbs made for the purpose."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from edgekd.console import Answer, answer_with
from edgekd.errors import GateFailure, InputError, IntegrityError, MachineError
from edgekd.tables import Table

runner = CliRunner()


def _build_app(outcome: Answer | BaseException) -> typer.Typer:
    app = typer.Typer()

    def verb(quiet: bool = False) -> Answer:
        if isinstance(outcome, BaseException):
            raise outcome
        return Answer({**outcome.data, "quiet": quiet}, outcome.tables, outcome.lines, outcome.exit_code)

    app.command()(answer_with(verb))
    return app


def test_json_is_one_object_and_implies_quiet() -> None:
    done = runner.invoke(_build_app(Answer({"dice": math.nan, "list": [1, 2.5]})), ["--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"dice": None, "list": [1, 2.5], "quiet": True}


def test_a_file_without_the_right_to_read_it_is_unreadable_input() -> None:
    done = runner.invoke(_build_app(PermissionError(13, "Permission denied", "run/manifest.json")))
    assert done.exit_code == 2
    assert done.stderr.startswith("edgekd: run/manifest.json cannot be used: received permission denied")
    other = runner.invoke(_build_app(PermissionError(13, "Permission denied")))
    assert other.exit_code == 70


def test_table_keeps_long_cells_whole_where_there_is_no_terminal() -> None:
    name = "a-very-long-name-" * 6
    answer = Answer({}, [Table("Title", ("name", "count"), ((name, "1,234"), ("[b]", "–")))], ["done"])
    done = runner.invoke(_build_app(answer))
    assert name in done.stdout
    assert "1,234" in done.stdout
    assert "[b]" in done.stdout
    assert done.stdout.rstrip().endswith("done")
    assert "\x1b" not in done.stdout


def test_answer_decides_the_exit_code() -> None:
    assert runner.invoke(_build_app(Answer({}, exit_code=1))).exit_code == 1


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (GateFailure("no"), 1),
        (InputError("no"), 2),
        (MachineError("no"), 3),
        (IntegrityError("no"), 4),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("no"), 70),
    ],
)
def test_error_is_one_line_and_its_exit_code(error: BaseException, exit_code: int) -> None:
    done = runner.invoke(_build_app(error))
    assert done.exit_code == exit_code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("edgekd: ")
    as_json = runner.invoke(_build_app(error), ["--json"])
    assert json.loads(as_json.stdout)["exit_code"] == exit_code


def test_square_brackets_are_no_markup() -> None:
    table = Table("runs/br[v2]/x and [bold]y", ("build", "r1", "q[/x]"), (("[b]onnx", "1", "[/]"),))
    done = runner.invoke(_build_app(Answer({}, [table], ["a line [/z]"])))
    assert done.exit_code == 0
    for part in ("runs/br[v2]/x and", "[bold]y", "q[/x]", "[b]onnx", "[/]", "a line [/z]"):
        assert part in done.stdout


PRINTS_ANY_TEXT = """
import sys, typer
from edgekd.console import Answer, answer_with, run_app
from edgekd.tables import Table
def verb() -> Answer:
    return Answer({"x": "1×2"}, [Table("–", ("Δ",), (("µ\\udcff",),))], ["1×2 of \\udcff"])
app = typer.Typer(help="Δ × –")
app.command("verb")(answer_with(verb))
app.command("other")(answer_with(verb))
sys.exit(run_app(app, sys.argv[1:]))
"""


@pytest.mark.parametrize("arguments", [["verb"], ["verb", "--json"], ["--help"]])
def test_encoding_that_lacks_a_character_gets_another(arguments: list[str]) -> None:
    for encoding in ("ascii", "utf-8"):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        command = [sys.executable, "-c", PRINTS_ANY_TEXT, *arguments]
        done = subprocess.run(command, capture_output=True, env=env, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout
        if arguments == ["verb"]:
            assert ("1?2 of ?" if encoding == "ascii" else "1×2 of ?") in done.stdout.decode()


def test_answer_that_cannot_be_printed_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(answer: Answer) -> None:
        raise OSError("the disk under the log is full")

    monkeypatch.setattr("edgekd.console._print_tables", fail)
    done = runner.invoke(_build_app(Answer({})))
    assert done.exit_code == 3
    assert "the answer cannot be written: received the disk under the log is full" in done.stderr


@pytest.mark.parametrize("arguments", [["verb"], ["verb", "--json"]])
def test_a_reader_that_leaves_and_a_full_disk_are_told_apart(arguments: list[str]) -> None:
    command = [sys.executable, "-c", PRINTS_ANY_TEXT, *arguments]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 3
        assert done.stderr.decode().startswith("edgekd: the answer cannot be written: received No space left")
    # Closed by the caller: the verb's own verdict is all that is wanted.
    line = shlex.join(command) + " >&-"
    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_package_of_an_extra_that_is_missing_names_the_extra() -> None:
    done = runner.invoke(_build_app(ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")))
    assert done.exit_code == 3
    assert 'pip install "edgekd[train]"' in done.stderr
    other = runner.invoke(_build_app(ModuleNotFoundError("No module named 'tirch'", name="tirch")))
    assert other.exit_code == 70


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" not in runner.invoke(_build_app(InputError("no"))).stderr
    assert "Traceback" in runner.invoke(_build_app(InputError("no")), ["--debug"]).stderr
