from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.bundle import Bundle, find_build, list_builds
from edgekd.errors import EdgeKDError, MachineError
from edgekd.export import tensorrt as builder
from edgekd.export.tensorrt import choose_architectures, pick_library
from edgekd.export.tensorrt_engine import build_engine
from edgekd.export.tensorrt_network import parse_network
from edgekd.preprocess.device import CudaDevice, find_device
from edgekd.specs import PreprocessSpec

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")

SPEC = PreprocessSpec(height=32, width=48)
NO_DRIVER = MachineError("no NVIDIA driver on this machine")


def refuse_device(index: int = 0) -> CudaDevice:
    raise NO_DRIVER


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "find_device", refuse_device)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small engine graph: float image with a dynamic batch in, uint8 mask out."""
    return write_graph(tmp_path_factory.mktemp("graph") / "engine.onnx")


def write_graph(path: Path, shape: tuple[Any, ...] = ("N", 1, 32, 48), head: str = "ArgMax") -> Path:
    helper, types = onnx.helper, onnx.TensorProto
    weight = helper.make_tensor("weight", types.FLOAT, (2, 1, 3, 3), [0.1 * i for i in range(18)])
    axis = {"axis": 1, "keepdims": 0} if head == "ArgMax" else {}
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["logits"], pads=[1, 1, 1, 1]),
        helper.make_node(head, ["logits"], ["index"], **axis),
        helper.make_node("Cast", ["index"], ["mask"], to=types.UINT8),
    ]
    image = helper.make_tensor_value_info("image", types.FLOAT, shape)
    mask = helper.make_tensor_value_info("mask", types.UINT8, None)
    graph = helper.make_graph(nodes, "engine", [image], [mask], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def test_plan_and_facts_of_a_real_build(graph: Path) -> None:
    engine = build_engine(parse_network(rtx, graph), "tensorrt-rtx", "fp32", [86, 120])
    assert engine.plan.startswith(b"vtrt") and len(engine.plan) > 1000
    assert engine.timing_cache is None
    facts = engine.facts
    assert facts["library"] == f"tensorrt_rtx {rtx.__version__}"
    assert facts["architectures"] == [86, 120]
    assert facts["inputs"] == {"image": [1, 1, 32, 48]}
    assert facts["precision"]["effective"] == "fp32" and facts["layers"] >= 3
    assert facts["strongly_typed"] is True and facts["tf32"] is False
    assert facts["command"] == (
        "tensorrt_rtx --onnx=engine.onnx --saveEngine=student.engine --noTF32 "
        "--shapes=image:1x1x32x48 --computeCapabilities=86,120"
    )


@pytest.mark.filterwarnings("ignore:.*[Tt]iming.*:DeprecationWarning")
def test_timing_cache_is_kept_and_taken_up_again(graph: Path) -> None:
    first = build_engine(parse_network(rtx, graph), "tensorrt", "fp32", [86])
    assert first.timing_cache
    parsed = parse_network(rtx, graph)
    second = build_engine(parsed, "tensorrt", "fp32", [86], timing_cache=first.timing_cache)
    assert second.plan and second.timing_cache


def test_static_graph_needs_no_shapes(tmp_path: Path) -> None:
    static = write_graph(tmp_path / "engine.onnx", (1, 1, 32, 48))
    facts = build_engine(parse_network(rtx, static), "tensorrt-rtx", "fp32", [86]).facts
    assert facts["inputs"] == {"image": [1, 1, 32, 48]} and "--shapes" not in facts["command"]


@pytest.mark.parametrize("shape", [("N", 1, "H", 48), (4, 1, 32, 48)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    with pytest.raises(EdgeKDError, match="another shape than"):
        parse_network(rtx, write_graph(tmp_path / "engine.onnx", shape))


def test_parser_errors_become_the_message(tmp_path: Path) -> None:
    unknown = write_graph(tmp_path / "engine.onnx", head="NoSuchOperator")
    with pytest.raises(EdgeKDError, match=r"parser refuses engine.onnx.*NoSuchOperator"):
        parse_network(rtx, unknown)


def test_refused_gpu_carries_the_log(graph: Path) -> None:
    current = int(rtx.ComputeCapability.CURRENT)
    with pytest.raises(EdgeKDError, match=r"refuses sm_1.*the number of compute capabilities must be 1"):
        build_engine(parse_network(rtx, graph), "tensorrt-rtx", "fp32", [86, current])


def test_build_failure_carries_the_log(graph: Path) -> None:
    try:
        pytest.skip(f"a build for the GPU at hand succeeds on {find_device().name}")
    except MachineError:
        current = int(rtx.ComputeCapability.CURRENT)
    with pytest.raises(EdgeKDError, match=r"could not build engine.onnx.*CUDA"):
        build_engine(parse_network(rtx, graph), "tensorrt-rtx", "fp32", [current])


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_rtx_builds_and_says_so() -> None:
    target, library, device, notices = pick_library("tensorrt")
    assert (target, library, device) == ("tensorrt-rtx", rtx, None)
    assert "no NVIDIA driver" in notices[0] and "TensorRT-RTX" in notices[0]
    assert pick_library("tensorrt-rtx")[3] == []


def test_with_a_gpu_and_its_library_tensorrt_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    orin = CudaDevice(0, "Orin", 87, (12, 6))
    full = object()
    monkeypatch.setattr(builder, "find_device", lambda: orin)
    monkeypatch.setattr(builder, "import_library", {"tensorrt": full}.__getitem__)
    assert pick_library("tensorrt") == ("tensorrt", full, orin, [])
    assert choose_architectures(full, "tensorrt", orin, None) == [87]
    assert choose_architectures(full, "tensorrt", orin, ["8.7"]) == [87]
    with pytest.raises(MachineError, match="sm_89"):
        choose_architectures(full, "tensorrt", orin, ["89"])


@pytest.mark.usefixtures("no_gpu")
def test_without_any_library_the_first_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(target: str) -> Any:
        raise MachineError(f"{target} is missing")

    monkeypatch.setattr(builder, "import_library", refuse)
    with pytest.raises(MachineError, match="no NVIDIA driver"):
        pick_library("tensorrt")
    with pytest.raises(MachineError, match="tensorrt-rtx is missing"):
        pick_library("tensorrt-rtx")


def test_architectures_of_rtx() -> None:
    default = choose_architectures(rtx, "tensorrt-rtx", None, None)
    assert {80, 86, 89, 120} <= set(default) and min(default) == 80
    assert choose_architectures(rtx, "tensorrt-rtx", None, ["sm_120", 75, "75"]) == [75, 120]
    with pytest.raises(MachineError, match=r"sm_87.*expected.*sm_86.*copy the bundle to the device"):
        choose_architectures(rtx, "tensorrt-rtx", None, ["87"])


@pytest.mark.usefixtures("no_gpu")
def test_bundle_gets_engine_and_preprocessing(
    tmp_path: Path, graphed_student: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from edgekd.export import export_bundle

    bundle = graphed_student(tmp_path / "tiny.edgekd", SPEC)
    export_bundle(bundle, ["tensorrt"], sm=["86"], quiet=True)
    build = find_build(bundle, "tensorrt-rtx")
    assert build.name == "tensorrt-rtx-fp32-gpu" and build.record.status == "built, not run"
    assert set(build.record.files) == {
        "engine.onnx", "student.engine", "kernels.cu", "preprocess.ptx", "preprocess.sm_86.cubin"
    }  # fmt: skip
    assert build.resolve_file("student.engine").read_bytes().startswith(b"vtrt")
    facts = build.record.facts
    assert facts["preprocess_sha256"] == SPEC.compute_hash()
    assert [module["architecture"] for module in facts["kernels"]["modules"]] == [86, 86]
    assert any("no NVIDIA driver" in notice for notice in facts["notices"])
    assert any(facts["engine"]["command"] in notice for notice in facts["notices"])


@pytest.mark.usefixtures("no_gpu")
def test_without_nvrtc_nothing_is_written(bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.export import export_bundle, kernels

    def refuse() -> Any:
        raise MachineError("NVRTC, the compiler of the CUDA preprocessing, is missing")

    monkeypatch.setattr(kernels, "find_compilers", refuse)
    before = [build.name for build in list_builds(bundle_copy)]
    with pytest.raises(MachineError, match="NVRTC"):
        export_bundle(bundle_copy, ["tensorrt-rtx"], quiet=True)
    assert [build.name for build in list_builds(bundle_copy)] == before
