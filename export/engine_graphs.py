"""The engine graph in a precision below fp32: half, or Q/DQ in the form that TensorRT reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgekd.bundle import Build, Bundle, read_golden
from edgekd.errors import GateFailure, IntegrityError
from edgekd.export.calibration import Calibration
from edgekd.export.graphs import build_engine_graph, pack_graph
from edgekd.export.half import convert_to_half
from edgekd.export.int8 import build_int8
from edgekd.export.judgement import judge_logits
from edgekd.export.running import run_graph
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
        changed, facts, notices = _build_half(bundle, core, calibration)
    else:
        assert calibration is not None  # asked for before anything is built
        int8 = build_int8(core, calibration, "tensorrt", quiet=quiet)
        changed, facts, notices = int8.core, int8.facts, int8.notices
    check_signed(changed)
    return EngineGraph(pack_graph(build_engine_graph(changed), bundle), facts, notices)


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


def _build_half(
    bundle: Bundle, core: onnx.ModelProto, calibration: Calibration | None
) -> tuple[onnx.ModelProto, dict[str, Any], list[str]]:
    golden = read_golden(bundle)
    tensors, truths = golden.tensors, golden.truths
    scanned, source = tensors, f"{len(tensors)} golden frames"
    if calibration is not None:
        tensors, truths = calibration.val_tensors, calibration.val_truths
        scanned = np.concatenate([golden.tensors, calibration.tensors, tensors])
        source = f"{len(scanned)} frames"
    half = convert_to_half(core, scanned)
    reference, found = (run_graph(graph, tensors)[0] for graph in (core, half.simulation))
    judgement = judge_logits("fp16", reference, found, truths)
    if not judgement.passed:
        raise GateFailure(
            "the student misses its limits in half precision",
            received=judgement.format(),
            expected=judgement.describe_limits(),
            action="export with --precision fp32",
        )
    facts = {
        "calibration": None if calibration is None else calibration.describe(),
        "validation": judgement.describe(),
        "float_layers": list(half.float_nodes),
    }
    notices = [f"fp16: {judgement.format()}, simulated; scanned for overflow on {source}"]
    if calibration is not None:
        notices[0] += calibration.remark
    if half.float_nodes:
        notices.append(f"fp16: kept in float32, beyond the range of half: {', '.join(half.float_nodes)}")
    return half.core, facts, notices
