"""JUnit XML as a CI server reads it: counts, failures, errors, and builds that did not run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edgekd.benchmarks import keep_junit, run_parity
from edgekd.benchmarks.junit import build_junit
from edgekd.bundle import Bundle, Recording
from edgekd.errors import IntegrityError, UsageError


def count(element: ET.Element) -> tuple[int, ...]:
    return tuple(int(element.get(key, "-1")) for key in ("tests", "failures", "errors", "skipped"))


def test_one_suite_a_build_and_one_case_a_score(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path
) -> None:
    add_build("onnx")
    add_build("openvino")
    add_build("tensorrt-rtx", device="GPU")
    path = tmp_path / "junit.xml"
    run_parity(bundle, data=data, junit=path, quiet=True)
    root = ET.parse(path).getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert count(suites["onnx-fp32-cpu"]) == (5, 0, 0, 0)
    assert count(suites["openvino-fp32-cpu"]) == (5, 5, 0, 0)
    assert count(suites["tensorrt-rtx-fp32-gpu"]) == (1, 0, 0, 1)
    assert count(root) == (11, 5, 0, 1)
    names = [case.get("name") for case in suites["openvino-fp32-cpu"]]
    assert names == ["acc", "miou", "dice", "kappa", "verdict"]
    failure = suites["openvino-fp32-cpu"][2].find("failure")
    assert failure is not None
    assert failure.get("message", "").startswith("dice: the upper bound")
    skipped = suites["tensorrt-rtx-fp32-gpu"][0].find("skipped")
    assert skipped is not None
    assert "no such device" in skipped.get("message", "")


def test_golden_frames_give_one_case_that_names_agreement(bundle: Bundle, add_build: Callable) -> None:
    add_build("openvino")
    root = ET.fromstring(build_junit(run_parity(bundle).to_dict()))
    assert count(root) == (1, 1, 0, 0)
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("type") == "inconsistent"


def test_what_makes_verdicts_say_less_stands_in_the_output(bundle: Bundle, add_build: Callable) -> None:
    add_build("openvino")
    content = run_parity(bundle).to_dict()
    assert content["doubts"] == [] and ET.fromstring(build_junit(content)).find(".//system-out") is None
    root = ET.fromstring(build_junit({**content, "doubts": ["the student hardly finds", "b"]}))
    assert [element.text for element in root.iter("system-out")] == ["the student hardly finds\nb"]
    assert count(root) == (1, 1, 0, 0)


def test_a_name_with_signs_that_xml_cannot_hold_stays_readable(bundle: Bundle, add_build: Callable) -> None:
    add_build("openvino")
    content = run_parity(bundle).to_dict()
    content["results"][0]["candidate"] = 'a\x01<b>&"'
    suite = ET.fromstring(build_junit(content))[0]
    assert suite.get("name") == 'a?<b>&"'


@pytest.mark.parametrize("sign", ["\x00", "\x1f", "\ud800", "\udcff", "\ufffe", "\uffff"])
def test_text_with_signs_that_xml_cannot_hold_is_written_and_read_again(tmp_path: Path, sign: str) -> None:
    # A file name that is no UTF-8 comes as lone surrogates.
    path = tmp_path / "junit.xml"
    with pytest.raises(IntegrityError), keep_junit(path):
        raise IntegrityError(f"a{sign}b \t\u00e9\ue000\ufffd\U0001f600")
    error = ET.parse(path).getroot().find(".//error")
    assert error is not None
    assert error.get("message") == "a?b \t\u00e9\ue000\ufffd\U0001f600"


def test_an_error_is_kept_and_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    with pytest.raises(IntegrityError), keep_junit(path):
        raise IntegrityError("another sha256")
    root = ET.parse(path).getroot()
    assert count(root) == (1, 0, 1, 0)
    error = root.find(".//error")
    assert error is not None
    assert (error.get("type"), error.get("message")) == ("IntegrityError", "another sha256")
    with pytest.raises(KeyboardInterrupt), keep_junit(tmp_path / "stopped.xml"):
        raise KeyboardInterrupt
    stopped = ET.parse(tmp_path / "stopped.xml").getroot()
    assert count(stopped) == (1, 0, 1, 0) and stopped.findtext(".//error") == "exit code 130"
    with pytest.raises(UsageError, match="exists"), keep_junit(path):
        pass


def test_a_build_that_was_never_run_is_said_to_be_built(bundle: Bundle, add_build: Callable) -> None:
    from written_builds import write_build

    add_build("onnx")
    build = add_build("tensorrt-rtx", device="GPU")
    fields = build.record.model_dump(include={"target", "precision_asked", "precision_effective", "device"})
    write_build(bundle, **fields, status="built, not run", files={}, facts={})
    report = run_parity(bundle)
    cells = dict(report.list_cells())
    assert cells["onnx-fp32-cpu"] == "consistent"
    assert cells["tensorrt-rtx-fp32-gpu"].startswith("built, not run: ")
    assert "passed" not in cells.values()
    assert dataclasses.asdict(report.skipped[0])["status"] == "built, not run"
