"""What a parsed network computes in is read back; another precision than asked is no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime quantises the graphs")
pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX builds without a GPU")

import deep_student
import tensorrt_rtx as rtx

from edgekd.errors import IntegrityError, MachineError
from edgekd.export.engine_graphs import check_signed
from edgekd.export.graphs import build_engine_graph
from edgekd.export.half import convert_to_half
from edgekd.export.quantize import quantize_core
from edgekd.export.tensorrt_engine import build_engine
from edgekd.export.tensorrt_network import read_network_layers
from edgekd.preprocess import preprocess_frames


@pytest.fixture(scope="module")
def cores() -> dict[str, Any]:
    tensors = preprocess_frames(deep_student.draw_frames(4), deep_student.SPEC)
    core = deep_student.build_core()
    return {
        "fp32": core,
        "fp16": convert_to_half(core, tensors).core,
        "int8": quantize_core(core, tensors, "tensorrt"),
        "unsigned": quantize_core(core, tensors, "cpu"),
    }


def write_engine_graph(core: Any, path: Path) -> Path:
    path.write_bytes(build_engine_graph(core).SerializeToString())
    return path


@pytest.mark.parametrize(("precision", "others"), [("fp32", []), ("fp16", []), ("int8", ["head: fp32"])])
def test_an_engine_computes_in_the_precision_of_its_graph(
    cores: dict[str, Any], tmp_path: Path, precision: str, others: list[str]
) -> None:
    graph = write_engine_graph(cores[precision], tmp_path / "engine.onnx")
    engine = build_engine(rtx, "tensorrt-rtx", graph, [89], precision)
    assert engine.plan
    assert engine.facts["layers_in_other_precision"] == others
    assert engine.facts["image_dtype"] == ("HALF" if precision == "fp16" else "FLOAT")


@pytest.mark.parametrize(("graph", "asked"), [("fp32", "fp16"), ("fp32", "int8"), ("int8", "fp32")])
def test_another_precision_than_asked_is_refused(
    cores: dict[str, Any], tmp_path: Path, graph: str, asked: str
) -> None:
    path = write_engine_graph(cores[graph], tmp_path / "engine.onnx")
    with pytest.raises(MachineError, match=f"would not compute the student in {asked}.*received {graph}"):
        build_engine(rtx, "tensorrt-rtx", path, [89], asked)


def test_the_layers_macs_are_those_of_one_image(cores: dict[str, Any]) -> None:
    builder = rtx.Builder(rtx.Logger(rtx.Logger.ERROR))
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, rtx.Logger(rtx.Logger.ERROR))
    assert parser.parse(build_engine_graph(cores["int8"]).SerializeToString())
    layers = read_network_layers(rtx, network)
    assert [(layer.name, layer.precision, layer.macs // 1024) for layer in layers] == [
        ("conv_0", "int8", 72),
        ("conv_1", "int8", 576),
        ("conv_2", "int8", 576),
        ("head", "fp32", 16),
    ]


def test_unsigned_numbers_never_reach_tensorrt(cores: dict[str, Any]) -> None:
    check_signed(cores["int8"])
    with pytest.raises(IntegrityError, match="unsigned numbers"):
        check_signed(cores["unsigned"])
