"""An ONNX graph parsed by TensorRT, and the precision in which its multiplying layers compute."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import EdgeKDError, MachineError
from edgekd.runtime.precision import Layer, summarise_precision
from edgekd.runtime.tensorrt_library import MessageLog

# DataType's names; an output in another type keeps its name, in lower case.
PRECISION_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
MULTIPLYING_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
# They move values without computing: what was dequantised before them still is.
_MOVING_LAYERS = ("SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE")


@dataclass(frozen=True)
class ParsedNetwork:
    """A strongly typed network, and what must live as long as it.

    Attributes:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        graph: the ONNX file.
        log: what the library said.
        builder: the library's ``Builder``.
        network: its ``INetworkDefinition``.
        parser: its ``OnnxParser``, which may own the weights.
        image: name of the one input.
        shape: of the input, -1 where the batch is free.
        half: the input is IEEE half precision.
    """

    library: Any
    graph: Path
    log: MessageLog
    builder: Any
    network: Any
    parser: Any
    image: str
    shape: tuple[int, ...]
    half: bool


def parse_network(library: Any, graph: Path) -> ParsedNetwork:
    """Parse an engine graph: one image (batch, C, h, w) in, C, h and w fixed.

    Raises:
        EdgeKDError: it does not parse, or has other inputs; the message carries the library's log.
    """
    log = MessageLog(library)
    builder = library.Builder(log.logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        texts = "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}".strip() for e in errors)
        raise EdgeKDError(f"TensorRT's parser refuses {graph.name}", received=texts or log.format_errors())
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(inputs) != 1 or len(shapes[0]) != 4 or shapes[0][0] not in (-1, 1) or -1 in shapes[0][1:]:
        raise EdgeKDError(
            "the engine graph has another shape than (batch, C, h, w) with C, h and w fixed",
            received=", ".join(f"{t.name} {shape}" for t, shape in zip(inputs, shapes, strict=True)),
        )
    half = inputs[0].dtype == library.float16
    return ParsedNetwork(library, graph, log, builder, network, parser, inputs[0].name, shapes[0], half)


def check_precision(layers: Sequence[Layer], asked: str, origin: str) -> dict[str, Any]:
    """Return what a build's facts say about its precision.

    Args:
        layers: the multiplying layers as they were read.
        asked: ``fp32``, ``fp16`` or ``int8``.
        origin: where they were read, for example ``parsed network``.

    Raises:
        MachineError: less than 95 % of the multiplications are done as asked; the message names layers.
    """
    effective, others = summarise_precision(layers)
    if effective != asked:
        wrong = [f"{one.name}: {one.precision}" for one in layers if one.precision != asked]
        raise MachineError(
            f"the TensorRT engine would not compute in {asked}",
            received=f"{effective} by the {origin}: {', '.join(wrong[:5]) or 'no multiplying layer'}"
            + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
            expected=f"{asked} for at least 95 % of the multiplications",
            action=f"give a graph in {asked}, or name another --precision",
        )
    return {
        "asked": asked,
        "effective": effective,
        "layers_in_other_precision": others,
        "read_from": origin,
    }


def read_network_layers(parsed: ParsedNetwork) -> list[Layer]:
    """Return the convolutions, deconvolutions and matrix products of a network.

    A layer's precision is the type that it writes, which a strongly typed engine keeps; it is ``int8`` where
    image and weights both come from DEQUANTIZE layers that read INT8, which is how TensorRT is told so.
    """
    with _fixed_batch(parsed):
        layers = [parsed.network.get_layer(index) for index in range(parsed.network.num_layers)]
        producers = {
            layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)
        }
        return [
            Layer(layer.name, _read_precision(layer, producers), _count_macs(parsed.library, layer))
            for layer in layers
            if layer.type.name in MULTIPLYING_LAYERS
        ]


@contextlib.contextmanager
def _fixed_batch(parsed: ParsedNetwork) -> Iterator[None]:
    """Give a free batch the size 1 for a while, so that every shape is a number."""
    tensor = parsed.network.get_input(0)
    tensor.shape = (1, *parsed.shape[1:])
    try:
        yield
    finally:
        tensor.shape = parsed.shape


def _read_precision(layer: Any, producers: dict[str, Any]) -> str:
    # A third input is the bias, which may stay float. Weights that are no input are float.
    factors = [layer.get_input(index) for index in range(min(layer.num_inputs, 2))]
    if len(factors) == 2 and all(_is_dequantized(factor, producers) for factor in factors):
        return "int8"
    name: str = layer.get_output(0).dtype.name
    return PRECISION_NAMES.get(name, name.lower())


def _is_dequantized(tensor: Any, producers: dict[str, Any]) -> bool:
    while tensor is not None and (layer := producers.get(tensor.name)) is not None:
        if layer.type.name == "DEQUANTIZE":
            return layer.get_input(0).dtype.name == "INT8"
        if layer.type.name not in _MOVING_LAYERS:
            return False
        tensor = layer.get_input(0)
    return False


def _count_macs(library: Any, layer: Any) -> int:
    """Multiply-accumulates of one layer for one image."""
    data, result = tuple(layer.get_input(0).shape), tuple(layer.get_output(0).shape)
    kind = layer.type.name
    if kind == "MATRIX_MULTIPLY":
        # The library hands out the base class; told its own, the layer shows its parameters.
        layer.__class__ = library.IMatrixMultiplyLayer
        transposed = layer.op0 == library.MatrixOperation.TRANSPOSE
        return math.prod(result) * data[-2 if transposed else -1]
    layer.__class__ = library.IConvolutionLayer if kind == "CONVOLUTION" else library.IDeconvolutionLayer
    positions = result[2:] if kind == "CONVOLUTION" else data[2:]
    weights = data[1] * layer.num_output_maps // layer.num_groups * math.prod(layer.kernel_size_nd)
    return weights * math.prod(positions)
