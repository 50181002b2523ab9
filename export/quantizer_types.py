"""The integer types that a graph's quantisers use, read from the ONNX file without the package ``onnx``.

A device completes a bundle without ``onnx``, and TensorRT's parser only warns, in words that change between
versions. So the few fields needed are read from the protobuf wire format itself.

Source: protobuf.dev, *Encoding*; field numbers and types of ONNX's ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgekd.errors import InputError, MachineError

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_TENSOR = 1, 5
_TENSOR_TYPE, _TENSOR_NAME = 2, 8
_UINT8 = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


class _Node(NamedTuple):
    name: str
    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, int]


def check_quantizers_are_signed(graph: Path) -> None:
    """Raise MachineError, naming the nodes, where a graph quantises to UINT8.

    TensorRT reads UINT8 as INT8 with the same scale, so the upper half of the values would clip in silence.
    """
    nodes = list_unsigned_quantizers(graph)
    if nodes:
        raise MachineError(
            f"{graph.name} quantises to UINT8, which TensorRT reads as INT8: the upper half would clip",
            received=f"{len(nodes)} such nodes: {', '.join(nodes[:5])}{' …' if len(nodes) > 5 else ''}",
            expected="signed INT8 with zero point 0, for activations as for weights",
            action="quantise symmetrically (activations scaled by 255/127), or export another precision",
        )


def list_unsigned_quantizers(graph: Path) -> list[str]:
    """Return the names of the QuantizeLinear and DequantizeLinear nodes of a graph that mean UINT8.

    A QuantizeLinear without zero point and ``output_dtype`` means UINT8 too, by ONNX's default. Graphs inside
    of nodes are not looked into.

    Raises:
        InputError: the file is no ONNX graph.
    """
    try:
        nodes, types = _read_graph(memoryview(graph.read_bytes()))
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise InputError("no ONNX graph", received=str(graph)) from error
    return [node.name or node.outputs[0] for node in nodes if _means_unsigned(node, types)]


def _means_unsigned(node: _Node, types: dict[str, int]) -> bool:
    zero_point = node.inputs[2] if len(node.inputs) > 2 else ""
    if node.operator == "QuantizeLinear":
        default = _UINT8 if node.attributes.get("output_dtype", 0) in (0, _UINT8) else 0
        return (types.get(zero_point, 0) if zero_point else default) == _UINT8
    if node.operator == "DequantizeLinear":
        return _UINT8 in (types.get(zero_point), types.get(node.inputs[0]))
    return False


def _read_graph(model: memoryview) -> tuple[list[_Node], dict[str, int]]:
    """Return the nodes of a model, and the element types of its constants by name."""
    nodes: list[_Node] = []
    types: dict[str, int] = {}
    for number, graph in _iterate_fields(model):
        if number != _GRAPH or isinstance(graph, int):
            continue
        for kind, content in _iterate_fields(graph):
            if kind == _NODE and not isinstance(content, int):
                nodes.append(_read_node(content, types))
            elif kind == _INITIALIZER and not isinstance(content, int):
                fields = dict(_iterate_fields(content))
                types[_read_text(fields[_TENSOR_NAME])] = _read_number(fields.get(_TENSOR_TYPE))
    if not nodes:
        raise ValueError("no nodes")
    return nodes, types


def _read_node(content: memoryview, types: dict[str, int]) -> _Node:
    node = _Node("", "", [], [], {})
    for number, value in _iterate_fields(content):
        if number in (_INPUT, _OUTPUT):
            (node.inputs if number == _INPUT else node.outputs).append(_read_text(value))
        elif number == _NAME:
            node = node._replace(name=_read_text(value))
        elif number == _OPERATOR:
            node = node._replace(operator=_read_text(value))
        elif number == _ATTRIBUTE and not isinstance(value, int):
            fields = dict(_iterate_fields(value))
            tensor = fields.get(_ATTRIBUTE_TENSOR)
            # An integer attribute's own value, or the element type of a tensor.
            found = fields.get(3, 0) if isinstance(tensor, int | None) else dict(_iterate_fields(tensor))[2]
            node.attributes[_read_text(fields[_ATTRIBUTE_NAME])] = _read_number(found)
    if node.operator == "Constant" and "value" in node.attributes:
        types[node.outputs[0]] = node.attributes["value"]
    return node


def _read_text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("a number where text is meant")
    return str(value, "utf-8")


def _read_number(value: int | memoryview | None) -> int:
    return value if isinstance(value, int) else 0


def _iterate_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value): an integer, or the bytes of text, messages, packed and fixed numbers."""
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _read_varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _read_varint(data, position)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > len(data):
            raise ValueError("cut short")
        yield number, data[position : position + size]
        position += size


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
