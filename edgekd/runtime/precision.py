"""The precision an engine really computes in, read back from its compiled graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgekd.bundle import NOT_SHOWN

# A precision is that of a graph when it does at least this share of the multiplications.
DECISIVE_SHARE = 0.95
# What OpenVINO calls the ability of a device to compute in each precision, and the hint that asks for it.
# Q/DQ in the graph makes int8; the layers around it are float32.
OPENVINO_CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}
OPENVINO_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
# Names of nodes before the network, in a deploy graph, begin so.
PREPROCESS_PREFIX = "preprocess"
_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_DECONVOLUTIONS = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")
_OPERATIONS = (*_CONVOLUTIONS, *_DECONVOLUTIONS, "MatMul")
# What they are called once compiled; "Gemm" is a GPU's name for a product.
_LAYER_TYPES = ("Convolution", "Deconvolution", "MatMul", "FullyConnected", "Gemm")


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


def list_precisions(capabilities: Sequence[str]) -> list[str]:
    """Return our precisions that a device of OpenVINO computes in, from what the library says of it."""
    return [name for name, capability in OPENVINO_CAPABILITIES.items() if capability in capabilities]


def choose_openvino_hint(precision: str, capabilities: Sequence[str]) -> str:
    """Return the hint that makes a device of OpenVINO compute in a precision.

    Args:
        precision: of the build.
        capabilities: what the library says of the device; NPUs lack ``FP32`` and take no hint ``f32``, so
            that the layers around those in int8 are half there.
    """
    hint = OPENVINO_HINTS[precision]
    return "f16" if hint == "f32" and OPENVINO_CAPABILITIES["fp32"] not in capabilities else hint


def read_openvino_layers(compiled: Any, graph: Any) -> list[Layer]:
    """Return the network's convolutions and matrix products with the precision they are compiled in.

    Multiplications are counted in ``graph``: what is compiled for a GPU shows no weights. A layer of it is
    found by its name or by the names of what was fused into it. Each of those that are not found is taken for
    one of the layers that are left, of mean size; what is left then is ``not shown``. Layers of the
    preprocessing are left out.

    Args:
        compiled: ``compiled.get_runtime_model()``.
        graph: the model that was compiled, in the shapes it was compiled for.

    Returns:
        The layers; none where the device shows none, as an NPU does.
    """
    macs = _count_graph(graph)
    layers: list[Layer] = []
    unknown: list[Layer] = []
    for operation in compiled.get_ordered_ops():
        info = operation.get_rt_info()
        if "layerType" not in info or str(info["layerType"].value) not in _LAYER_TYPES:
            continue
        name = operation.get_friendly_name()
        names = [name, *_read_original_names(info)]
        if any(one.startswith(f"{PREPROCESS_PREFIX}/") for one in names):
            continue
        precision = str(info["runtimePrecision"].value)
        precision = _NAMES.get(precision, precision)
        found = [macs.pop(one) for one in names if one in macs]
        (layers if found else unknown).append(Layer(name, precision, sum(found)))
    if not macs or not (layers or unknown):
        return layers + unknown
    left = sum(macs.values())
    each = left // max(len(unknown), len(macs))
    hidden = left - each * len(unknown)
    named = [layer._replace(macs=each) for layer in unknown]
    return layers + named + ([Layer("the others", NOT_SHOWN, hidden)] if len(macs) > len(unknown) else [])


def _read_original_names(info: Any) -> list[str]:
    return str(info["originalLayersNames"].value).split(",") if "originalLayersNames" in info else []


def _count_graph(graph: Any) -> dict[str, int]:
    """Return name → MACs for one image of the network's layers; products whose size is free are left out."""
    macs: dict[str, int] = {}
    for operation in graph.get_ordered_ops():
        kind, name = operation.get_type_name(), operation.get_friendly_name()
        if kind not in _OPERATIONS or name.startswith(f"{PREPROCESS_PREFIX}/"):
            continue
        data, weights = (port.get_partial_shape() for port in operation.inputs()[:2])
        result = operation.output(0).get_partial_shape()
        # One multiplication a weight and place of the result, or a place of what is spread out.
        parts = [*(result if kind == "MatMul" else weights), *_list_places(kind, data, result)]
        if not any(part.is_dynamic for part in parts):
            macs[name] = math.prod(part.get_length() for part in parts)
    return macs


def _list_places(kind: str, data: Any, result: Any) -> list[Any]:
    """Return what the weights are multiplied by: (h, w) of (N, C, h, w), or k of products (…, m, k)."""
    if kind == "MatMul":
        return [data[-1]]
    return list(data if kind in _DECONVOLUTIONS else result)[2:]
