"""A build whose facts do not fit this machine is refused before a file of it is read, with the command
that makes it anew; each fact is changed in turn."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from fake_cuda import FakeDriver
from fake_onnx_cuda import offer_cuda
from PIL import Image
from written_builds import write_build

from edgekd.bundle import Build, Bundle, find_build, list_builds
from edgekd.console import run_app
from edgekd.errors import EdgeKDError, IntegrityError, MachineError, UsageError
from edgekd.preprocess.device import CudaDevice
from edgekd.runtime import find_obstacle, load
from edgekd.runtime import tensorrt as tensorrt_engine
from edgekd.runtime.base import LoadRequest
from edgekd.runtime.facts import format_rebuild
from edgekd.runtime.onnx_probe import build_probe
from edgekd.runtime.tensorrt_library import describe_platform
from edgekd.specs import PreprocessSpec

ONNX_FACTS = {"ir_version": 10, "opset": 18, "providers": ["CPUExecutionProvider"]}
OPENVINO_FACTS = {"opset": 13}
GPU = CudaDevice(index=0, name="RTX 3060", architecture=86, driver_cuda=(12, 6))
ENGINE = {"library": "tensorrt_rtx 9.9.9", "platform": describe_platform(), "architectures": [86]}
MODULE = {"file": "preprocess.sm_86.cubin", "architecture": 86, "driver_cuda": "12.0"}


@pytest.fixture
def bundle(tmp_path: Path, new_student: Callable[..., Bundle]) -> Bundle:
    return new_student(tmp_path / "tiny.edgekd", PreprocessSpec(height=21, width=33))


def add_build(
    bundle: Bundle, target: str, facts: dict[str, Any], precision: str = "fp32", **changes: str
) -> Build:
    """Add a build none of whose files is a graph or an engine: reading one would fail in another way."""
    names = {
        "onnx": ["deploy.onnx"],
        "openvino": ["deploy.xml", "deploy.bin"],
        "tensorrt-rtx": ["student.engine", MODULE["file"]],
    }
    fields: dict[str, Any] = {"precision_effective": precision, "device": "CPU", **changes}
    return write_build(
        bundle,
        target=target,
        precision_asked=precision,
        status="built, not run",
        files={name: b"no graph" for name in names[target]},
        facts={"preprocess_sha256": bundle.manifest.preprocess.compute_hash(), **facts},
        **fields,
    )


def check_refused(
    build: Build, bundle: Bundle, message: str, monkeypatch: pytest.MonkeyPatch, **where: str
) -> EdgeKDError:
    """Load a build and see it refused before any file of it is resolved."""
    record = build.record
    opened: list[str] = []
    monkeypatch.setattr(Build, "resolve_file", lambda self, name: opened.append(name) or self.path / name)
    with pytest.raises((MachineError, IntegrityError), match=message) as caught:
        load(bundle, record.target, record.precision_asked, **where)
    assert opened == []
    # A device that is not there is no reason to make the same build anew.
    others = {"onnx": "openvino", "openvino": "onnx"}
    target = others[record.target] if "another engine" in str(caught.value) else record.target
    target = "tensorrt" if "build for the GPU" in str(caught.value) else target
    command = f"edgekd export {bundle.path} --target {target} --precision {record.precision_asked}"
    assert command in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"ir_version": 99}, r"does not read the graph.*IR 99, opset 18"),
        ({"opset": 999}, r"does not read the graph.*IR 10, opset 999"),
        ({"providers": ["CUDAExecutionProvider"]}, r"not meant for CPUExecutionProvider"),
    ],
)
def test_onnx_build_for_another_library_or_provider(
    bundle: Bundle, facts: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    build = add_build(bundle, "onnx", {**ONNX_FACTS, **facts})
    obstacle = find_obstacle(build)
    error = check_refused(build, bundle, message, monkeypatch)
    assert (error.exit_code, str(error)) == (3, obstacle)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("GPU", r"no CUDAExecutionProvider here.*elsewhere use --device CPU, or .*--target openvino"),
        ("NPU", "no such device"),
    ],
)
def test_onnx_device_that_is_not_here(
    bundle: Bundle, device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    build = add_build(bundle, "onnx", {})
    assert check_refused(build, bundle, message, monkeypatch, device=device).exit_code == 3


@pytest.mark.parametrize("is_there", [True, False])
def test_int8_of_onnx_is_not_for_a_gpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    pytest.importorskip("onnxruntime")
    if is_there:
        offer_cuda(monkeypatch)
    # Nor is one whose record does not say so.
    build = add_build(bundle, "onnx", {}, "int8")
    error = check_refused(build, bundle, "not meant for CUDAExecutionProvider", monkeypatch, device="GPU")
    assert error.exit_code == 3


@pytest.mark.parametrize(
    ("facts", "device", "message"),
    [
        ({"opset": 999}, "CPU", r"does not read the graph.*opset 999: it knows up to \d+"),
        ({}, "XPU", r"finds no device XPU"),
    ],
)
def test_openvino_build_for_another_library_or_device(
    bundle: Bundle, facts: dict[str, Any], device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    build = add_build(bundle, "openvino", {**OPENVINO_FACTS, **facts}, device=device)
    obstacle = find_obstacle(build)
    error = check_refused(build, bundle, message, monkeypatch, device=device)
    assert (error.exit_code, str(error)) == (3, obstacle)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_openvino_build_in_a_precision_that_the_device_lacks(
    bundle: Bundle, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    read = openvino.Core.get_property

    def get_property(core: Any, *names: Any) -> Any:
        return ["FP32", "WINOGRAD"] if "OPTIMIZATION_CAPABILITIES" in names else read(core, *names)

    monkeypatch.setattr(openvino.Core, "get_property", get_property)
    build = add_build(bundle, "openvino", OPENVINO_FACTS, precision)
    message = f"CPU does not compute in {precision}.*CPU computes in fp32"
    assert check_refused(build, bundle, message, monkeypatch).exit_code == 3
    assert f"does not compute in {precision}" in str(find_obstacle(build))


@pytest.mark.parametrize(("target", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_build_that_computes_otherwise_than_asked(
    bundle: Bundle, target: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    build = add_build(bundle, target, {}, "int8", precision_effective="fp32")
    error = check_refused(build, bundle, "precision it was asked for.*fp32.*int8", monkeypatch)
    assert error.exit_code == 3


@pytest.mark.parametrize(("target", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_build_that_preprocesses_otherwise(
    bundle: Bundle, target: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    build = add_build(bundle, target, {"preprocess_sha256": "0" * 64})
    error = check_refused(
        build, bundle, "preprocessing of the build .* is not that of the bundle", monkeypatch
    )
    assert error.exit_code == 4


@pytest.mark.parametrize(
    ("changes", "module", "message"),
    [
        ({"architectures": [89]}, {}, "other GPUs.*sm_86.*sm_89"),
        ({"library": "tensorrt_rtx 1.0"}, {}, r"another library.*9\.9\.9.*1\.0"),
        ({"platform": "Windows AMD64"}, {}, "another platform"),
        (
            {},
            {"driver_cuda": "13.0"},
            r"no CUDA preprocessing module.*CUDA 12\.6.*from CUDA 13\.0 on",
        ),
    ],
)
def test_tensorrt_build_for_another_gpu_library_or_driver(
    bundle: Bundle,
    changes: dict[str, Any],
    module: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = FakeDriver()
    library = fake_tensorrt.FakeTensorRt(driver, (1, 21, 33), lambda tensors: tensors)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(tensorrt_engine, "find_device", lambda index=0: GPU)
    monkeypatch.setattr(tensorrt_engine, "import_library", lambda target: library)
    monkeypatch.setattr("edgekd.runtime.catalogue._explain_missing_package", lambda entry: None)
    kernels = {"half": False, "modules": [{**MODULE, **module}]}
    build = add_build(
        bundle, "tensorrt-rtx", {"engine": {**ENGINE, **changes}, "kernels": kernels}, device="GPU"
    )
    obstacle = find_obstacle(build)
    assert re.search(message, str(obstacle))
    error = check_refused(build, bundle, message, monkeypatch)
    assert (error.exit_code, str(error)) == (3, obstacle)


@pytest.mark.parametrize(
    ("target", "precision", "other"),
    [
        ("openvino", "fp32", ["onnx", "--precision", "fp32"]),
        ("openvino", "bf16", ["onnx", "--precision", "fp32"]),
        ("onnx", "int8", ["openvino", "--precision", "int8"]),
    ],
)
def test_another_engine_is_another_and_paths_are_quoted(
    new_student: Callable[..., Bundle], tmp_path: Path, target: str, precision: str, other: list[str]
) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[target])
    bundle = new_student(tmp_path / "a student.edgekd")
    add_build(bundle, target, {}, precision)
    with pytest.raises(MachineError) as caught:
        load(bundle, target, precision, device="NPU.7")
    command = str(caught.value.action).partition("another engine, as in: ")[2]
    assert shlex.split(command) == ["edgekd", "export", str(bundle.path), "--target", *other]


@pytest.mark.parametrize(
    ("target", "facts", "options"),
    [
        ("onnx", {"frame_size": [45, 61], "batch": 2}, "--frame-size=45x61 --batch=2"),
        ("openvino", {"frame_size": None, "batch": 8}, "--batch=8"),
        ("tensorrt-rtx", {"engine": {**ENGINE, "batch": [1, 1, 1], "inputs": {"image": [1, 1, 21, 33]}}}, ""),
        (
            "tensorrt-rtx",
            {"engine": {**ENGINE, "batch": [4, 4, 4], "inputs": {"image": [4, 1, 21, 33]}}},
            "--opt-shapes=image:4x1x21x33",
        ),
        (
            "tensorrt-rtx",
            {
                "engine": {
                    **ENGINE,
                    "batch": [1, 2, 8],
                    "inputs": {"image": [2, 1, 21, 33]},
                    "workspace_mib": 64,
                    "version_compatible": True,
                    "hardware_compatible": "ampere+",
                }
            },
            "--min-shapes=image:1x1x21x33 --opt-shapes=image:2x1x21x33 --max-shapes=image:8x1x21x33 "
            "--workspace=64 --version-compatible --hardware-compatible=ampere+",
        ),
    ],
)
def test_the_command_that_makes_a_build_anew_keeps_its_options(
    bundle: Bundle, target: str, facts: dict[str, Any], options: str
) -> None:
    command = format_rebuild(add_build(bundle, target, facts))
    assert command.partition(" --precision fp32")[2].strip() == options


def test_a_cache_that_takes_no_files_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for cache in (tmp_path / "file", Path("/proc")):
        with pytest.raises(UsageError, match=f"the cache {cache} cannot be used"):
            LoadRequest(bundle, "openvino", "fp32", "CPU", cache).prepare_cache()
    assert LoadRequest(bundle, "openvino", "fp32", "CPU").prepare_cache() is None


def test_the_command_that_makes_a_build_anew_is_one_that_a_shell_reads(
    new_student: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = new_student(tmp_path / "it's a student.edgekd")
    words = ["edgekd", "export", str(bundle.path), "--target", "onnx", "--precision", "fp32"]
    with pytest.raises(MachineError) as caught:
        find_build(bundle, "onnx")
    assert shlex.split(str(caught.value.action)) == words
    build = add_build(bundle, "onnx", ONNX_FACTS)
    assert shlex.split(format_rebuild(build)) == words
    (build.path / "build.json").write_text("{")
    with pytest.raises(IntegrityError) as damaged:
        find_build(bundle, "onnx")
    assert shlex.quote(str(build.path)) in str(damaged.value.action)
    assert str(damaged.value.action).endswith(shlex.join(words))


def test_the_command_line_ends_with_3_and_the_command(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    from edgekd import cli

    add_build(bundle, "onnx", {**ONNX_FACTS, "opset": 999})
    image = tmp_path / "frame.png"
    Image.new("L", (40, 30)).save(image)
    arguments = ["predict", str(bundle.path), str(image), "--out", str(tmp_path / "out"), "--target", "onnx"]
    assert run_app(cli.app, [*arguments, "--json"]) == 3
    error = json.loads(capsys.readouterr().out)
    assert f"edgekd export {bundle.path} --target onnx --precision fp32" in json.dumps(error)


def test_the_probe_is_a_valid_model_of_its_stamp() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(build_probe(10, 300))
    assert (model.ir_version, model.opset_import[0].version) == (10, 300)
    onnx.checker.check_model(onnx.load_from_string(build_probe(10, 18)), full_check=True)


def test_exported_builds_record_what_is_checked(device_bundle: Bundle) -> None:
    recorded = {build.record.target: build.record.facts for build in list_builds(device_bundle)}
    assert set(ONNX_FACTS) <= set(recorded["onnx"])
    if "openvino" in recorded:
        assert 1 <= recorded["openvino"]["opset"] <= 16
    assert find_build(device_bundle, "onnx").record.facts["providers"][0] == "CPUExecutionProvider"
