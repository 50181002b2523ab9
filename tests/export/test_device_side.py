"""A device completes a bundle from the graphs a workstation traced: without torch, and without onnx."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgekd.bundle import Bundle, find_build

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
