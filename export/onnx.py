"""The ONNX builds: the graphs that every target starts from, checked in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from edgekd.bundle import Build, Bundle, read_golden
from edgekd.errors import IntegrityError, MachineError
from edgekd.export.agreement import check_core_logits, check_preprocessing
from edgekd.export.calibration import Calibration
from edgekd.export.drafts import keep_build
from edgekd.export.fixed_shapes import FixedShapes
from edgekd.export.graphs import (
    IR_VERSION,
    OPSET,
    build_deploy_graph,
    build_engine_graph,
    build_preprocess_graph,
    pack_graph,
)
from edgekd.export.half import FLOAT_ACTION, build_half
from edgekd.export.int8 import build_int8
from edgekd.export.judgement import JudgedGraph
from edgekd.export.layers import list_products, read_onnxruntime_layers
from edgekd.export.running import import_onnxruntime, make_runner, run_graph
from edgekd.export.source_graphs import (
    CORE_FILE,
    DEPLOY_FILE,
    ENGINE_FILE,
    PREPROCESS_FILE,
    find_graphs,
    pick_graph_facts,
)
from edgekd.runtime.onnx import list_providers
from edgekd.runtime.precision import Layer, summarise_precision


def build_onnx(
    bundle: Bundle, core: onnx.ModelProto | None = None, shapes: FixedShapes | None = None
) -> Build:
    """Make the graphs of a student and of its preprocessing, check them and write ``builds/onnx-fp32-cpu``.

    Args:
        bundle: the bundle.
        core: its core graph; None traces it from the PyTorch student.
        shapes: what the deploy graph shall take alone; None leaves it free.

    Raises:
        MachineError: onnxruntime is missing, or torch where the student is traced.
        GateFailure: a graph differs from the PyTorch student or from the preprocessing truth.
    """
    import_onnxruntime()
    if core is None:
        from edgekd.export.trace import trace_core

        core = trace_core(bundle)
    spec = bundle.manifest.preprocess
    preprocess = build_preprocess_graph(spec)
    facts: dict[str, Any] = {
        "exporter": f"{core.producer_name} {core.producer_version}",
        "logits_max_difference": check_core_logits(make_runner(core), bundle),
        "preprocess_max_difference": check_preprocessing(make_runner(preprocess), spec),
    }
    graphs = {
        CORE_FILE: core,
        DEPLOY_FILE: build_deploy_graph(core, spec),
        ENGINE_FILE: build_engine_graph(core),
        PREPROCESS_FILE: preprocess,
    }
    return _write(bundle, graphs, "fp32", facts, shapes)


def build_onnx_int8(
    bundle: Bundle,
    graphs: Build,
    calibration: Calibration,
    shapes: FixedShapes | None = None,
    *,
    quiet: bool = False,
) -> Build:
    """Quantise the core for processors, check it and write ``builds/onnx-int8-cpu``.

    Args:
        bundle: the bundle.
        graphs: its fp32 ONNX build.
        calibration: frames for the ranges, and others to judge by.
        shapes: what the deploy graph shall take alone; None leaves it free.
        quiet: no progress bar.

    Raises:
        GateFailure: int8 misses its limits.
        MachineError: onnxruntime is missing, or would run less than 95 % of the products in int8.
    """
    core = read_core(graphs)
    int8 = build_int8(core, calibration, "cpu", quiet=quiet)
    effective, others = summarise_precision(read_onnxruntime_layers(int8.core, list_products(core)))
    if effective != "int8":
        raise MachineError(
            "ONNX Runtime would not run the student in int8",
            received=f"{effective}; in another precision: {', '.join(others)}",
            expected="at least 95 % of the multiply-accumulates in int8",
            action="export with --precision fp32",
        )
    golden = read_golden(bundle)
    difference = abs(run_graph(int8.core, golden.tensors, optimise=True)[0] - golden.logits).max()
    facts: dict[str, Any] = {
        **int8.facts,
        "layers_in_other_precision": others,
        "logits_max_difference": float(difference),
        "notices": int8.notices,
    }
    built = {CORE_FILE: int8.core, DEPLOY_FILE: build_deploy_graph(int8.core, bundle.manifest.preprocess)}
    return _write(bundle, built, "int8", facts, shapes)


def build_onnx_half(
    bundle: Bundle,
    graphs: Build,
    calibration: Calibration | None = None,
    shapes: FixedShapes | None = None,
) -> Build:
    """Write the core in half for NVIDIA GPUs, check it and write ``builds/onnx-fp16-gpu``.

    The preprocessing stays float32. Where ONNX Runtime has no CUDA the graph runs on the processor, which
    computes it in float32, and the build is ``built, not run``.

    Args:
        bundle: the bundle.
        graphs: its fp32 ONNX build.
        calibration: frames to scan for overflow and to judge by; None takes the graph of the build that is
            there, where that was made with some, and else leaves it to the golden frames.
        shapes: what the deploy graph shall take alone; None leaves it free.

    Raises:
        GateFailure: half precision misses its limits.
        MachineError: onnxruntime is missing, or less than 95 % of the products are left in half.
    """
    core = read_core(graphs)
    half = None if calibration is not None else _find_calibrated_half(bundle)
    if half is None:
        half = build_half(bundle, core, calibration, half_image=False)
    layers = [
        Layer(product.name, "fp32" if product.name in half.facts["float_layers"] else "fp16", product.macs)
        for product in list_products(core)
    ]
    effective, others = summarise_precision(layers)
    if effective != "fp16":
        raise MachineError(
            "too much of the student must stay float32 for a build in fp16",
            received=f"beyond the range of half: {', '.join(half.facts['float_layers'])}",
            expected="at least 95 % of the multiply-accumulates in fp16",
            action=FLOAT_ACTION,
        )
    facts: dict[str, Any] = {**half.facts, "layers_in_other_precision": others, "notices": half.notices}
    built = {CORE_FILE: half.core, DEPLOY_FILE: build_deploy_graph(half.core, bundle.manifest.preprocess)}
    return _write(bundle, built, "fp16", facts, shapes, device="GPU")


def _find_calibrated_half(bundle: Bundle) -> JudgedGraph | None:
    """Return the graph of the build in half that is there, or None where it was made without calibration."""
    try:
        found = find_graphs(bundle, "fp16")
        if found is None or found.record.facts["calibration"] is None:
            return None
        core = read_core(found)
    except IntegrityError:  # a damaged one is made anew
        return None
    notices = [notice for notice in found.record.facts["notices"] if notice.startswith("fp16: ")]
    return JudgedGraph(core, pick_graph_facts(found), notices)


def read_core(graphs: Build) -> onnx.ModelProto:
    """Return the core graph of an ONNX build; IntegrityError where its file is changed."""
    return onnx.load(graphs.resolve_file(CORE_FILE))


def _write(
    bundle: Bundle,
    graphs: Mapping[str, onnx.ModelProto],
    precision: str,
    facts: Mapping[str, Any],
    shapes: FixedShapes | None,
    device: str = "CPU",
) -> Build:
    common: dict[str, Any] = {
        "opset": OPSET,
        "ir_version": min(graphs[CORE_FILE].ir_version, IR_VERSION),
        "onnx": onnx.__version__,
        "onnxruntime": import_onnxruntime().__version__,
        "preprocess_sha256": bundle.manifest.preprocess.compute_hash(),
    }
    if device == "CPU":  # a GPU's is tried on the processor before
        common["providers"] = list_providers(precision)
    files = {name: pack_graph(graph, bundle) for name, graph in graphs.items()}
    return keep_build(
        bundle,
        target="onnx",
        precision=precision,
        device=device,
        files=files,
        facts={**common, **facts},
        shapes=shapes,
    )
