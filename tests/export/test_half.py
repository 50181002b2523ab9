"""Half precision: what overflows is found by running and stays float32, or is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime runs the graphs")

import deep_student
from onnx import TensorProto, numpy_helper

from edgekd.errors import GateFailure
from edgekd.export.half import convert_to_half
from edgekd.export.running import run_graph
from edgekd.preprocess import preprocess_frames


@pytest.fixture(scope="module")
def tensors() -> np.ndarray:
    return preprocess_frames(deep_student.draw_frames(4), deep_student.SPEC)


def test_everything_becomes_half_where_nothing_is_large(tensors: np.ndarray) -> None:
    core = deep_student.build_core()
    half = convert_to_half(core, tensors)
    assert half.float_nodes == ()
    kinds = {tensor.data_type for tensor in half.core.graph.initializer}
    assert kinds == {TensorProto.FLOAT16}
    assert {
        value.type.tensor_type.elem_type for value in (*half.core.graph.input, *half.core.graph.output)
    } == {TensorProto.FLOAT16}
    expected = run_graph(core, tensors)[0]
    found = run_graph(half.core, tensors.astype(np.float16))[0]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=0.02)


def test_one_frame_of_many_that_overflows_is_enough(
    tensors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = deep_student.move_out_of_range(deep_student.build_core(), 5e3)
    monkeypatch.setattr("edgekd.export.running.BATCH", 1)
    assert convert_to_half(core, tensors).float_nodes == ()
    bright = np.concatenate([tensors[:2], 50 * tensors[2:3], tensors[3:]])
    assert convert_to_half(core, bright).float_nodes


def test_the_simulation_computes_what_half_computes(tensors: np.ndarray) -> None:
    half = convert_to_half(deep_student.build_core(), tensors)
    simulated = run_graph(half.simulation, tensors)[0]
    real = run_graph(half.core, tensors.astype(np.float16))[0].astype(np.float32)
    # One unit in the last place of numbers around 16.
    np.testing.assert_allclose(simulated, real, atol=2**-6)
    assert np.abs(simulated - run_graph(deep_student.build_core(), tensors)[0]).max() > 0


def test_a_planted_overflow_is_repaired(tensors: np.ndarray) -> None:
    core = deep_student.move_out_of_range(deep_student.build_core(), 3e5)
    half = convert_to_half(core, tensors)
    assert half.float_nodes == ("conv_1", "relu_1", "conv_2")
    # Between two layers in float32 nothing passes through half.
    found = run_graph(half.core, tensors.astype(np.float16))[0].astype(np.float32)
    np.testing.assert_allclose(found, run_graph(core, tensors)[0], atol=0.02)


def test_logits_beyond_half_stay_float32(tensors: np.ndarray) -> None:
    core = copy.deepcopy(deep_student.build_core())
    last = core.graph.node[-1]
    for tensor in core.graph.initializer:
        if tensor.name in last.input:
            values = numpy_helper.to_array(tensor) * np.float32(1e6)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    half = convert_to_half(core, tensors)
    assert last.name in half.float_nodes
    found = run_graph(half.core, tensors.astype(np.float16))[0]
    assert found.dtype == np.float32 and np.isfinite(found).all()
    expected = run_graph(core, tensors)[0]
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_allclose(
        run_graph(half.simulation, tensors)[0], found, atol=1e-3 * np.abs(expected).max()
    )


def test_an_overflow_that_no_frame_showed_is_infinite_in_the_simulation(tensors: np.ndarray) -> None:
    core = deep_student.move_out_of_range(deep_student.build_core(), 3e4)
    blind = convert_to_half(core, np.full_like(tensors[:1], -1.9))
    assert "relu_1" not in blind.float_nodes
    assert not np.isfinite(run_graph(blind.simulation, tensors)[0]).all()


def test_an_image_that_half_cannot_hold_is_refused(tensors: np.ndarray) -> None:
    with pytest.raises(GateFailure, match="does not fit half precision"):
        convert_to_half(deep_student.build_core(), tensors * 1e5)


def test_a_float32_image_that_half_cannot_hold_is_read_in_float32(tensors: np.ndarray) -> None:
    core, bright = deep_student.build_core(), tensors * 1e5
    for tensor in core.graph.initializer:
        if tensor.name == "weight_0":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 1e5, tensor.name))
    half = convert_to_half(core, bright, half_image=False)
    assert half.float_nodes == ("conv_0",)
    expected = run_graph(core, bright)[0]
    for graph in (half.core, half.simulation):
        np.testing.assert_allclose(run_graph(graph, bright)[0].astype(np.float32), expected, atol=0.02)


def test_a_student_without_numbers_is_refused(tensors: np.ndarray) -> None:
    core = deep_student.build_core()
    for tensor in core.graph.initializer:
        if tensor.name == "bias_1":
            tensor.CopyFrom(numpy_helper.from_array(np.full(8, np.nan, np.float32), tensor.name))
    with pytest.raises(GateFailure, match="no numbers in half precision"):
        convert_to_half(core, tensors)
