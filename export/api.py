"""Completing a bundle with builds for the engines that are asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from edgekd.bundle import TARGETS, Build, Bundle, check_precision, check_target, write_build
from edgekd.errors import MachineError, UsageError
from edgekd.export.agreement import run_on_golden_frames
from edgekd.export.kernels import parse_architecture
from edgekd.export.source_graphs import ENGINE_FILE, find_graphs
from edgekd.export.tensorrt_options import TensorRtOptions, check_options
from edgekd.progress import Progress
from edgekd.runtime import find_obstacle

TRACING_PACKAGES = ("torch", "onnx", "onnxscript")


def export_bundle(
    bundle: Bundle,
    targets: Sequence[str],
    precisions: Sequence[str] = ("fp32",),
    *,
    sm: Sequence[str | int] | None = None,
    tensorrt: TensorRtOptions | None = None,
    quiet: bool = False,
) -> list[Build]:
    """Build every target in every precision, run each on the golden frames where this machine can.

    The ONNX graphs are made first where the bundle has none; that alone needs torch. A build that exists
    is replaced in one step. A build that cannot run here has the status ``built, not run``; what its
    user should know is in ``facts["notices"]``.

    Args:
        bundle: the bundle, to whose ``builds/`` the results go.
        targets: names among ``onnx``, ``openvino``, ``tensorrt``, ``tensorrt-rtx``.
        precisions: ``fp32``; others are refused with the reason.
        sm: GPU architectures for TensorRT, such as ``8.9``; None takes the target's own choice.
        tensorrt: further options of TensorRT builds; None takes their defaults.
        quiet: no progress bar.

    Raises:
        UsageError: an unknown or missing target or precision, ``sm`` or
            TensorRT options that cannot be meant.
        MachineError: this machine lacks a package, or the precision is not available.
        GateFailure: a build differs from the PyTorch student.
    """
    _check_request(targets, precisions, sm)
    options = tensorrt or TensorRtOptions()
    check_options(options, targets)
    # A target that is named twice is built once.
    targets = list(dict.fromkeys(targets))
    builds: list[Build] = []
    with Progress(quiet=quiet) as progress:
        handle = progress.add("exporting", len(targets) + 1)
        progress.advance(handle, 0, note="ONNX graphs")
        graphs = _provide_graphs(bundle, targets)
        for target in targets:
            progress.advance(handle, note=target)
            builds.append(_build_target(bundle, graphs, target, sm, options, progress))
        progress.advance(handle)
    return builds


def _check_request(targets: Sequence[str], precisions: Sequence[str], sm: Sequence[str | int] | None) -> None:
    if not targets:
        raise UsageError(
            "no target was named",
            expected=f"one or more of {', '.join(TARGETS)}",
            action="for example: edgekd export --target onnx --target openvino",
        )
    if not precisions:
        raise UsageError("no precision was named", expected="fp32")
    if sm is not None and not any(target.startswith("tensorrt") for target in targets):
        raise UsageError(
            "a GPU architecture is meant for TensorRT alone",
            received=f"sm {', '.join(map(str, sm))} for {', '.join(targets)}",
            action="leave it out, or add a TensorRT target",
        )
    for text in sm or ():
        parse_architecture(text)
    for target in targets:
        check_target(target)
    for precision in precisions:
        check_precision(precision)
    for precision in precisions:
        if precision != "fp32":
            raise MachineError(
                f"no {', '.join(targets)} build in {precision}",
                received="the graphs of this version are float32",
                expected="fp32",
                action="export with --precision fp32",
            )


def _provide_graphs(bundle: Bundle, targets: Sequence[str]) -> Build:
    """Return the ONNX build, made anew where it is asked for by name."""
    existing = find_graphs(bundle)
    if existing is not None and "onnx" not in targets:
        return existing
    _check_tracing_is_possible(bundle)
    from edgekd.export.onnx import build_onnx

    return build_onnx(bundle)


def _check_tracing_is_possible(bundle: Bundle) -> None:
    missing = [name for name in TRACING_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MachineError(
            f"the ONNX graphs of {bundle.path} must be traced, which needs {', '.join(missing)}",
            action=f"run `edgekd export {bundle.path.name} --target onnx` on the workstation, then copy it; "
            'or pip install "edgekd[train]" here',
        )


def _build_target(
    bundle: Bundle,
    graphs: Build,
    target: str,
    sm: Sequence[str | int] | None,
    options: TensorRtOptions,
    progress: Progress,
) -> Build:
    if target == "onnx":
        return graphs
    if target == "openvino":
        from edgekd.export.openvino import build_openvino

        return build_openvino(bundle, graphs)
    from edgekd.export.tensorrt import build_tensorrt

    graph = graphs.resolve_file(ENGINE_FILE)
    fields, files, notices = build_tensorrt(bundle, graph, target, "fp32", sm, options, progress)
    facts = {**fields.pop("facts"), "notices": notices}
    build = write_build(bundle, **fields, files=files, facts=facts)
    return run_on_golden_frames(bundle, build) if find_obstacle(build) is None else build
