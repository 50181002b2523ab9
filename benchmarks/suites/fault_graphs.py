"""Faults planted in a core graph: weights, and the numbers that half and eight-bit arithmetic make of it.

The reduced precisions are planted as the graph operators that define them (Cast; QuantizeLinear and
DequantizeLinear), so that every engine computes the same wrong thing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekd.export.running import run_graph

Core = onnx.ModelProto
CoreFault = Callable[[Core, NDArray[np.float32]], Core]
LARGEST_HALF = 65504.0
SMALLEST_HALF = 2.0**-24


def run_core(core: Core, tensors: NDArray[np.float32], outputs: list[str] | None = None) -> list[Any]:
    """Return the outputs of a core graph, or other tensors of it by name, for (N, C, h, w) float32."""
    return run_graph(core, tensors, outputs or ())


def change_weights(
    change: Callable[[NDArray[Any]], NDArray[Any]], layer: int, what: str = "weight"
) -> CoreFault:
    """Return a fault that changes weight or bias of the layer-th convolution (negative from the end)."""

    def plant(core: Core, _: NDArray[np.float32]) -> Core:
        changed = copy.deepcopy(core)
        name = list_convolutions(changed)[layer].input[1 if what == "weight" else 2]
        for one in changed.graph.initializer:
            if one.name == name:
                one.CopyFrom(
                    numpy_helper.from_array(change(numpy_helper.to_array(one)).astype(np.float32), name)
                )
        return changed

    return plant


def add_noise(strength: float, layer: int, seed: int = 0) -> CoreFault:
    """Return a fault that adds Gaussian noise of ``strength`` times the weights' deviation to a layer."""

    def change(weights: NDArray[Any]) -> NDArray[Any]:
        rng = np.random.default_rng(seed)
        return weights + strength * weights.std() * rng.standard_normal(weights.shape)

    return change_weights(change, layer)


def shift_threshold(probability: float) -> CoreFault:
    """Return a fault that calls class 1 what has more than ``probability`` instead of one half."""
    shift = -np.log(probability / (1 - probability))
    return change_weights(lambda bias: bias + np.array([0.0, shift]), -1, "bias")


def cast_to_half(layer: int, part: float, *, small: bool = False) -> CoreFault:
    """Return a fault that rounds a layer's result to half precision after moving it out of range.

    The layer's weights are multiplied and those of the next divided by one factor, which changes nothing in
    float32: such a network is as good as before and overflows (or, ``small``, underflows) in half.

    Args:
        layer: index among the convolutions that feed another through a ReLU alone.
        part: of the activations that leave the range.
        small: below the smallest half instead of above the largest.
    """

    def plant(core: Core, tensors: NDArray[np.float32]) -> Core:
        changed = copy.deepcopy(core)
        first, second = _list_chains(changed)[layer]
        values = np.abs(run_core(core, tensors[:8], [first.output[0]])[0])
        if small:
            factor = SMALLEST_HALF / 2 / float(np.quantile(values, part))
        else:
            factor = LARGEST_HALF / float(np.quantile(values, 1 - part))
        _scale(changed, first.input[1:3], factor)
        _scale(changed, second.input[1:2], 1 / factor)
        _insert(
            changed,
            first.output[0],
            [("Cast", {"to": TensorProto.FLOAT16}), ("Cast", {"to": TensorProto.FLOAT})],
        )
        return changed

    return plant


def quantise(
    calibrate: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    *,
    clip_upper_half: bool = False,
    bits: int = 8,
) -> CoreFault:
    """Return the core with weights and activations in eight bits, the ranges from ``calibrate(tensors)``.

    Weights are symmetric by output channel; activations are asymmetric over the whole tensor (min, max).

    Args:
        calibrate: from the calibration set to the tensors really used.
        clip_upper_half: read the unsigned activations as signed with the same scale, as an engine that only
            knows signed ones does: all above 127 steps clips.
        bits: of the weights.
    """

    def plant(core: Core, tensors: NDArray[np.float32]) -> Core:
        changed = copy.deepcopy(core)
        names = list(dict.fromkeys(node.input[0] for node in list_convolutions(changed)))
        inner = [name for name in names if name != "image"]
        used = calibrate(tensors)
        values = dict(zip(inner, run_core(core, used, inner), strict=True)) | {"image": used}
        weights = {node.input[1] for node in list_convolutions(changed)}
        for one in changed.graph.initializer:
            if one.name in weights:
                array = _round_weights(numpy_helper.to_array(one), bits)
                one.CopyFrom(numpy_helper.from_array(array, one.name))
        for name in names:
            _insert_rounding(changed, name, values[name], clip_upper_half)
        return changed

    return plant


def list_convolutions(core: Core) -> list[onnx.NodeProto]:
    """Return the convolutions in the order of the graph."""
    return [node for node in core.graph.node if node.op_type == "Conv"]


def _list_chains(core: Core) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Return pairs of convolutions with nothing but a ReLU between them."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in core.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    pairs: list[tuple[onnx.NodeProto, onnx.NodeProto]] = []
    for node in list_convolutions(core):
        after = readers.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type == "Relu":
            last = readers.get(after[0].output[0], [])
            if len(last) == 1 and last[0].op_type == "Conv":
                pairs.append((node, last[0]))
    return pairs


def _scale(core: Core, names: Any, factor: float) -> None:
    for one in core.graph.initializer:
        if one.name in names:
            array = numpy_helper.to_array(one) * np.float32(factor)
            one.CopyFrom(numpy_helper.from_array(array.astype(np.float32), one.name))


def _insert(core: Core, name: str, steps: list[tuple[str, dict[str, Any]]], inputs: Any = ()) -> None:
    """Put operators between the tensor ``name`` and all that read it."""
    nodes = list(core.graph.node)
    made: list[onnx.NodeProto] = []
    current = name
    for index, (kind, attributes) in enumerate(steps):
        after = f"{name}/planted{index}"
        made.append(helper.make_node(kind, [current, *inputs], [after], **attributes))
        current = after
    for node in nodes:
        for index, used in enumerate(node.input):
            if used == name:
                node.input[index] = current
    place = next((i + 1 for i, node in enumerate(nodes) if name in node.output), 0)
    del core.graph.node[:]
    core.graph.node.extend([*nodes[:place], *made, *nodes[place:]])


def _insert_rounding(core: Core, name: str, values: NDArray[Any], clip_upper_half: bool) -> None:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = max((high - low) / 255, 1e-12)
    kind = np.int8 if clip_upper_half else np.uint8
    zero = 0 if clip_upper_half else round(-low / scale)
    constants = {f"{name}/scale": np.float32(scale), f"{name}/zero": kind(zero)}
    core.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()
    )
    _insert(core, name, [("QuantizeLinear", {}), ("DequantizeLinear", {})], list(constants))


def _round_weights(weights: NDArray[Any], bits: int) -> NDArray[np.float32]:
    steps = 2 ** (bits - 1) - 1
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
    scale = np.maximum(largest, 1e-12) / steps
    return (np.round(weights / scale) * scale).astype(np.float32)
