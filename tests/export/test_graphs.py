"""The mask head is argmax, ties included; a graph carries its facts and nothing of the workstation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime runs the graphs")

import onnx
import onnxruntime
from onnx import TensorProto, helper

from edgekd.bundle import Bundle, find_build, read_golden
from edgekd.errors import IntegrityError
from edgekd.export.graphs import build_deploy_graph, build_engine_graph
from edgekd.specs import PreprocessSpec


def build_identity_core(channels: int, height: int = 4, width: int = 5) -> Any:
    shape = ["N", channels, height, width]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])],
        "core",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run_graph(graph: Any, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_the_mask_is_the_first_largest_logit(num_classes: int) -> None:
    # Small integers, so that ties are many.
    logits = np.random.default_rng(1).integers(-1, 2, (3, num_classes, 4, 5)).astype(np.float32)
    mask = run_graph(build_engine_graph(build_identity_core(num_classes)), image=logits)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, logits.argmax(axis=1))


def test_openvino_breaks_ties_alike() -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    for num_classes in (2, 3):
        logits = np.random.default_rng(1).integers(-1, 2, (1, num_classes, 4, 5)).astype(np.float32)
        graph = build_engine_graph(build_identity_core(num_classes)).SerializeToString()
        compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        np.testing.assert_array_equal(compiled({0: logits})[0], logits.argmax(axis=1))


def test_the_graphs_have_the_names_and_types_of_the_contract(device_bundle: Bundle) -> None:
    expected = {
        "core.onnx": ("image", TensorProto.FLOAT, ["N", 1, 32, 48], "logits", ["N", 2, 32, 48]),
        "deploy.onnx": ("frame", TensorProto.UINT8, ["N", "H", "W", 1], "mask", ["N", 32, 48]),
        "engine.onnx": ("image", TensorProto.FLOAT, ["N", 1, 32, 48], "mask", ["N", 32, 48]),
    }
    build = find_build(device_bundle, "onnx")
    for name, (source, dtype, shape, result, result_shape) in expected.items():
        graph = onnx.load(build.resolve_file(name))
        (taken,), (given,) = graph.graph.input, graph.graph.output
        assert (taken.name, taken.type.tensor_type.elem_type, read_shape(taken)) == (source, dtype, shape)
        assert (given.name, read_shape(given)) == (result, result_shape)
        assert graph.ir_version <= 10
        assert [entry.version for entry in graph.opset_import] == [18]


def read_shape(value: Any) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_the_facts_travel_in_the_graph(device_bundle: Bundle) -> None:
    graph = onnx.load(find_build(device_bundle, "onnx").resolve_file("deploy.onnx"))
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert facts["edgekd_manifest_sha256"] == device_bundle.manifest_sha256
    assert json.loads(facts["edgekd_classes"]) == ["background", "lesion"]
    assert PreprocessSpec.model_validate_json(facts["edgekd_preprocess"]) == device_bundle.manifest.preprocess


def test_nothing_of_the_workstation_is_in_the_graph(exported_bundle: Bundle) -> None:
    build = find_build(exported_bundle, "onnx")
    for name in build.record.files:
        content = build.resolve_file(name).read_bytes()
        assert b"tiny_student" not in content
        assert str(Path(__file__).parents[2]).encode() not in content
        assert b"site-packages" not in content


def test_the_engine_graph_in_onnx_runtime_gives_openvinos_mask(device_bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    from edgekd.runtime import load

    golden = read_golden(device_bundle)
    engine = onnx.load(find_build(device_bundle, "onnx").resolve_file("engine.onnx"))
    with load(device_bundle, "openvino") as segmenter:
        np.testing.assert_array_equal(
            run_graph(engine, image=golden.tensors), segmenter.segment(list(golden.frames))
        )


def test_a_graph_that_is_no_core_is_refused() -> None:
    core = build_identity_core(2)
    core.graph.output[0].name = "other"
    with pytest.raises(IntegrityError, match="core graph has another form"):
        build_deploy_graph(core, PreprocessSpec(height=4, width=5))
    with pytest.raises(IntegrityError, match="core graph has another form"):
        build_engine_graph(build_engine_graph(build_identity_core(2)))


def test_a_core_for_one_number_of_images_is_refused() -> None:
    core = build_identity_core(2)
    core.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(IntegrityError, match=r"logits \[2, 2, 4, 5\].*any N"):
        build_engine_graph(core)
