"""The ONNX build: core, deploy, engine and preprocessing graphs in float32, checked in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import onnx

from edgekd.bundle import Build, Bundle, write_build
from edgekd.errors import MachineError
from edgekd.export.agreement import Runner, check_core_logits, check_preprocessing, run_on_golden_frames
from edgekd.export.graphs import (
    IR_VERSION,
    OPSET,
    build_deploy_graph,
    build_engine_graph,
    build_preprocess_graph,
)
from edgekd.export.source_graphs import (
    CORE_FILE,
    DEPLOY_FILE,
    ENGINE_FILE,
    PREPROCESS_FILE,
    describe_bundle,
)


def build_onnx(bundle: Bundle, core: onnx.ModelProto | None = None) -> Build:
    """Make the graphs of a student and of its preprocessing, check them and write ``builds/onnx-fp32-cpu``.

    Args:
        bundle: the bundle.
        core: its core graph; None traces it from the PyTorch student.

    Raises:
        MachineError: onnxruntime is missing, or torch where the student is traced.
        GateFailure: a graph differs from the PyTorch student or from the preprocessing truth.
    """
    onnxruntime = _import_onnxruntime()
    if core is None:
        from edgekd.export.trace import trace_core

        core = trace_core(bundle)
    spec = bundle.manifest.preprocess
    preprocess = build_preprocess_graph(spec)
    facts: dict[str, Any] = {
        "opset": OPSET,
        "ir_version": core.ir_version,
        "exporter": f"{core.producer_name} {core.producer_version}",
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "preprocess_sha256": spec.compute_hash(),
        "logits_max_difference": check_core_logits(_run_graph(core, "image"), bundle),
        "preprocess_max_difference": check_preprocessing(_run_graph(preprocess, "frame"), spec),
    }
    graphs = {
        CORE_FILE: core,
        DEPLOY_FILE: build_deploy_graph(core, spec),
        ENGINE_FILE: build_engine_graph(core),
        PREPROCESS_FILE: preprocess,
    }
    build = write_build(
        bundle,
        target="onnx",
        precision_asked="fp32",
        precision_effective="fp32",
        device="CPU",
        status="built, not run",
        files={name: _write_graph(graph, bundle) for name, graph in graphs.items()},
        facts=facts,
    )
    return run_on_golden_frames(bundle, build)


def _write_graph(graph: onnx.ModelProto, bundle: Bundle) -> bytes:
    graph.ir_version = min(graph.ir_version, IR_VERSION)
    onnx.helper.set_model_props(graph, describe_bundle(bundle))
    return graph.SerializeToString(deterministic=True)


def _run_graph(graph: onnx.ModelProto, name: str) -> Runner:
    onnxruntime = _import_onnxruntime()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda value: session.run(None, {name: value})[0]


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MachineError(
            "a graph is written only after it ran, and onnxruntime is not installed",
            action='pip install "edgekd[onnx]"',
        ) from error
    return onnxruntime
