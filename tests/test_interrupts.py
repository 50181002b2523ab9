"""Ctrl-C ends a verb also where a library swallowed it, and no gate passes after that."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.bundle import Bundle
from edgekd.console import Answer, _run
from edgekd.interrupts import check_interrupt, remembered_interrupts


def press() -> None:
    # The handler alone: a process in which OpenVINO has run may not outlive a signal.
    handle = signal.getsignal(signal.SIGINT)
    assert callable(handle)
    handle(signal.SIGINT, None)


def swallow() -> None:
    with pytest.raises(KeyboardInterrupt):
        press()


def test_an_interrupt_is_remembered_in_the_block_alone() -> None:
    check_interrupt()
    with remembered_interrupts():
        check_interrupt()
        swallow()
        with pytest.raises(KeyboardInterrupt):
            check_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with remembered_interrupts():
        check_interrupt()


def test_a_good_answer_after_a_lost_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    def verb(exit_code: int) -> Answer:
        swallow()
        return Answer({"passed": True}, exit_code=exit_code)

    assert _run(lambda: verb(0), as_json=True, debug=False) == 130
    assert json.loads(capsys.readouterr().out)["error"]
    # What the verb says of itself stands: a benchmark keeps what it had measured.
    assert _run(lambda: verb(1), as_json=True, debug=False) == 1


LOSE_AN_INTERRUPT = """
import signal, sys
from edgekd import cli
from edgekd.console import run_app
from edgekd.runtime import catalogue

load_class = catalogue.load_engine_class

def load_engine_class(target):
    if target != "onnx":
        return load_class(target)
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pass
    raise ImportError("initialization failed")

catalogue.load_engine_class = load_engine_class
sys.exit(run_app(cli.app, sys.argv[1:]))
"""


@pytest.mark.parametrize("named", [[], ["--target", "onnx"]])
def test_no_gate_passes_without_an_engine_whose_loading_was_interrupted(
    exported_bundle: Bundle, tmp_path: Path, named: list[str]
) -> None:
    out = tmp_path / "parity.xml"
    command = ["parity", str(exported_bundle.path), "--junit", str(out), "--quiet", *named]
    ended = subprocess.run(
        [sys.executable, "-c", LOSE_AN_INTERRUPT, *command], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (130, "edgekd: interrupted\n")
    assert "interrupted before there was a verdict" in out.read_text()
