"""PyTorch student → core ONNX graph. The only file of this package that needs torch."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgekd.bundle import WEIGHTS_FILE, Bundle
from edgekd.errors import IntegrityError, UsageError
from edgekd.export.graphs import IR_VERSION, OPSET, check_core

if TYPE_CHECKING:
    import torch
    from torch import nn

_NOISY_LOGGER = "torch.onnx._internal.exporter._registration"


def trace_core(bundle: Bundle) -> onnx.ModelProto:
    """Return the core graph of a student: ``image`` (N, C, h, w) float32 → ``logits`` (N, K, h, w) float32.

    N is free; batch norms are folded into the convolutions by the exporter. Opset 18 and IR 10 or lower: what
    onnxruntime 1.23 and TensorRT 10.3 (JetPack 6) read.

    Raises:
        UsageError: the network holds something that has no ONNX form.
        IntegrityError: the weights do not fit the network, or the graph would need a newer opset or IR.
    """
    import torch

    spec = bundle.manifest.preprocess
    # A batch of one would make the exporter treat N as the constant 1.
    example = torch.zeros(2, spec.channels, spec.height, spec.width)
    core = _export(load_student(bundle), example)
    _strip_traces(core)
    _check_versions(core)
    check_core(core)
    return core


def _export(student: nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    import torch

    try:
        with _silence_exporter():
            program = torch.onnx.export(
                student,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UsageError(
            "the network cannot be exported to ONNX",
            received=str(error.__cause__ or error).strip().splitlines()[0],
            expected="a network without control flow on values, for any number of images",
            action="run with --debug to see where",
        ) from error
    # None is for the old exporter, which writes a file.
    assert program is not None
    return program.model_proto


def load_student(bundle: Bundle) -> nn.Module:
    """Return the PyTorch student of a bundle in eval mode, on the CPU, float32.

    Raises:
        UsageError: the network cannot be built here.
        IntegrityError: the weights are changed or do not fit the network.
    """
    from safetensors.torch import load

    from edgekd.models import build_model

    facts = bundle.manifest.model
    model = build_model(facts.name, facts.in_channels, facts.num_classes, facts.options)
    try:
        model.load_state_dict(load(bundle.resolve_file(WEIGHTS_FILE).read_bytes()))
    except RuntimeError as error:
        raise IntegrityError(f"the weights do not fit the network {facts.name!r}", received=error) from error
    return model.eval()


def predict_logits(bundle: Bundle, tensors: np.ndarray) -> np.ndarray:
    """Return the PyTorch student's logits (N, K, h, w) float32 for ``tensors`` (N, C, h, w) float32."""
    import torch

    with torch.no_grad():
        return load_student(bundle)(torch.from_numpy(tensors)).numpy()


def _strip_traces(core: onnx.ModelProto) -> None:
    """Drop the exporter's Python stack traces, which hold paths of the workstation."""
    for part in (core.graph, *core.graph.node, *core.graph.value_info, *core.graph.input, *core.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    core.ClearField("functions")


def _check_versions(core: onnx.ModelProto) -> None:
    opset = max(entry.version for entry in core.opset_import if entry.domain == "")
    domains = {node.domain for node in core.graph.node} - {""}
    if opset > OPSET or core.ir_version > IR_VERSION or domains:
        raise IntegrityError(
            "the traced graph cannot be read on the device",
            received=f"opset {opset}, IR {core.ir_version}, domains {sorted(domains)}",
            expected=f"opset ≤ {OPSET}, IR ≤ {IR_VERSION}, the standard operators",
        )


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """Hide that torchvision is absent and that torch calls a deprecated function of its own."""
    logger = logging.getLogger(_NOISY_LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
