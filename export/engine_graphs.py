"""The engine graph in a precision below fp32: half, or Q/DQ in the form that TensorRT reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto

from edgekd.bundle import Build, Bundle
from edgekd.errors import IntegrityError
from edgekd.export.calibration import Calibration
from edgekd.export.graphs import build_engine_graph, pack_graph
from edgekd.export.half import build_half
from edgekd.export.int8 import build_int8
from edgekd.export.source_graphs import CORE_FILE


@dataclass(frozen=True)
class EngineGraph:
    """An engine graph, what was found while making it, and sentences for the user."""

    content: bytes
    facts: Mapping[str, Any]
    notices: list[str]


def build_engine_in(
    bundle: Bundle, graphs: Build, precision: str, calibration: Calibration | None, *, quiet: bool = False
) -> EngineGraph:
    """Return the engine graph in ``fp16`` or ``int8``, judged on the validation split.

    Without calibration frames fp16 is scanned and judged on the golden frames alone, which is said.

    Raises:
        GateFailure: the precision misses its limits.
    """
    core = onnx.load(graphs.resolve_file(CORE_FILE))
    if precision == "fp16":
        graph = build_half(bundle, core, calibration, half_image=True)
    else:
        assert calibration is not None  # asked for before anything is built
        graph = build_int8(core, calibration, "tensorrt", quiet=quiet)
    check_signed(graph.core)
    return EngineGraph(pack_graph(build_engine_graph(graph.core), bundle), graph.facts, graph.notices)


def check_signed(graph: onnx.ModelProto) -> None:
    """Raise IntegrityError where a graph quantises to unsigned numbers.

    TensorRT's parser takes UINT8 zero points and reads INT8 with the same scale: the upper half of the range
    would be cut off without a word.
    """
    constants = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    unsigned = [
        node.name
        for node in graph.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        # Without a zero point ONNX means UINT8.
        and (len(node.input) < 3 or constants.get(node.input[2]) == TensorProto.UINT8)
    ]
    if unsigned:
        raise IntegrityError(
            "the graph quantises to unsigned numbers, which TensorRT would read as signed",
            received=", ".join(unsigned[:4]),
            expected="INT8 with zero point 0",
        )
