"""int8: the form of each engine, its limits, what is given back to float32, and why it is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime quantises the graphs")

import deep_student
from onnx import TensorProto, numpy_helper

from edgekd.errors import GateFailure
from edgekd.export import int8 as int8_module
from edgekd.export import quantize as quantize_module
from edgekd.export.calibration import Calibration
from edgekd.export.int8 import build_int8
from edgekd.export.judgement import Judgement, judge_logits
from edgekd.export.layers import list_products, read_onnxruntime_layers
from edgekd.export.quantize import Form, find_last_layer, list_float_layers, quantize_core
from edgekd.export.running import run_graph
from edgekd.preprocess import preprocess_frames
from edgekd.runtime.precision import summarise_precision


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    tensors = preprocess_frames(deep_student.draw_frames(12), deep_student.SPEC)
    logits = run_graph(deep_student.build_core(), tensors)[0]
    return Calibration(tensors[:6], tensors[6:], logits[6:].argmax(axis=1).astype(np.uint8))


def test_the_layers_and_their_products() -> None:
    products = list_products(deep_student.build_core())
    assert [(product.name, product.macs // 1024) for product in products] == [
        ("conv_0", 72),
        ("conv_1", 576),
        ("conv_2", 576),
        ("head", 16),
    ]
    assert find_last_layer(deep_student.build_core()) == "head"


def test_the_cpu_form_runs_in_int8_but_for_the_head(calibration: Calibration) -> None:
    core = deep_student.build_core()
    graph = quantize_core(core, calibration.tensors, "cpu")
    layers = read_onnxruntime_layers(graph, list_products(core))
    assert summarise_precision(layers) == ("int8", ["head: fp32"])
    assert summarise_precision(read_onnxruntime_layers(core, list_products(core))) == ("fp32", [])


def test_the_tensorrt_form_is_signed_and_symmetric_with_int8_weights(calibration: Calibration) -> None:
    graph = quantize_core(deep_student.build_core(), calibration.tensors, "tensorrt")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    zeros = [constants[node.input[2]] for node in graph.graph.node if node.op_type == "DequantizeLinear"]
    zeros += [constants[node.input[2]] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    weights = [tensor for tensor in graph.graph.initializer if tensor.name.endswith("weight_1_quantized")]
    assert [tensor.data_type for tensor in weights] == [TensorProto.INT8]
    # What a layer writes stays float: only what a layer reads is rounded.
    quantised = {node.input[0] for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    assert quantised == {"image", "hidden_0", "hidden_1"}


def test_a_small_first_layer_stays_float32_on_processors_alone(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = deep_student.build_core()
    share = (72 + 16) / 1240
    for limit, kept in ((share - 1e-6, ["head"]), (share + 1e-6, ["head", "conv_0"])):
        monkeypatch.setattr(quantize_module, "LARGEST_FLOAT_SHARE", limit)
        assert list_float_layers(core, "cpu") == kept
        assert list_float_layers(core, "tensorrt") == ["head"]
        layers = read_onnxruntime_layers(quantize_core(core, calibration.tensors, "cpu"), list_products(core))
        assert {layer.name for layer in layers if layer.precision == "fp32"} == set(kept)
    monkeypatch.setattr(int8_module, "DECISIVE_SHARE", 0.9)
    assert build_int8(core, calibration, "cpu", quiet=True).facts["float_layers"] == ["head", "conv_0"]


@pytest.mark.parametrize("form", ["cpu", "tensorrt"])
def test_int8_keeps_the_mask_and_says_what_it_was_made_of(calibration: Calibration, form: Form) -> None:
    result = build_int8(deep_student.build_core(), calibration, form, quiet=True)
    assert result.facts["validation"]["passed"]
    assert result.facts["calibration"] == calibration.describe()
    assert result.facts["calibration"]["images"] == 6
    assert result.facts["float_layers"] == ["head"]
    assert result.facts["fallback"] == []
    assert "6 images" in result.notices[0]


def test_the_calibrations_hash_is_that_of_its_frames(calibration: Calibration) -> None:
    other = dataclasses.replace(calibration, tensors=calibration.tensors[::-1].copy())
    assert other.describe()["sha256"] != calibration.describe()["sha256"]


def test_wrongly_normalised_frames_are_refused_with_the_reason(calibration: Calibration) -> None:
    wrong = dataclasses.replace(calibration, tensors=calibration.tensors * np.float32(0.05) + np.float32(0.5))
    with pytest.raises(GateFailure, match=r"\d+% of the validation images' values lie beyond") as caught:
        build_int8(deep_student.build_core(), wrong, "cpu", quiet=True)
    assert "normalisation" in str(caught.value)


def test_the_most_sensitive_layer_goes_back_to_float32(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if nothing but an int8 conv_0 hurt; it does 5.8 % of the products, which is too much to give back.
    def judge(precision: str, reference: Any, candidate: Any, truths: Any) -> Judgement:
        honest = judge_logits(precision, reference, candidate, truths)
        return dataclasses.replace(honest, dice=honest.dice - 0.1 * ("conv_0" not in tried[-1]))

    tried: list[tuple[str, ...]] = []

    def quantize(core: Any, tensors: Any, form: Form, **options: Any) -> Any:
        tried.append(tuple(options.get("float_layers", ())))
        return quantize_core(core, tensors, form, **options)

    monkeypatch.setattr(int8_module, "judge_logits", judge)
    monkeypatch.setattr(int8_module, "quantize_core", quantize)
    # conv_1, which would hurt most, is too large at all times and must not stand in the other's way.
    monkeypatch.setattr(int8_module, "_list_worst", lambda trial, quiet: ["conv_1", "conv_0"])
    with pytest.raises(GateFailure):
        build_int8(deep_student.build_core(), calibration, "cpu", quiet=True)
    monkeypatch.setattr(int8_module, "DECISIVE_SHARE", 0.9)
    result = build_int8(deep_student.build_core(), calibration, "cpu", quiet=True)
    assert result.facts["float_layers"] == ["conv_0", "head"]
    assert [step["layer"] for step in result.facts["fallback"]] == ["conv_0"]
    assert "conv_0" in result.notices[1]


def test_sensitivity_names_the_layer_that_rounding_hurts(calibration: Calibration) -> None:
    core = deep_student.build_core()
    for tensor in core.graph.initializer:
        if tensor.name == "weight_1":
            # One huge pair that cancels, so that the layer's other weights are lost in 7 bits.
            values = numpy_helper.to_array(tensor).copy()
            values[:, 0, 1, 1] += 40
            values[:, 1, 1, 1] -= 40
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    ranking = int8_module._list_worst(int8_module._Trial(core, calibration, "cpu"), quiet=True)
    assert ranking[0] == "conv_1"


def test_logits_that_are_no_numbers_agree_with_nothing() -> None:
    logits = np.zeros((1, 2, 4, 4), np.float32)
    truths = np.zeros((1, 4, 4), np.uint8)
    broken = np.full_like(logits, np.nan)
    assert judge_logits("int8", logits, logits, truths).passed
    assert not judge_logits("int8", logits, broken, truths).passed
