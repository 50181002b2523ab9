"""Small engine graphs made by hand: convolution, deconvolution, product and argmax, in each precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 32, 48)
# Multiply-accumulates per image of the layers, by their names in the graph.
MACS = {
    "first": 8 * 1 * 9 * 32 * 48,
    "up": 8 * 4 * 4 * 32 * 48,
    "product": 4 * 32 * 48 * 48,
    "last": 2 * 4 * 9 * 32 * 48,
}


class GraphWriter:
    """Collects the nodes of one graph.

    Args:
        precision: ``fp32``, ``fp16`` or ``int8`` (Q/DQ, signed, zero point 0).
        plain: names of layers that stay unquantised.
        float_weights: names of layers of which only the data is quantised.
        zero_point: of the activations in int8; its dtype is what they are quantised to. None leaves it out.
    """

    def __init__(
        self,
        precision: str,
        plain: tuple[str, ...],
        float_weights: tuple[str, ...],
        zero_point: np.generic | None,
    ) -> None:
        self.float = np.float16 if precision == "fp16" else np.float32
        self.quantized = precision == "int8"
        self.plain, self.float_weights, self.zero_point = plain, float_weights, zero_point
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._rng = np.random.default_rng(0)

    def add_layer(
        self, operator: str, name: str, data: str, shape: tuple[int, ...], **attributes: Any
    ) -> str:
        """Add a layer with drawn weights of ``shape``; returns its output's name."""
        weights = self._rng.normal(scale=0.2, size=shape)
        factor = f"{name}_weights"
        if self.quantized and name not in self.plain:
            data = self._quantize(data)
        if self.quantized and name not in (*self.plain, *self.float_weights):
            axis = 0 if operator == "Conv" else 1
            self._add_constant(f"{factor}_integers", np.clip(weights / 0.01, -127, 127).astype(np.int8))
            self._add_constant(f"{factor}_scale", np.full(shape[axis], 0.01, dtype=np.float32))
            inputs = [f"{factor}_integers", f"{factor}_scale"]
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [factor], axis=axis))
        else:
            self._add_constant(factor, weights.astype(self.float))
        output = f"{name}_output"
        self.nodes.append(helper.make_node(operator, [data, factor], [output], name=name, **attributes))
        return output

    def _quantize(self, data: str) -> str:
        integers, scale, result = f"{data}_integers", f"{data}_scale", f"{data}_dequantized"
        self._add_constant(scale, np.array(0.05, dtype=np.float32))
        point: list[str] = []
        if self.zero_point is not None:
            point = [f"{data}_zero"]
            self._add_constant(point[0], np.asarray(self.zero_point))
        self.nodes.append(helper.make_node("QuantizeLinear", [data, scale, *point], [integers]))
        self.nodes.append(helper.make_node("DequantizeLinear", [integers, scale, *point], [result]))
        return result

    def _add_constant(self, name: str, values: np.ndarray) -> None:
        self.constants.append(numpy_helper.from_array(values, name))


def write_engine_graph(
    path: Path,
    precision: str = "fp32",
    *,
    batch: Any = "N",
    plain: tuple[str, ...] = (),
    float_weights: tuple[str, ...] = (),
    zero_point: np.generic | None = np.int8(0),  # noqa: B008
) -> Path:
    """Write a graph ``image`` (batch, 1, 32, 48) → ``mask`` uint8 (batch, 32, 48); returns its path."""
    writer = GraphWriter(precision, plain, float_weights, zero_point)
    data = writer.add_layer("Conv", "first", "image", (8, 1, 3, 3), pads=[1, 1, 1, 1])
    data = writer.add_layer("ConvTranspose", "up", data, (8, 4, 2, 2), strides=[2, 2])
    writer.nodes.append(
        helper.make_node("AveragePool", [data], ["pooled"], kernel_shape=[2, 2], strides=[2, 2])
    )
    data = writer.add_layer("MatMul", "product", "pooled", (48, 48))
    data = writer.add_layer("Conv", "last", data, (2, 4, 3, 3), pads=[1, 1, 1, 1])
    writer.nodes.append(helper.make_node("ArgMax", [data], ["index"], axis=1, keepdims=0))
    writer.nodes.append(helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8))
    dtype = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    image = helper.make_tensor_value_info("image", dtype, (batch, *SHAPE))
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, (batch, *SHAPE[1:]))
    graph = helper.make_graph(writer.nodes, "engine", [image], [mask], writer.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path
