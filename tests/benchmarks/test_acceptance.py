"""Gate and benchmark in one run and one folder, cut short at every place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from edgekd import cli
from edgekd.benchmarks import PaceConfig, ScenarioConfig, StopRule, acceptance, run_acceptance
from edgekd.bundle import Bundle, Recording
from edgekd.errors import InputError, IntegrityError, MachineError, SegmenterFault, UsageError

QUICK = StopRule(6, 0)
ALL = ScenarioConfig(
    ("single-stream", "offline", "multi-stream", "paced"), paces=(PaceConfig(fps=1000), PaceConfig(fps=2000))
)


def test_one_folder_holds_gate_and_latencies(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path
) -> None:
    add_build("onnx")
    add_build("tensorrt-rtx", device="GPU")
    out = tmp_path / "out"
    report = run_acceptance(bundle, data=data, rule=QUICK, scenarios=ALL, out=out, quiet=True)
    assert {path.name for path in out.iterdir()} == {
        "benchmark.json",
        "benchmark.md",
        "report.html",
        "parity",
    }
    assert report.passed
    text = (out / "benchmark.json").read_text()
    content = json.loads(text)
    assert (content["schema"], content["schema_version"]) == ("edgekd.benchmark", 2)
    assert content["gate"]["passed"] is True
    assert content["gate"]["verdict"] == "Parity passed: 1 build non-inferior to the student"
    result = content["results"][0]
    assert result["samples_ns"] == report.benchmark.results[0][1].samples_ns.tolist()
    assert len(result["samples_ns"]) == len(result["stage_samples_ns"]["infer"]) == 6
    assert [one["name"] for one in result["scenarios"]] == [
        "offline, batches of 8",
        "multi-stream, streams: 4",
        "paced, 1000 fps",
        "paced, 2000 fps",
    ]
    assert [one["name"] for one in content["skipped"]] == ["tensorrt-rtx-fp32-gpu"]
    assert any(line.strip().startswith('"samples_ns": [') for line in text.splitlines())
    summary = (out / "benchmark.md").read_text()
    assert summary.startswith(f"# Benchmark of {bundle.path}: Parity passed")
    assert "energy of a frame: not measured" in summary.lower()
    assert "this machine has no such device" in summary
    assert "Parity passed" in (out / "report.html").read_text()


def test_engine_that_does_something_else_fails_the_run(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("openvino")
    assert not run_acceptance(bundle, data=data, rule=QUICK, quiet=True).passed
    on_golden = run_acceptance(bundle, rule=QUICK, quiet=True)
    assert not on_golden.passed
    assert on_golden.gate_note.startswith("golden frames only")
    measured_only = run_acceptance(bundle, rule=QUICK, gate=False, quiet=True)
    assert measured_only.passed
    assert measured_only.to_dict()["gate"]["passed"] is None
    assert "--no-gate" in measured_only.benchmark.command


def test_data_without_a_recording_give_agreement_and_say_so(
    bundle: Bundle, add_build: Callable, data: Path
) -> None:
    add_build("onnx")
    report = run_acceptance(bundle, data=data, rule=QUICK, quiet=True)
    assert report.parity is not None
    assert report.parity.data is None
    assert "no --reference" in report.gate_note
    assert report.to_dict()["gate"]["verdict"].startswith("Consistent")


def test_probes_are_timed_and_never_judged(bundle: Bundle, data: Path) -> None:
    report = run_acceptance(bundle, data=data, targets=["null"], rule=QUICK, quiet=True)
    assert report.parity is None
    assert "masks mean nothing" in report.gate_note
    name, result = report.benchmark.results[0]
    assert name == "null"
    assert report.benchmark.command.endswith(
        "--target null --min-queries 6 --min-seconds 0 --scenario single-stream"
    )
    assert result.frame_shapes == ((48, 64), (56, 64))
    assert "24 frames" in report.benchmark.frames


def test_what_the_gate_lacks_is_said_before_anything_is_measured(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path, monkeypatch: Any
) -> None:
    add_build("onnx")
    monkeypatch.setattr(acceptance, "run_benchmark", lambda *_, **__: pytest.fail("it was measured"))
    recording = bundle.path.parent / "reference.npz"
    with pytest.raises(UsageError, match="exists"):
        run_acceptance(bundle, out=tmp_path)
    with pytest.raises(UsageError, match="without its data"):
        run_acceptance(bundle, reference=recording)
    with pytest.raises(InputError):
        run_acceptance(bundle, data=data, reference=tmp_path / "none.npz")
    case = data / "images" / "case00.png"
    Image.open(case).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(case)
    with pytest.raises(IntegrityError, match="not those of the reference"):
        run_acceptance(bundle, data=data)


def test_named_target_that_is_missing_is_refused(bundle: Bundle, add_build: Callable) -> None:
    add_build("onnx")
    with pytest.raises(MachineError, match="edgekd export"):
        run_acceptance(bundle, targets=["openvino"])


def test_interruption_keeps_the_builds_that_were_measured(
    bundle: Bundle, add_build: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_build("onnx")
    add_build("openvino")

    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd_test_engines.ShiftedEngine._infer", interrupt)
    out = tmp_path / "out"
    report = run_acceptance(bundle, rule=QUICK, out=out, quiet=True)
    assert report.interrupted
    assert report.parity is None
    assert [name for name, _ in report.benchmark.results] == ["onnx-fp32-cpu"]
    assert "interrupted" in report.benchmark.skipped[0].reason
    content = json.loads((out / "benchmark.json").read_text())
    assert content["interrupted"] is True
    assert content["gate"] == {
        "note": "interrupted before the gate",
        "passed": None,
        "verdict": "Parity was not measured",
    }
    with pytest.raises(KeyboardInterrupt):
        run_acceptance(bundle, targets=["openvino"], out=tmp_path / "never", quiet=True)
    assert not (tmp_path / "never").exists()


def test_interruption_in_the_gate_keeps_the_latencies(
    bundle: Bundle, add_build: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_build("onnx")

    def interrupt(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(acceptance, "run_parity", interrupt)
    report = run_acceptance(bundle, rule=QUICK, out=tmp_path / "out", quiet=True)
    assert report.interrupted
    assert len(report.benchmark.results[0][1].samples_ns) == 6
    assert "nothing is decided" in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text())["interrupted"] is True


def test_engine_that_fails_is_an_error_after_what_was_measured_is_written(
    bundle: Bundle, add_build: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_build("onnx")
    add_build("openvino")

    def fail(*_: object) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("edgekd_test_engines.ShiftedEngine._infer", fail)
    with pytest.raises(SegmenterFault, match="out of memory"):
        run_acceptance(bundle, rule=QUICK, out=tmp_path / "out", quiet=True)
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert [one["name"] for one in content["results"]] == ["onnx-fp32-cpu"]
    assert "out of memory" in content["fault"]
    assert content["skipped"][0]["reason"].startswith("failed")
    # Nobody pressed Ctrl-C.
    assert content["interrupted"] is False
    assert content["gate"]["note"] == "the benchmark ended by an error before the gate"
    summary = (tmp_path / "out" / "benchmark.md").read_text()
    assert "**Ended by an error: " in summary
    assert "nterrupted" not in summary
    assert "nterrupted" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "exit_code"),
    [
        ([], 0),
        (["--scenario", "offline", "--batch", "2", "--no-gate"], 0),
        (["--scenario", "offline", "--streams", "3"], 2),
        (["--scenario", "offlin"], 2),
        (["--fps", "0"], 2),
        (["--jitter", "0.7"], 2),
        (["--drop", "some"], 2),
        (["--stability", "2"], 2),
        (["--max-seconds", "60"], 2),
        (["--stability", "0.5", "--max-seconds", "0"], 0),
        (["--reference", "x.npz"], 2),
        (["--target", "tensorrt"], 3),
    ],
)
def test_exit_codes_of_the_verb(
    bundle: Bundle, add_build: Callable, options: list[str], exit_code: int
) -> None:
    add_build("onnx")
    quick = ["--min-queries", "3", "--min-seconds", "0", "--json"]
    done = CliRunner().invoke(cli.app, ["benchmark", str(bundle.path), *quick, *options])
    assert done.exit_code == exit_code, done.stderr
    content = json.loads(done.stdout)
    assert ("error" in content) == (exit_code != 0)


def test_verb_exits_1_where_the_gate_says_no(bundle: Bundle, add_build: Callable) -> None:
    add_build("openvino")
    done = CliRunner().invoke(
        cli.app, ["benchmark", str(bundle.path), "--min-queries", "3", "--min-seconds", "0"]
    )
    assert done.exit_code == 1
    assert "Parity failed" in done.stdout


NO_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "monai", "lightning_fabric", "matplotlib", "onnx"), None))
sys.argv = ["edgekd", *sys.argv[1:]]
from edgekd.cli import main
main()
"""


def interrupt_after(seconds: float, command: list[str], folder: Path) -> None:
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # A job in the background of a script ignores Ctrl-C, and so does what it starts: not here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=folder, env=env
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    with process.stderr as errors:
        assert b"measuring onnx" in errors.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()


def test_without_torch_and_interrupted_by_a_signal(device_bundle: Bundle, tmp_path: Path) -> None:
    """A cart: real engines, no torch in the process, Ctrl-C while it measures."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", NO_TORCH, "benchmark", str(device_bundle.path), "--out", str(out)]
    options = ["--target", "onnx", "--min-seconds", "0.2", "--min-queries", "10", "--scenario", "offline"]
    subprocess.run([*command, *options], check=True, capture_output=True, cwd=tmp_path)
    assert json.loads((out / "benchmark.json").read_text())["gate"]["passed"] is True
    second = tmp_path / "second"
    command[-1] = str(second)
    # On a busy machine the engine may not have been loaded when Ctrl-C comes: then it comes later.
    for seconds in (3, 15):
        interrupt_after(seconds, [*command, "--target", "onnx", "--min-seconds", "600"], tmp_path)
        if second.exists():
            break
    content = json.loads((second / "benchmark.json").read_text())
    assert content["interrupted"] is True
    assert len(content["results"][0]["samples_ns"]) > 10
    assert (second / "report.html").is_file()
