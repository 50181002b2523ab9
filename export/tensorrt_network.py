"""The precision of a parsed TensorRT network: strongly typed, the engine computes as its graph says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from edgekd.errors import MachineError
from edgekd.runtime.precision import Layer, summarise_precision

_CLASSES = {"CONVOLUTION": "IConvolutionLayer", "DECONVOLUTION": "IDeconvolutionLayer"}
_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}


def read_network_layers(library: Any, network: Any) -> list[Layer]:
    """Return the convolutions and matrix products of a network with their precision and MACs per image.

    A layer is int8 where everything it multiplies comes out of a dequantisation: that is the pattern which
    TensorRT turns into int8 arithmetic. Otherwise its precision is the dtype it writes.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        network: the parsed ``INetworkDefinition``.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    writers = {layer.get_output(0).name: layer.type.name for layer in layers if layer.num_outputs}
    return list(_list_products(library, layers, writers))


def check_network_precision(asked: str, layers: list[Layer]) -> list[str]:
    """Return the layers of another precision than the asked one, or raise MachineError if those decide."""
    effective, others = summarise_precision(layers)
    if effective != asked:
        raise MachineError(
            f"TensorRT would not compute the student in {asked}",
            received=f"{effective}; in another precision: {', '.join(others)}",
            expected=f"at least 95 % of the multiply-accumulates in {asked}",
            action="export in another precision",
        )
    return others


def _list_products(library: Any, layers: list[Any], writers: dict[str, str]) -> Iterator[Layer]:
    for layer in layers:
        kind = layer.type.name
        if kind not in (*_CLASSES, "MATRIX_MULTIPLY"):
            continue
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        factors = [writers.get(tensor.name) for tensor in inputs if tensor is not None][:2]
        # Weights that are no tensor are constants in the layer, which nobody has quantised.
        is_int8 = len(factors) == 2 and set(factors) == {"DEQUANTIZE"}
        dtype: str = layer.get_output(0).dtype.name
        precision = "int8" if is_int8 else _NAMES.get(dtype, dtype)
        yield Layer(layer.name, precision, _count_macs(library, layer, kind))


def _count_macs(library: Any, layer: Any, kind: str) -> int:
    data, result = tuple(layer.get_input(0).shape), tuple(layer.get_output(0).shape)
    if kind == "MATRIX_MULTIPLY":
        return abs(math.prod(result) * data[-1])
    # The network gives the base class; this is the library's own way to the rest.
    layer.__class__ = getattr(library, _CLASSES[kind])
    kernel = math.prod(layer.kernel_size_nd) * data[1] * result[1] // layer.num_groups
    return kernel * math.prod(result[2:] if kind == "CONVOLUTION" else data[2:])
