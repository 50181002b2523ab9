"""What of two reports is judged: gates that failed, were never run, or had less to go by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.benchmarks import StopRule, acceptance, compare_reports, run_acceptance
from edgekd.bundle import Bundle, Recording
from edgekd.errors import MachineError

QUICK = StopRule(3, 0)


@pytest.fixture
def release(bundle: Bundle, add_build: Callable, tmp_path: Path) -> Callable[..., Path]:
    """Make a result folder of the one build of the bundle."""
    add_build("onnx")

    def make(name: str, **options: Any) -> Path:
        run_acceptance(bundle, rule=QUICK, out=tmp_path / name, quiet=True, **options)
        return tmp_path / name

    return make


def test_a_build_that_passed_and_whose_gate_failed_to_run_is_worse(
    release: Callable, data: Path, reference: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = release("1", data=data)

    def fail(*_: object, **__: object) -> Any:
        raise MachineError("out of memory")

    monkeypatch.setattr(acceptance, "run_parity", fail)
    with pytest.raises(MachineError):
        release("2", data=data)
    comparison = compare_reports([before, tmp_path / "2"])
    assert comparison.regressions == (f"onnx-fp32-cpu gate passed in {tmp_path / '2'}",)
    said = [text for text in comparison.warnings if "gate" in text]
    assert said == [f"onnx-fp32-cpu was not gated in {tmp_path / '2'}: the gate failed to run: out of memory"]


def test_a_build_that_passed_and_was_not_gated_again_is_warned_about(
    release: Callable, data: Path, reference: Recording
) -> None:
    before, after = release("1", data=data), release("2", gate=False)
    (after / "old").mkdir()
    old = json.loads((after / "benchmark.json").read_text())
    del old["gate"]
    (after / "old" / "benchmark.json").write_text(json.dumps(old))
    for paths, note in (
        ([before, after], ": the gate was not asked for"),
        ([after, before], ": the gate was not asked for"),
        ([before, after / "old"], ""),
    ):
        comparison = compare_reports(paths)
        ungated = next(path for path in paths if path != before)
        assert comparison.passed
        said = [text for text in comparison.warnings if "gate" in text]
        assert said == [f"onnx-fp32-cpu was not gated in {ungated}{note}"]


def test_agreement_on_golden_frames_is_no_pass_on_data(
    bundle: Bundle, release: Callable, data: Path, reference: Recording
) -> None:
    on_data, on_golden = release("1", data=data), release("2")
    for first, second in ((on_data, on_golden), (on_golden, on_data)):
        comparison = compare_reports([first, second])
        assert comparison.judged == 0
        assert comparison.verdict == f"side by side only: nothing could be judged against {first}"
        row = next(row for row in comparison.rows if row["quantity"] == "gate passed")
        assert (row["values"], row["verdicts"]) == ([1.0, 1.0], [None, "not judged"])
        said = [text for text in comparison.warnings if "gate" in text]
        kinds = ("golden frames", "data") if second == on_golden else ("data", "golden frames")
        assert said == [
            f"{second} was gated on {kinds[0]}, {first} on {kinds[1]}: a pass there is not judged by one here"
        ]
    # An engine that disagrees with golden frames computes something else, whatever it did on data before.
    path = on_golden / "parity" / "parity.json"
    content = json.loads(path.read_text())
    content["results"][0]["passed"] = False
    path.write_text(json.dumps(content))
    assert not compare_reports([on_data, on_golden]).passed


def test_golden_frames_on_which_the_student_marks_nothing_show_no_regression(
    data: Path, reference: Recording, release: Callable
) -> None:
    on_data, on_golden = release("1", data=data), release("2")
    path = on_golden / "parity" / "parity.json"
    content = json.loads(path.read_text())
    content["results"][0] |= {"conclusion": "inconclusive", "passed": False}
    path.write_text(json.dumps(content))
    comparison = compare_reports([on_data, on_golden])
    assert comparison.passed
    assert comparison.to_dict()["judged"] == comparison.judged
    content["results"][0] |= {"conclusion": "inconsistent"}
    path.write_text(json.dumps(content))
    assert not compare_reports([on_data, on_golden]).passed
