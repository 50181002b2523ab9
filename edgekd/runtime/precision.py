"""The precision an engine really computes in, read back from its compiled graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

# A precision is that of a graph when it does at least this share of the multiplications.
DECISIVE_SHARE = 0.95
# What OpenVINO calls the ability of a device to compute in each precision, and the hint that asks for it.
# Q/DQ in the graph makes int8; the layers around it are float32.
OPENVINO_CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}
OPENVINO_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
# Names of nodes before the network, in a deploy graph, begin so.
PREPROCESS_PREFIX = "preprocess"
_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_CONVOLUTIONS = ("Convolution", "Deconvolution")
_PRODUCTS = ("MatMul", "FullyConnected")


class Layer(NamedTuple):
    """A convolution or matrix product: its precision (``fp32`` …) and its multiply-accumulates per image."""

    name: str
    precision: str
    macs: int


def summarise_precision(layers: Sequence[Layer]) -> tuple[str, list[str]]:
    """Return the precision of at least 95 % of the MACs (else ``mixed``), and the layers of another one.

    Returns:
        The precision (``none`` without any layer) and ``"name: precision"`` for each other layer.
    """
    shares: dict[str, int] = {}
    for layer in layers:
        shares[layer.precision] = shares.get(layer.precision, 0) + layer.macs
    if not shares:
        return "none", []
    leading = max(shares, key=lambda precision: shares[precision])
    decisive = shares[leading] >= DECISIVE_SHARE * sum(shares.values())
    others = [f"{layer.name}: {layer.precision}" for layer in layers if layer.precision != leading]
    return (leading if decisive else "mixed"), others


def read_openvino_layers(model: Any) -> list[Layer]:
    """Return the network's convolutions and matrix products of ``compiled.get_runtime_model()``.

    Those of the preprocessing are left out, as are products whose size is free.
    """
    layers: list[Layer] = []
    for operation in model.get_ordered_ops():
        info = operation.get_rt_info()
        kind = str(info["layerType"].value) if "layerType" in info else ""
        name = operation.get_friendly_name()
        if kind not in (*_CONVOLUTIONS, *_PRODUCTS) or name.startswith(f"{PREPROCESS_PREFIX}/"):
            continue
        shapes = [port.get_partial_shape() for port in (*operation.inputs()[:2], operation.output(0))]
        if any(shape.is_dynamic for shape in shapes):
            continue
        precision = str(info["runtimePrecision"].value)
        macs = _count_macs(kind, *(tuple(shape.to_shape()) for shape in shapes))
        layers.append(Layer(name, _NAMES.get(precision, precision), macs))
    return layers


def _count_macs(kind: str, data: tuple[int, ...], weights: tuple[int, ...], result: tuple[int, ...]) -> int:
    """MACs of one layer for one image; ``data`` is (N, C, h, w) for convolutions, (…, m, k) for products."""
    if kind == "Convolution":
        return math.prod(weights) * math.prod(result[2:])
    if kind == "Deconvolution":
        return math.prod(weights) * math.prod(data[2:])
    return math.prod(result) * data[-1]
