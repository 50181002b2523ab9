"""The layers of a graph that multiply, and the precision ONNX Runtime really runs each of them in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import onnx

from edgekd.atomic import temporary_folder
from edgekd.runtime.precision import Layer

_INT8_WEIGHT_INPUT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "ConvInteger": 1, "MatMulInteger": 1}
_QUANTISED_SUFFIX = "_quantized"


class Product(NamedTuple):
    """A convolution or matrix product of a graph.

    Attributes:
        name: of its node.
        weight: name of its weights, or of its second factor.
        macs: multiply-accumulates for one image.
    """

    name: str
    weight: str
    macs: int


def list_products(core: onnx.ModelProto) -> list[Product]:
    """Return the convolutions and matrix products of a core graph in its order.

    Sizes come from ONNX's shape inference for a batch of one; a product whose size stays unknown is left out.
    """
    single = onnx.ModelProto()
    single.CopyFrom(core)
    for value in (*single.graph.input, *single.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    # Sizes that were found for any batch would stand beside those for one.
    del single.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if dims and all(dims):
            shapes[value.name] = tuple(dims)
    products: list[Product] = []
    for node in core.graph.node:
        macs = _count_macs(node, shapes)
        if macs is not None:
            products.append(Product(node.name, node.input[1], macs))
    return products


def read_onnxruntime_layers(model: onnx.ModelProto, products: Sequence[Product]) -> list[Layer]:
    """Return the precision of each product in the graph that ONNX Runtime's processor backend executes.

    Args:
        model: the graph to be run.
        products: those of the float32 graph that it was made from.
    """
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with temporary_folder() as folder:
        path = folder / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        executed = onnx.load(path)
    weights = {
        node.input[_INT8_WEIGHT_INPUT[node.op_type]].removesuffix(_QUANTISED_SUFFIX)
        for node in executed.graph.node
        if node.op_type in _INT8_WEIGHT_INPUT
    }
    return [
        Layer(product.name, "int8" if product.weight in weights else "fp32", product.macs)
        for product in products
    ]


def _count_macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int | None:
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return None
    names = (node.input[0], node.input[1], node.output[0])
    if any(name not in shapes for name in names):
        return None
    data, weights, result = (shapes[name] for name in names)
    if node.op_type == "Conv":
        return math.prod(weights) * math.prod(result[2:])
    if node.op_type == "ConvTranspose":
        return math.prod(weights) * math.prod(data[2:])
    return math.prod(result) * data[-1]
