"""Half precision in the graph: which nodes must stay float32, found by running, and the conversion itself.

IEEE half reaches 65,504. A node keeps float32 where a tensor or constant it touches came close to that on
real frames, or where rounding to half makes the result no number. What is left is proven on the same frames
with every half tensor rounded to half, the sums in float32 as tensor cores keep them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgekd.bundle import Bundle, read_golden
from edgekd.errors import GateFailure
from edgekd.export.calibration import Calibration
from edgekd.export.half_writer import HalfWriter, list_float_tensors
from edgekd.export.judgement import JudgedGraph, judge_logits
from edgekd.export.running import run_batches, run_graph

# A factor of two below the largest half, for frames that nobody has seen yet.
LARGEST_SAFE = 65504.0 / 2
FLOAT_ACTION = "export with --precision fp32, which takes no --device"


@dataclass(frozen=True)
class HalfGraph:
    """A core graph in half precision.

    Attributes:
        core: ``image`` float16, or float32 as asked → ``logits`` float16, or float32 where the last node
            stays so.
        simulation: the same numbers with float32 in and out, for engines that compute no half.
        float_nodes: names of the nodes that stay float32, in the graph's order.
    """

    core: onnx.ModelProto
    simulation: onnx.ModelProto
    float_nodes: tuple[str, ...]


def build_half(
    bundle: Bundle, core: onnx.ModelProto, calibration: Calibration | None, *, half_image: bool
) -> JudgedGraph:
    """Return a core graph in half precision that meets its limits, simulated on a processor.

    Args:
        bundle: the bundle, whose golden frames are scanned.
        core: the float32 graph ``image`` → ``logits``.
        calibration: more frames to scan, and those to judge by; None leaves it to the golden frames, which
            is said.
        half_image: let the graph take its image in float16 too.

    Raises:
        GateFailure: it misses its limits, or gives no numbers.
    """
    golden = read_golden(bundle)
    tensors, truths = golden.tensors, golden.truths
    scanned, source = tensors, f"{len(tensors)} golden frames"
    if calibration is not None:
        tensors, truths = calibration.val_tensors, calibration.val_truths
        scanned = np.concatenate([golden.tensors, calibration.tensors, tensors])
        source = f"{len(scanned)} frames"
    half = convert_to_half(core, scanned, half_image=half_image)
    reference, found = (run_graph(graph, tensors)[0] for graph in (core, half.simulation))
    judgement = judge_logits("fp16", reference, found, truths)
    if not judgement.passed:
        raise GateFailure(
            "the student misses its limits in half precision",
            received=judgement.format(),
            expected=judgement.describe_limits(),
            action=FLOAT_ACTION,
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
    return JudgedGraph(half.core, facts, notices)


def convert_to_half(
    core: onnx.ModelProto, tensors: NDArray[np.float32], *, half_image: bool = True
) -> HalfGraph:
    """Return a core graph in half precision, as far as ``tensors`` allow.

    Args:
        core: the float32 graph ``image`` → ``logits``.
        tensors: (N, C, h, w) float32, frames to be run.
        half_image: let the graph take its image in float16 too.

    Raises:
        GateFailure: the image itself leaves the range of half, or logits are no numbers on whatever path.
    """
    if half_image and np.abs(tensors).max() > LARGEST_SAFE:
        raise GateFailure(
            "the preprocessed image does not fit half precision",
            received=f"values up to {np.abs(tensors).max():.4g}",
            expected=f"at most {LARGEST_SAFE:.0f}",
            action=f"{FLOAT_ACTION}, or train with a smaller scale",
        )
    kept = _find_large(core, tensors)
    while True:
        simulation = HalfWriter(core, kept, half_image=half_image).simulate()
        found = _find_no_numbers(simulation, core, tensors)
        if not found:
            break
        if found <= kept:
            raise GateFailure(
                "the student gives no numbers in half precision",
                received=f"infinite or undefined values at {', '.join(sorted(found))}",
                action=FLOAT_ACTION,
            )
        kept = kept | found
    names = tuple(node.name for node in core.graph.node if node.name in kept)
    return HalfGraph(HalfWriter(core, kept, half_image=half_image).convert(), simulation, names)


def _find_large(core: onnx.ModelProto, tensors: NDArray[np.float32]) -> frozenset[str]:
    """Return the nodes that read or write a tensor or constant beyond LARGEST_SAFE."""
    kinds = list_float_tensors(core)
    computed = [name for node in core.graph.node for name in node.output if name in kinds]
    # No number at all in float32 is no matter of half precision; the comparison is false for it.
    large = {"image"} if np.abs(tensors).max() > LARGEST_SAFE else set[str]()
    large |= {
        name
        for batch in run_batches(core, tensors, computed)
        for name, values in zip(computed, batch, strict=True)
        if np.abs(values).max() > LARGEST_SAFE
    }
    large |= {
        tensor.name
        for tensor in core.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and np.abs(numpy_helper.to_array(tensor)).max(initial=0) > LARGEST_SAFE
    }
    return frozenset(node.name for node in core.graph.node if large & {*node.input, *node.output})


def _find_no_numbers(
    simulation: onnx.ModelProto, core: onnx.ModelProto, tensors: NDArray[np.float32]
) -> frozenset[str]:
    """Return the first nodes in the graph's order whose result is no number, one branch each."""
    kinds = list_float_tensors(core)
    nodes = [node for node in core.graph.node if node.output[0] in kinds]
    bad = {
        node.output[0]: node
        for batch in run_batches(simulation, tensors, [node.output[0] for node in nodes])
        for node, values in zip(nodes, batch, strict=True)
        if not np.isfinite(values).all()
    }
    return frozenset(node.name for node in bad.values() if not set(node.input) & set(bad))
