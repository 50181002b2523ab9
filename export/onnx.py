"""The ONNX build: core, deploy and engine graphs in float32, checked in ONNX Runtime."""

from __future__ import annotations

import json
from typing import Any

import onnx

from edgekd import __version__
from edgekd.bundle import Build, Bundle, find_build, list_builds, write_build
from edgekd.errors import MachineError
from edgekd.export.agreement import Runner, check_core_logits, check_preprocessing, run_on_golden_frames
from edgekd.export.graphs import (
    IR_VERSION,
    OPSET,
    build_deploy_graph,
    build_engine_graph,
    build_preprocess_graph,
)


def build_onnx(bundle: Bundle, core: onnx.ModelProto | None = None) -> Build:
    """Make the three graphs of a student, check them and write ``builds/onnx-fp32-cpu``.

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
    facts: dict[str, Any] = {
        "opset": OPSET,
        "ir_version": core.ir_version,
        "exporter": f"{core.producer_name} {core.producer_version}",
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "preprocess_sha256": spec.compute_hash(),
        "logits_max_difference": check_core_logits(_run_graph(core, "image"), bundle),
        "preprocess_max_difference": check_preprocessing(
            _run_graph(build_preprocess_graph(spec), "frame"), spec
        ),
    }
    graphs = {
        "core.onnx": core,
        "deploy.onnx": build_deploy_graph(core, spec),
        "engine.onnx": build_engine_graph(core),
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


def find_graphs(bundle: Bundle) -> Build | None:
    """Return the fp32 ONNX build, from which every other build is made, or None where there is none yet."""
    names = {(build.record.target, build.record.precision_asked) for build in list_builds(bundle)}
    return find_build(bundle, "onnx", "fp32") if ("onnx", "fp32") in names else None


def describe_bundle(bundle: Bundle) -> dict[str, str]:
    """Return what travels inside a graph: the facts that a reader without the bundle needs, as text."""
    manifest = bundle.manifest
    return {
        "edgekd_version": __version__,
        "edgekd_manifest_sha256": bundle.manifest_sha256,
        "edgekd_model": manifest.name,
        "edgekd_classes": json.dumps(manifest.classes.names),
        "edgekd_preprocess": json.dumps(manifest.preprocess.model_dump(mode="json"), sort_keys=True),
    }


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
