"""Asking ONNX Runtime whether it reads an IR version and an opset, by a graph of a few bytes.

The library has no call for it, and a table of its releases would have to be kept up to date here.
"""

from __future__ import annotations

_LENGTH_DELIMITED = 2


def build_probe(ir_version: int, opset: int) -> bytes:
    """Return an ONNX model that does nothing, stamped with an IR version and an opset.

    The fields' numbers are those of onnx.proto; written by hand, as a device has no package ``onnx``.
    """
    node = _pack_text(1, "x") + _pack_text(2, "y") + _pack_text(4, "Identity")
    # TypeProto.tensor_type: elem_type 1 is float, and its shape is that of a scalar.
    value_type = _pack(2, _pack(1, _pack_number(1, 1) + _pack(2, b"")))
    x, y = _pack_text(1, "x") + value_type, _pack_text(1, "y") + value_type
    graph = _pack(1, node) + _pack_text(2, "probe") + _pack(11, x) + _pack(12, y)
    return (
        _pack_number(1, ir_version) + _pack(7, graph) + _pack(8, _pack_text(1, "") + _pack_number(2, opset))
    )


def _pack(field: int, content: bytes) -> bytes:
    return _encode(field << 3 | _LENGTH_DELIMITED) + _encode(len(content)) + content


def _pack_text(field: int, text: str) -> bytes:
    return _pack(field, text.encode())


def _pack_number(field: int, number: int) -> bytes:
    return _encode(field << 3) + _encode(number)


def _encode(number: int) -> bytes:
    """Return a number ≥ 0 as a varint: seven bits a byte, the lowest first, the last without the eighth."""
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes([*content, number])
