"""A student of conv, batch norm, ReLU, conv: written and judged without torch, and its form in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN = 4
BATCH_NORM_EPSILON = 1e-5
Weights = dict[str, NDArray[Any]]


def build_weights(in_channels: int, num_classes: int, seed: int = 2) -> Weights:
    """Return seeded weights under the names of `build_tiny_student`'s state."""
    rng = np.random.default_rng(seed)
    shapes = {
        "0.weight": (HIDDEN, in_channels, 3, 3),
        "1.weight": (HIDDEN,),
        "1.bias": (HIDDEN,),
        "1.running_mean": (HIDDEN,),
        "3.weight": (num_classes, HIDDEN, 1, 1),
        "3.bias": (num_classes,),
    }
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    # Filters that come as opposites, without bias: whatever the frame, its edges meet every class.
    half = HIDDEN // 2
    weights["0.weight"] -= weights["0.weight"].mean(axis=(1, 2, 3), keepdims=True)
    weights["0.weight"][half:] = -weights["0.weight"][:half]
    weights["1.weight"] = 1 + 0.1 * np.abs(weights["1.weight"])
    weights["1.running_var"] = 0.5 + np.abs(weights["1.running_mean"])
    for name in ("1.bias", "1.running_mean", "3.bias"):
        weights[name] *= 0.02
    weights["1.num_batches_tracked"] = np.array(7)
    return weights


def fold_batch_norm(weights: Weights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return filters and bias of the first convolution with its batch norm folded in."""
    factor = weights["1.weight"] / np.sqrt(weights["1.running_var"] + BATCH_NORM_EPSILON)
    filters = weights["0.weight"] * factor[:, None, None, None]
    bias = weights["1.bias"] - weights["1.running_mean"] * factor
    return filters.astype(np.float32), bias.astype(np.float32)


def compute_logits(tensors: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    """Return the student's logits (N, K, h, w) by float64 NumPy alone."""
    height, width = tensors.shape[2:]
    filters, bias = fold_batch_norm(weights)
    padded = np.pad(tensors.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    hidden = sum(
        np.einsum("oi,nihw->nohw", filters[:, :, y, x], padded[:, :, y : y + height, x : x + width])
        for y in range(3)
        for x in range(3)
    )
    hidden = np.maximum(hidden + bias[:, None, None], 0)
    logits = (
        np.einsum("oi,nihw->nohw", weights["3.weight"][:, :, 0, 0], hidden) + weights["3.bias"][:, None, None]
    )
    return logits.astype(np.float32)


def build_tiny_student(in_channels: int, num_classes: int) -> Any:
    """Return the student as a torch module, without its weights."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(in_channels, HIDDEN, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(HIDDEN, eps=BATCH_NORM_EPSILON),
        nn.ReLU(),
        nn.Conv2d(HIDDEN, num_classes, kernel_size=1),
    )


def build_tiny_core(weights: Weights, height: int, width: int) -> Any:
    """Return the student's core graph, written by hand: what `edgekd.export.trace` makes with torch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    filters, bias = fold_batch_norm(weights)
    in_channels, num_classes = filters.shape[1], len(weights["3.bias"])
    values = {"filters": filters, "bias": bias, "head": weights["3.weight"], "head_bias": weights["3.bias"]}
    nodes = [
        helper.make_node("Conv", ["image", "filters", "bias"], ["wide"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["wide"], ["hidden"]),
        helper.make_node("Conv", ["hidden", "head", "head_bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "core",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", in_channels, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", num_classes, height, width])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    core = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(core, full_check=True)
    return core
