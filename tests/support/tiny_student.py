"""A student of two convolutions that needs no torch to be written and judged, and its form in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN = 4


def build_weights(in_channels: int, num_classes: int, seed: int = 2) -> dict[str, NDArray[np.float32]]:
    """Return seeded weights under the names of `build_tiny_student`'s state."""
    rng = np.random.default_rng(seed)
    shapes = {
        "0.weight": (HIDDEN, in_channels, 3, 3),
        "0.bias": (HIDDEN,),
        "2.weight": (num_classes, HIDDEN, 1, 1),
        "2.bias": (num_classes,),
    }
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    # Filters that come as opposites, without bias: whatever the frame, its edges meet every class.
    half = HIDDEN // 2
    weights["0.weight"] -= weights["0.weight"].mean(axis=(1, 2, 3), keepdims=True)
    weights["0.weight"][half:] = -weights["0.weight"][:half]
    weights["0.bias"] *= 0
    weights["2.bias"] *= 0.02
    return weights


def compute_logits(
    tensors: NDArray[np.float32], weights: dict[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return the student's logits (N, K, h, w) by float64 NumPy alone."""
    height, width = tensors.shape[2:]
    padded = np.pad(tensors.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    hidden = sum(
        np.einsum(
            "oi,nihw->nohw", weights["0.weight"][:, :, y, x], padded[:, :, y : y + height, x : x + width]
        )
        for y in range(3)
        for x in range(3)
    )
    hidden = np.maximum(hidden + weights["0.bias"][:, None, None], 0)
    logits = (
        np.einsum("oi,nihw->nohw", weights["2.weight"][:, :, 0, 0], hidden) + weights["2.bias"][:, None, None]
    )
    return logits.astype(np.float32)


def build_tiny_student(in_channels: int, num_classes: int) -> Any:
    """Return the student as a torch module, without its weights."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(in_channels, HIDDEN, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(HIDDEN, num_classes, kernel_size=1),
    )


def build_tiny_core(weights: dict[str, NDArray[np.float32]], height: int, width: int) -> Any:
    """Return the student's core graph, written by hand: what `edgekd.export.trace` makes with torch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    in_channels, num_classes = weights["0.weight"].shape[1], weights["2.bias"].shape[0]
    nodes = [
        helper.make_node("Conv", ["image", "0.weight", "0.bias"], ["wide"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["wide"], ["hidden"]),
        helper.make_node("Conv", ["hidden", "2.weight", "2.bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "core",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", in_channels, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", num_classes, height, width])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    core = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(core, full_check=True)
    return core
