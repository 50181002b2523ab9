from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.bundle import Bundle
from edgekd.errors import EdgeKDError, MachineError
from edgekd.export.tensorrt import build_tensorrt
from edgekd.export.tensorrt_engine import build_engine
from edgekd.export.tensorrt_inspector import inspect_engine, read_inspected_layers
from edgekd.export.tensorrt_network import parse_network, read_network_layers
from edgekd.runtime.precision import Layer
from edgekd.specs import PreprocessSpec

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")

from engine_graphs import MACS, SHAPE, write_engine_graph  # noqa: E402


def build(graph: Path, precision: str) -> dict[str, Any]:
    return build_engine(parse_network(rtx, graph), "tensorrt-rtx", precision, [86]).facts["precision"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("batch", ["N", 1])
def test_every_layer_is_read_with_its_precision_and_macs(tmp_path: Path, precision: str, batch: Any) -> None:
    parsed = parse_network(rtx, write_engine_graph(tmp_path / "engine.onnx", precision, batch=batch))
    layers = read_network_layers(parsed)
    assert layers == [Layer(name, precision, macs) for name, macs in MACS.items()]
    assert parsed.half is (precision == "fp16")
    # Reading leaves the free batch free.
    assert tuple(parsed.network.get_input(0).shape) == parsed.shape == (-1 if batch == "N" else 1, *SHAPE)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_facts_hold_what_was_read_back(tmp_path: Path, precision: str) -> None:
    assert build(write_engine_graph(tmp_path / "engine.onnx", precision), precision) == {
        "asked": precision,
        "effective": precision,
        "layers_in_other_precision": [],
        "read_from": "parsed network",
    }


def test_layer_with_float_weights_is_not_int8(tmp_path: Path) -> None:
    graph = write_engine_graph(tmp_path / "engine.onnx", "int8", float_weights=("first", "product"))
    layers = read_network_layers(parse_network(rtx, graph))
    assert [layer.precision for layer in layers] == ["fp32", "int8", "fp32", "int8"]


# Shortened from what TensorRT 10 and 11 print.
def describe(name: str, metadata: str, **tensor: str) -> dict[str, Any]:
    return {"Name": name, "LayerType": "CaskConvolution", "Metadata": metadata, "Inputs": [tensor]}


INSPECTED = {
    "Layers": [
        describe("first + relu", "", **{"Format/Datatype": "Row major linear FP16 format"}),
        describe("__myl_Conv_1", "[ONNX Layer: up]", DataType="Int8", Format="Row major linear"),
        describe("lastly", "[ONNX Layer: lastly]", DataType="Float"),
        "a name only",
    ]
}


def test_inspector_tells_the_precision_of_layers_that_it_names() -> None:
    parsed = [Layer(name, "fp32", 10) for name in ("first", "up", "last")]
    layers, found = read_inspected_layers(json.dumps(INSPECTED), parsed)
    assert [layer.precision for layer in layers] == ["fp16", "int8", "fp32"] and found == 2


LEAN = b"a plan that brings the lean runtime"


class FakeRuntime:
    """Loads every plan but an empty one; its inspector says what the class holds."""

    text = json.dumps(INSPECTED)
    engine_host_code_allowed = False

    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        inspector = SimpleNamespace(get_engine_information=lambda format: self.text)
        is_loaded = plan and (self.engine_host_code_allowed or plan != LEAN)
        return SimpleNamespace(create_engine_inspector=lambda: inspector) if is_loaded else None


def test_engine_that_runs_otherwise_than_its_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = parse_network(rtx, write_engine_graph(tmp_path / "engine.onnx", "int8"))
    monkeypatch.setattr(rtx, "Runtime", FakeRuntime)
    with pytest.raises(MachineError, match="engine inspector, which names 2 of 4 layers: first: fp16"):
        build_engine(parsed, "tensorrt-rtx", "int8", [86], inspect=True)


def test_inspectors_text_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = parse_network(rtx, write_engine_graph(tmp_path / "engine.onnx", "fp16"))
    monkeypatch.setattr(rtx, "Runtime", FakeRuntime)
    monkeypatch.setattr(FakeRuntime, "text", json.dumps({"Layers": INSPECTED["Layers"][:1]}))
    engine = build_engine(parsed, "tensorrt-rtx", "fp16", [86], inspect=True)
    assert engine.details == FakeRuntime.text
    assert engine.facts["precision"]["read_from"] == "engine inspector, which names 1 of 4 layers"


def test_plan_that_cannot_be_loaded_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx, "Runtime", FakeRuntime)
    with pytest.raises(EdgeKDError, match="cannot be loaded here"):
        inspect_engine(rtx, b"", host_code=False)


def test_version_compatible_plan_is_inspected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx, "Runtime", FakeRuntime)
    assert inspect_engine(rtx, LEAN, host_code=True) == FakeRuntime.text
    with pytest.raises(EdgeKDError, match="cannot be loaded here"):
        inspect_engine(rtx, LEAN, host_code=False)


def test_names_of_the_inspector_are_the_librarys() -> None:
    assert hasattr(rtx.ICudaEngine, "create_engine_inspector")
    assert hasattr(rtx.EngineInspector, "get_engine_information") and rtx.LayerInformationFormat.JSON


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_build_has_the_kernel_that_its_engine_reads(
    tmp_path: Path, new_student: Callable[..., Bundle], precision: str
) -> None:
    bundle = new_student(tmp_path / "tiny.edgekd", PreprocessSpec(height=SHAPE[1], width=SHAPE[2]))
    graph = write_engine_graph(tmp_path / "engine.onnx", precision)
    fields, files, _ = build_tensorrt(bundle, graph, "tensorrt-rtx", precision, ["86"])
    assert fields["facts"]["kernels"]["half"] is (precision == "fp16")
    assert fields["precision_asked"] == fields["precision_effective"] == precision
    assert files["engine.onnx"] == graph and files["student.engine"].startswith(b"vtrt")
