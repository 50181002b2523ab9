"""A device completes a bundle from the graphs a workstation traced: without torch, and without onnx."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys

import pytest

from edgekd.bundle import MIN_AGREEMENT, Bundle, JudgedFrames, find_build, list_builds, read_golden
from edgekd.errors import GateFailure, MachineError
from edgekd.export import agreement, export_bundle

# Stands in for an environment where neither package is installed.
WITHOUT_TRAINING = (
    "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxscript', 'monai', 'safetensors']));"
    "sys.argv[0] = 'edgekd'; from edgekd.cli import main; main()"
)


@pytest.mark.parametrize(
    ("target", "package", "build"),
    [("openvino", "openvino", "openvino"), ("tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx")],
)
def test_bundle_is_completed_without_torch_and_onnx(
    bundle_copy: Bundle, target: str, package: str, build: str
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    before = find_build(bundle_copy, "onnx").record
    command = [sys.executable, "-c", WITHOUT_TRAINING, "export", str(bundle_copy.path), "--target", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert find_build(bundle_copy, build).record.created >= before.created
    assert find_build(bundle_copy, "onnx").record == before


def test_fixed_graphs_need_onnx_and_say_so(bundle_copy: Bundle) -> None:
    options = ["export", str(bundle_copy.path), "--target", "onnx", "--frame-size", "90x100"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRAINING, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "without the package onnx. Next: pip install onnx" in done.stderr


def test_without_graphs_the_workstation_is_named(student_bundle: Bundle) -> None:
    command = [
        sys.executable,
        "-c",
        WITHOUT_TRAINING,
        "export",
        str(student_bundle.path),
        "--target",
        "openvino",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "torch, onnx" in done.stderr
    assert "--target onnx` on the workstation" in done.stderr


def test_build_that_disagrees_with_the_student_leaves_the_one_that_was_there(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    golden, before = read_golden(bundle_copy), list_builds(bundle_copy)
    masks = golden.masks.copy()
    # One pixel in a thousand more than the floor lets pass.
    count = int(masks.size * (1 - MIN_AGREEMENT["fp32"] + 1e-3))
    masks.reshape(-1)[:count] ^= 1
    judged = JudgedFrames(golden.frames, masks, golden.truths)
    monkeypatch.setattr(agreement, "read_judged_frames", lambda *_: judged)
    with pytest.raises(GateFailure, match="disagrees with the PyTorch student"):
        export_bundle(bundle_copy, ["openvino"], quiet=True)
    assert list_builds(bundle_copy) == before
    for build in before:
        build.check_files()
    shutil.rmtree(bundle_copy.path / "builds" / "openvino-fp32-cpu")
    with pytest.raises(GateFailure, match="was not kept"):
        export_bundle(bundle_copy, ["openvino"], quiet=True)
    assert [path.name for path in (bundle_copy.path / "builds").iterdir()] == ["onnx-fp32-cpu"]


@pytest.mark.parametrize(
    ("facts", "names_calib"),
    [
        ({}, False),
        ({"calibration": None}, False),
        ({"calibration": {"data_of_the_student": None}}, False),
        ({"calibration": {"data_of_the_student": True}}, False),
        ({"calibration": {"data_of_the_student": False}}, True),
    ],
)
@pytest.mark.parametrize("golden", [None, "data"])
def test_advice_on_lost_golden_frames_fits_what_they_and_the_calibration_are(
    student_bundle: Bundle, facts: dict[str, object], names_calib: bool, golden: str | None
) -> None:
    manifest = student_bundle.manifest.model_copy(update={"training": {"config": {"golden": golden}}})
    advice = agreement._advise_other(dataclasses.replace(student_bundle, manifest=manifest), facts)
    assert ("--calib" in advice) == names_calib
    assert ("--golden DATA" in advice) == (golden is None)
    assert "export in another precision" in advice


def test_temporary_folder_without_room_is_no_internal_error(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Exception from src/core:\nbasic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", refuse)
    with pytest.raises(MachineError, match=r"could not write.*iostream error.*TMPDIR"):
        export_bundle(bundle_copy, ["openvino"], quiet=True)
