"""The device side loads no engine before it is asked for one, and torch never."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgekd.bundle import Bundle

HEAVY = (
    "torch",
    "onnxruntime",
    "openvino",
    "onnx",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "edgekd.models",
    "edgekd.export",
)


def list_loaded(program: str) -> set[str]:
    """Return which of HEAVY a fresh interpreter has loaded after ``program``."""
    report = f"\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program + report], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_importing_loads_no_engine() -> None:
    assert list_loaded("import edgekd.runtime, edgekd.bundle") == set()


@pytest.mark.parametrize(("target", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_segmenting_loads_its_own_engine_alone(device_bundle: Bundle, target: str, package: str) -> None:
    pytest.importorskip(package)
    program = (
        "from edgekd.bundle import Bundle, read_golden\n"
        "from edgekd.runtime import load\n"
        f"bundle = Bundle.open({str(device_bundle.path)!r})\n"
        f"load(bundle, {target!r}).segment(read_golden(bundle).frames)"
    )
    assert list_loaded(program) == {package}
