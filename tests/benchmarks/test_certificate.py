"""A certificate holds until anything it is bound to changes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_builds import write_build

from edgekd.benchmarks import certificate, check_certificate, parity_report, run_parity
from edgekd.bundle import Bundle, Recording
from edgekd.errors import InputError, IntegrityError, UsageError


@pytest.fixture
def issued(bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path) -> Path:
    """The certificate of a build that passed."""
    add_build("onnx")
    path = tmp_path / "certificate.json"
    assert run_parity(bundle, data=data, certificate=path, quiet=True).passed
    return path


def test_it_holds_where_nothing_changed_and_says_what_it_is_bound_to(issued: Path, bundle: Bundle) -> None:
    content = json.loads(issued.read_text())
    assert (content["schema"], content["schema_version"]) == ("edgekd.certificate", 3)
    bonds = content["bound_to"]
    assert bonds["manifest_sha256"] == bundle.manifest_sha256
    assert list(bonds["builds"]) == ["onnx-fp32-cpu"]
    assert bonds["machine"]["libraries"]["numpy"]
    assert bonds["machine"]["cpu"]["model"]
    assert bonds["builds"]["onnx-fp32-cpu"]["engine"] == {"precision_effective": "fp32"}
    assert content["doubts"] == []
    assert check_certificate(issued, bundle).holds


def test_what_makes_the_verdicts_say_less_is_in_it(
    issued: Path, bundle: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubts, path = ["the student hardly finds"], tmp_path / "doubted.json"
    monkeypatch.setattr(parity_report, "describe_doubts", lambda _: doubts)
    report = run_parity(bundle, data=data, certificate=path, quiet=True)
    assert json.loads(path.read_text())["doubts"] == report.to_dict()["doubts"] == doubts
    assert check_certificate(path, bundle).holds


def _change_library(environment: dict[str, Any]) -> None:
    environment["libraries"]["numpy"] = "0.0.1"


def _change_processor(environment: dict[str, Any]) -> None:
    environment["cpu"]["model"] = "another processor"


def _change_governor(environment: dict[str, Any]) -> None:
    environment["cpu"]["governor"] = "powersave"


def _change_power_mode(environment: dict[str, Any]) -> None:
    environment["jetson"] = {"release": "R36", "power_mode": "NV Power Mode: 15W"}


def _change_driver(environment: dict[str, Any]) -> None:
    environment["gpu"] = {"name": "a GPU", "driver_version": "1.0", "temperature.gpu": "40"}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (_change_library, "machine.libraries.numpy"),
        (_change_processor, "machine.cpu.model"),
        (_change_governor, "machine.cpu.governor"),
        (_change_power_mode, "machine.jetson"),
        (_change_driver, "machine.gpu"),
    ],
)
def test_any_change_of_the_machine_voids_it(
    issued: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, change: Callable, place: str
) -> None:
    environment = copy.deepcopy(certificate.describe_environment())
    change(environment)
    monkeypatch.setattr(certificate, "describe_environment", lambda: environment)
    check = check_certificate(issued, bundle)
    assert not check.holds
    assert [text.split(" was ")[0] for text in check.changes] == [place]


def test_temperature_and_training_libraries_do_not_void_it(
    issued: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = copy.deepcopy(certificate.describe_environment())
    environment["libraries"]["torch"] = "9.9"
    environment["measured_at"] = "later"
    monkeypatch.setattr(certificate, "describe_environment", lambda: environment)
    assert check_certificate(issued, bundle).holds
    hot, cool = ({"name": "a GPU", "temperature.gpu": value} for value in ("80", "40"))
    assert certificate.describe_machine({"gpu": hot}) == certificate.describe_machine({"gpu": cool})


def test_another_build_voids_it(issued: Path, bundle: Bundle) -> None:
    fields = {"target": "onnx", "precision_asked": "fp32", "precision_effective": "fp32", "device": "CPU"}
    write_build(bundle, **fields, status="run", files={"deploy.onnx": b"another graph"}, facts={})
    changes = check_certificate(issued, bundle).changes
    assert [text.split(" was ")[0] for text in changes] == ["builds.onnx-fp32-cpu.build_sha256"]


def test_another_engine_version_voids_it(
    issued: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    engine = sys.modules["edgekd_test_engines"].ThresholdEngine
    monkeypatch.setattr(engine, "facts", lambda self: {"precision_effective": "bf16", "version": "2"})
    changes = check_certificate(issued, bundle).changes
    assert {text.split(" was ")[0] for text in changes} == {
        "builds.onnx-fp32-cpu.engine.precision_effective",
        "builds.onnx-fp32-cpu.engine.version",
    }


def test_a_build_that_is_gone_voids_it(issued: Path, bundle: Bundle) -> None:
    import shutil

    shutil.rmtree(bundle.path / "builds")
    (change,) = check_certificate(issued, bundle).changes
    assert "holds no onnx build" in change


def test_a_changed_certificate_is_refused(issued: Path, bundle: Bundle) -> None:
    content = json.loads(issued.read_text())
    content["results"][0]["num_images"] = 2400
    issued.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="changed after"):
        check_certificate(issued, bundle)
    # Numbers that no certificate is written with, and that a reader of JSON takes all the same.
    for number in (float("nan"), float("inf")):
        content["results"][0]["num_images"] = number
        issued.write_text(json.dumps(content))
        with pytest.raises(IntegrityError, match="changed after"):
            check_certificate(issued, bundle)
    content["schema_version"] = 9
    issued.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="newer"):
        check_certificate(issued, bundle)
    issued.write_text("{}")
    with pytest.raises(InputError, match="no certificate"):
        check_certificate(issued, bundle)


def test_a_changed_file_that_no_engine_reads_gives_none(
    bundle: Bundle, data: Path, reference: Recording, tmp_path: Path
) -> None:
    made = tmp_path / "core.onnx"
    made.write_bytes(b"whole")
    facts = {"target": "onnx", "precision_asked": "fp32", "precision_effective": "fp32", "device": "CPU"}
    build = write_build(bundle, **facts, status="run", files={"core.onnx": made}, facts={})
    path = tmp_path / "certificate.json"
    (build.path / "core.onnx").write_bytes(b"broken")
    with pytest.raises(IntegrityError, match=r"core\.onnx"):
        run_parity(bundle, data=data, certificate=path, quiet=True)
    assert not path.exists()
    assert run_parity(bundle, data=data, quiet=True).passed


def test_golden_frames_and_failures_give_none(
    bundle: Bundle,
    add_build: Callable,
    data: Path,
    reference: Recording,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_build("openvino")
    path = tmp_path / "certificate.json"
    with pytest.raises(UsageError, match="golden frames"):
        run_parity(bundle, certificate=path)
    assert not run_parity(bundle, data=data, certificate=path).passed
    assert "no certificate was written" in capsys.readouterr().err
    assert not path.exists()
