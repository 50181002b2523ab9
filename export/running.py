"""Running a graph in ONNX Runtime on the processor, node by node as it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgekd.errors import MachineError

BATCH = 16


def run_graph(
    model: onnx.ModelProto, tensors: NDArray[Any], outputs: Sequence[str] = (), *, optimise: bool = False
) -> list[NDArray[Any]]:
    """Return tensors of a graph for all images; see `run_batches`."""
    batches = run_batches(model, tensors, outputs, optimise=optimise)
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def run_batches(
    model: onnx.ModelProto, tensors: NDArray[Any], outputs: Sequence[str] = (), *, optimise: bool = False
) -> Iterator[list[NDArray[Any]]]:
    """Yield tensors of a graph, a batch of images at a time: all of a network's may fill the memory.

    Args:
        model: a graph with one input, whose batch is free.
        tensors: (N, C, h, w) in the dtype of the input.
        outputs: names of float32 tensors of the graph; none means its own outputs.
        optimise: let the library fuse nodes; without it every named tensor is really computed.
    """
    onnxruntime = import_onnxruntime()
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in shown.graph.output}
    wanted = list(outputs) or [value.name for value in shown.graph.output]
    for name in wanted:
        if name not in known:
            shown.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for start in range(0, len(tensors), BATCH):
        yield session.run(wanted, {name: tensors[start : start + BATCH]})


def make_runner(model: onnx.ModelProto) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what runs a graph of one output, fused as the library likes."""
    return lambda tensors: run_graph(model, tensors, optimise=True)[0]


def import_onnxruntime() -> Any:
    """Return the module onnxruntime; MachineError where it is missing."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MachineError(
            "a graph is written only after it ran, and onnxruntime is not installed",
            action='pip install "edgekd[onnx]"',
        ) from error
    return onnxruntime
