"""In int8 graphs for processors, pooling, nearest resizing and concatenation work on the integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime quantises the graphs")

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.export import quantize
from edgekd.export.layers import list_products, read_onnxruntime_layers
from edgekd.export.quantize import quantize_core
from edgekd.export.running import run_graph
from edgekd.runtime.precision import summarise_precision

IMAGES = np.random.default_rng(1).normal(size=(6, 1, 32, 32)).astype(np.float32)


def build_core(mode: str = "nearest") -> onnx.ModelProto:
    """Return a U of one step: image → (skip, side, pool → deep → enlarged) → both → logits."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants = [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")]

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def add_layer(name: str, source: str, shape: tuple[int, ...], gain: float) -> None:
        # Biases that count, and activations of quite different ranges on the two sides of the U.
        for part, size in (("weight", shape), ("bias", shape[:1])):
            values = (gain * rng.normal(size=size)).astype(np.float32)
            constants.append(numpy_helper.from_array(values, f"{name}_{part}"))
        add("Conv", [source, f"{name}_weight", f"{name}_bias"], name, pads=[1, 1, 1, 1])

    add_layer("skip_sum", "image", (8, 1, 3, 3), 0.3)
    # Read by others too, it keeps the sign that the Relu takes away; the quantiser clips it where it can.
    add("MaxPool", ["skip_sum"], "pool", kernel_shape=[2, 2], strides=[2, 2])
    add("Relu", ["skip_sum"], "skip")
    add_layer("side_sum", "skip", (8, 8, 3, 3), 0.1)
    add("Relu", ["side_sum"], "side")
    add_layer("deep", "pool", (8, 8, 3, 3), 0.4)
    add("Resize", ["deep", "", "twice"], "enlarged", mode=mode, coordinate_transformation_mode="asymmetric")
    add("Concat", ["enlarged", "skip", "side"], "both", axis=1)
    add_layer("joined_sum", "both", (8, 24, 3, 3), 0.1)
    add("Relu", ["joined_sum"], "joined")
    add_layer("logits", "joined", (2, 8, 3, 3), 0.1)
    return wrap_nodes(nodes, constants)


def wrap_nodes(nodes: list[onnx.NodeProto], constants: list[TensorProto]) -> onnx.ModelProto:
    """Return the core graph ``image`` (N, 1, 32, 32) → ``logits`` (N, 2, 32, 32) of these nodes."""
    image, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 32, 32])
        for name, channels in (("image", 1), ("logits", 2))
    )
    graph = helper.make_graph(nodes, "core", [image], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def find_neighbours(model: onnx.ModelProto, kind: str) -> set[str]:
    """Return the operators right before and behind those of a kind."""
    writers = {name: node.op_type for node in model.graph.node for name in node.output}
    around = [node for node in model.graph.node if node.op_type == kind]
    before = {writers[name] for node in around for name in node.input if name in writers}
    outputs = {name for node in around for name in node.output}
    return before | {node.op_type for node in model.graph.node if outputs & set(node.input)}


def test_nothing_is_made_float_to_be_moved() -> None:
    model = quantize_core(build_core(), IMAGES, "cpu")
    onnx.checker.check_model(model, full_check=True)
    assert find_neighbours(model, "Concat") == {"QuantizeLinear", "Resize", "DequantizeLinear"}
    assert find_neighbours(model, "Resize") == {"QuantizeLinear", "Concat"}
    assert find_neighbours(model, "MaxPool") == {"QuantizeLinear", "DequantizeLinear"}
    # The ranges of what the others read begin at 0 anyway.
    assert [node.name for node in model.graph.node if node.op_type == "Relu"] == ["skip"]
    layers = read_onnxruntime_layers(model, list_products(build_core()))
    assert summarise_precision(layers)[1] == ["logits: fp32"]


def test_a_resize_that_computes_keeps_its_float_steps() -> None:
    model = quantize_core(build_core("linear"), IMAGES, "cpu")
    assert find_neighbours(model, "Resize") == {"DequantizeLinear", "QuantizeLinear"}


@pytest.mark.parametrize(("bounds", "left"), [((0, 1), []), ((0, 100), []), ((0.5, 1), ["clipped"])])
def test_activations_that_the_range_makes_needless_go(
    bounds: tuple[float, float], left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("first", (8, 1, 3, 3)), ("second", (8, 8, 3, 3)), ("last", (2, 8, 3, 3)))
    ]
    limits = zip(("least", "most"), bounds, strict=True)
    constants += [numpy_helper.from_array(np.float32(value), name) for name, value in limits]
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], name="a", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="b"),
        helper.make_node("Conv", ["b", "second"], ["c"], name="c", pads=[1] * 4),
        helper.make_node("Clip", ["c", "least", "most"], ["clipped"], name="clipped"),
        helper.make_node("Conv", ["clipped", "last"], ["logits"], name="logits", pads=[1] * 4),
    ]
    core = wrap_nodes(nodes, constants)
    model = quantize_core(core, IMAGES, "cpu")
    assert [node.name for node in model.graph.node if node.op_type in ("Relu", "Clip")] == left
    monkeypatch.setattr(quantize, "move_integers", lambda model: None)
    expected = run_graph(quantize_core(core, IMAGES, "cpu"), IMAGES)[0]
    np.testing.assert_allclose(run_graph(model, IMAGES)[0], expected, atol=1e-4 * np.abs(expected).max())


def test_tensors_that_meet_share_one_range_that_holds_them() -> None:
    model = quantize_core(build_core(), IMAGES, "cpu")
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    pairs = [
        (constants[f"{name}_scale"], constants[f"{name}_zero_point"])
        for name in ("deep", "skip", "side", "both")
    ]
    assert pairs == pairs[:1] * 4
    scale, zero = (float(value) for value in pairs[0])
    values = run_graph(build_core(), IMAGES, ["deep", "skip", "side"])
    ends = min(array.min() for array in values), max(array.max() for array in values)
    np.testing.assert_allclose([-zero * scale, (255 - zero) * scale], ends, atol=scale)


def test_biases_keep_their_values_at_the_scale_of_their_products() -> None:
    model = quantize_core(build_core(), IMAGES, "cpu")
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    source = {one.name: numpy_helper.to_array(one) for one in build_core().graph.initializer}
    writers = {name: node for node in model.graph.node for name in node.output}
    for name in ("skip_sum", "side_sum", "deep", "joined_sum"):
        image, weights, bias = (writers[one].input for one in writers[name].input)
        np.testing.assert_array_equal(constants[bias[1]], constants[image[1]] * constants[weights[1]])
        kept = constants[bias[0]] * constants[bias[1]]
        np.testing.assert_allclose(kept, source[f"{name}_bias"], atol=constants[bias[1]].max())


@pytest.mark.parametrize("optimise", [True, False])
def test_the_logits_stay_close_to_those_of_float(optimise: bool) -> None:
    truth = run_graph(build_core(), IMAGES)[0]
    found = run_graph(quantize_core(build_core(), IMAGES, "cpu"), IMAGES, optimise=optimise)[0]
    # 0.015 with ranges of their own: those of the two sides of the U differ much here.
    assert np.sqrt(np.mean((found - truth) ** 2)) / truth.std() < 0.04


def test_openvino_gives_the_logits_of_onnx_runtime() -> None:
    openvino = pytest.importorskip("openvino")
    model = quantize_core(build_core(), IMAGES, "cpu")
    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = run_graph(model, IMAGES)[0]
    difference = np.abs(compiled({0: IMAGES})[0] - expected)
    assert difference.max() < 0.05 * np.abs(expected).max()
