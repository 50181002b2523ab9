"""``edgekd parity`` from the command line: every exit code, each failure with its line and its JUnit case."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from edgekd import cli
from edgekd.bundle import Bundle, Recording, save_recording
from edgekd.data import find_cases, hash_cases

runner = CliRunner()


class Gate:
    """The command on one bundle and data set."""

    def __init__(self, bundle: Bundle, data: Path, folder: Path) -> None:
        self.bundle, self.data, self.folder = bundle, data, folder

    def run(self, *arguments: object, data: bool = True) -> Result:
        words = ["parity", self.bundle.path, *(["--data", self.data] if data else []), *arguments]
        return runner.invoke(cli.app, [str(word) for word in (*words, "--junit", self.junit)])

    @property
    def junit(self) -> Path:
        return self.folder / "junit.xml"

    def read_faults(self) -> list[str]:
        root = ET.parse(self.junit).getroot()
        return [str(one.get("message")) for kind in ("failure", "error") for one in root.iter(kind)]

    def save(self, recording: Recording, **changes: Any) -> Path:
        path = self.folder / "changed.npz"
        save_recording(path, dataclasses.replace(recording, **changes))
        return path


@pytest.fixture
def gate(bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path) -> Gate:
    """A bundle with a faithful build, its data and its reference."""
    add_build("onnx")
    return Gate(bundle, data, tmp_path)


def assert_failed(gate: Gate, done: Result, exit_code: int, part: str) -> None:
    assert done.exit_code == exit_code, (done.stdout, done.stderr)
    said = done.stdout + done.stderr
    assert part in said, said
    assert "Traceback" not in said
    assert any(part in fault for fault in gate.read_faults()), gate.read_faults()


def test_0_where_all_pass_and_the_certificate_holds(gate: Gate, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.json"
    done = gate.run("--certificate", certificate, "--out", tmp_path / "out")
    assert done.exit_code == 0, (done.stdout, done.stderr)
    assert gate.read_faults() == []
    verify = ["parity", str(gate.bundle.path), "--verify", str(certificate)]
    assert runner.invoke(cli.app, verify).exit_code == 0
    # The summary says the verdict in its first line, and no build that did not run has one.
    assert (tmp_path / "out" / "parity.md").read_text().splitlines()[0].endswith(": passed")


def test_1_where_an_engine_does_something_else(gate: Gate, add_build: Callable) -> None:
    add_build("openvino")
    assert_failed(gate, gate.run(), 1, "computes something else")


def test_1_where_a_certificate_is_void(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "certificate.json"
    assert gate.run("--certificate", certificate).exit_code == 0
    engine = sys.modules["edgekd_test_engines"].ThresholdEngine
    monkeypatch.setattr(engine, "facts", lambda self: {"precision_effective": "bf16"})
    done = runner.invoke(cli.app, ["parity", str(gate.bundle.path), "--verify", str(certificate)])
    assert done.exit_code == 1
    assert "is void" in done.stdout
    assert "precision_effective was fp32, is bf16" in done.stdout


def test_1_without_any_image(gate: Gate, reference: Recording) -> None:
    nothing = {"names": (), "groups": (), "logits": None}
    empty = gate.save(reference, truths=reference.truths[:0], masks=reference.masks[:0], **nothing)
    assert_failed(gate, gate.run("--reference", empty), 1, "no image to record")


def test_1_where_the_reference_holds_nan(gate: Gate, reference: Recording) -> None:
    logits = reference.logits.copy()
    logits[7, 0, 3, 3] = np.nan
    spoilt = gate.save(reference, logits=logits)
    assert_failed(
        gate, gate.run("--reference", spoilt), 1, "NaN or infinity in 1 of 24 images, such as 'case07'"
    )


def test_1_where_an_engine_computes_nan(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sys.modules["edgekd_test_engines"].ThresholdEngine
    monkeypatch.setattr(engine, "cut", np.nan)  # whatever is compared with NaN is false: background
    assert_failed(gate, gate.run(), 1, "NaN or overflow inside an engine looks like this")


def test_1_with_fewer_than_twenty_groups(
    gate: Gate, add_build: Callable, reference: Recording, tmp_path: Path
) -> None:
    add_build("openvino")
    criteria = tmp_path / "parity.toml"
    criteria.write_text("min_agreement = 0.1\n")
    groups = tuple(f"p{index % 12}" for index in range(24))
    names = tuple(f"images/{name}.png" for name in reference.names)
    rows = [
        f"{name},{name.replace('images', 'masks')},{group}" for name, group in zip(names, groups, strict=True)
    ]
    (gate.data / "manifest.csv").write_text("\n".join(["image,mask,group", *rows]))
    sha256 = hash_cases(find_cases(gate.data).cases)
    few = gate.save(reference, names=names, groups=groups, data_sha256=sha256)
    done = gate.run("--reference", few, "--target", "openvino", "--config", criteria)
    assert_failed(gate, done, 1, "12 groups decide nothing, at least 20 are needed")
    assert "inconclusive" in done.stdout


def test_2_where_a_margin_cannot_be_meant(gate: Gate) -> None:
    done = gate.run("--margin", "dize=0.01")
    assert_failed(gate, done, 2, "did you mean 'dice'?")


def test_2_without_a_reference(gate: Gate) -> None:
    (gate.bundle.path.parent / "reference.npz").unlink()
    assert_failed(gate, gate.run(), 2, "edgekd evaluate")


def test_3_where_a_named_engine_is_missing(gate: Gate, add_build: Callable) -> None:
    add_build("tensorrt-rtx", device="GPU")
    assert_failed(gate, gate.run("--target", "tensorrt-rtx"), 3, "no such device")


def test_4_where_the_data_are_others(gate: Gate) -> None:
    image = gate.data / "images" / "case03.png"
    pixels = np.asarray(Image.open(image)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    assert_failed(gate, gate.run(), 4, "are not those of the reference")


def test_golden_frames_alone_are_named_agreement(gate: Gate, tmp_path: Path) -> None:
    done = gate.run("--out", tmp_path / "out", data=False)
    assert done.exit_code == 0
    assert "consistent with the golden frames" in done.stdout
    assert "non-inferior" not in done.stdout
    text = (tmp_path / "out" / "parity.md").read_text()
    assert "agreement alone" in text
    content = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert [cell["status"] for cell in content["cells"]] == ["consistent"]


@pytest.fixture
def issued(gate: Gate, tmp_path: Path) -> Path:
    """The certificate of the gate's build."""
    path = tmp_path / "certificate.json"
    done = runner.invoke(
        cli.app, ["parity", str(gate.bundle.path), "--data", str(gate.data), "--certificate", str(path)]
    )
    assert done.exit_code == 0, done.stderr
    return path


@pytest.mark.parametrize(
    "options",
    [
        ["--data", "D"],
        ["--reference", "R"],
        ["--target", "onnx"],
        ["--precision", "fp32"],
        ["--device", "CPU"],
        ["--config", "C"],
        ["--margin", "dice=0.02"],
        ["--out", "O"],
        ["--certificate", "N"],
        ["--seed", "1"],
    ],
)
def test_2_for_an_option_that_verify_would_ignore(gate: Gate, issued: Path, options: list[str]) -> None:
    done = gate.run("--verify", issued, *options, data=False)
    assert_failed(
        gate, done, 2, f"--verify runs no gate, so it takes no option of one: received {options[0]}"
    )
    assert gate.read_faults()


def test_verify_answers_in_junit(gate: Gate, issued: Path) -> None:
    done = gate.run("--verify", issued, data=False)
    assert done.exit_code == 0, done.stderr
    assert [case.get("name") for case in ET.parse(gate.junit).getroot().iter("testcase")] == [str(issued)]
    assert gate.read_faults() == []
    gate.junit.unlink()
    content = gate.bundle.path / "builds" / "onnx-fp32-cpu" / "build.json"
    content.write_text(content.read_text().replace('"facts": {}', '"facts": {"more": 1}'))
    done = gate.run("--verify", issued, data=False)
    assert done.exit_code == 1, done.stderr
    assert "build_sha256 was" in gate.read_faults()[0]
