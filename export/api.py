"""Completing a bundle with builds for the engines that are asked for."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from edgekd.atomic import check_output_place, temporary_folder
from edgekd.bundle import (
    Build,
    Bundle,
    draft_build,
    format_export,
    install_build,
)
from edgekd.errors import EdgeKDError, GateFailure, InputError, MachineError, UsageError
from edgekd.export.agreement import install_checked
from edgekd.export.calibration import OTHER_DATA, Calibration, load_calibration
from edgekd.export.checks import check_calib_is_used, check_device, check_request
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes, free_shapes
from edgekd.export.source_graphs import ENGINE_FILE, find_engine_graph, find_graphs, pick_graph_facts
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
    calib: Path | None = None,
    shapes: FixedShapes | None = None,
    tensorrt: TensorRtOptions | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> list[Build]:
    """Build every target in every precision, run each on the golden frames where this machine can.

    The ONNX graphs are made first where the bundle has none; that alone needs torch. A build that exists
    is replaced in one step, once the new one passed, and else stays as it was. A build that cannot run
    here has the status ``built, not run``; what its user should know is in ``facts["notices"]``.

    Args:
        bundle: the bundle, to whose ``builds/`` the results go.
        targets: names among ``onnx``, ``openvino``, ``tensorrt``, ``tensorrt-rtx``.
        precisions: names among ``fp32``, ``fp16``, ``bf16``, ``int8``; every pair is checked before
            any is built.
        sm: GPU architectures for TensorRT, such as ``8.9``; None takes the target's own choice.
        calib: the data set that int8 and the fp16 of GPUs are made with, and every precision below fp32 is
            judged with; None takes graphs that are there.
        shapes: batch and size of the frames, where ONNX and OpenVINO builds shall take no others.
        tensorrt: further options of TensorRT builds; None takes their defaults.
        device: of OpenVINO builds, ``CPU``, ``GPU`` or ``NPU``; of ONNX builds in fp16 ``GPU``, NVIDIA's;
            None takes the processor.
        quiet: no progress bar.

    Raises:
        UsageError: an unknown or missing target or precision, ``sm``, ``calib`` or TensorRT options that
            cannot be meant, or int8 without ``calib`` where no int8 graph is there yet.
        InputError: ``calib`` is not there, or no data set.
        MachineError: this machine lacks a package, or cannot compute in the precision.
        GateFailure: a build differs from the PyTorch student, or a precision misses its limits. The other
            builds are made all the same, and named.
    """
    _check_bundle_is_writable(bundle)
    device = "CPU" if device is None else check_device(device, targets, precisions, shapes)
    check_request(targets, precisions, sm, device)
    if calib is not None:
        check_calib_is_used(calib, precisions)
    options = tensorrt or TensorRtOptions()
    check_options(options, targets)
    if shapes is not None:
        shapes.check(targets)
        shapes.check_crop(bundle.manifest.preprocess)
    # What is named twice is built once.
    cells = list(dict.fromkeys(product(targets, precisions)))
    builds: list[Build] = []
    failures: dict[str, EdgeKDError] = {}
    with Progress(quiet=quiet) as progress:
        handle = progress.add("exporting", len(cells) + 1)
        progress.advance(handle, 0, note="ONNX graphs")
        request = _Request(bundle, cells, sm, calib, shapes, options, progress, device, quiet=quiet)
        for target, precision in cells:
            progress.advance(handle, note=f"{target} {precision}")
            try:
                builds.append(request.build(target, precision))
            except EdgeKDError as error:
                if len(cells) == 1 or isinstance(error, (UsageError, InputError)):
                    raise
                failures[f"{target} {precision}"] = _copy_error(error)
        progress.advance(handle)
    if failures:
        raise _sum_up(failures, builds)
    return builds


def _check_bundle_is_writable(bundle: Bundle) -> None:
    try:
        check_output_place(bundle.path / "builds" / "new")
    except UsageError as error:
        raise UsageError(
            f"the bundle {bundle.path} takes no builds",
            received=error.received,
            action="copy it to a folder that can be written, and export that copy",
        ) from error


def _copy_error(error: EdgeKDError) -> EdgeKDError:
    """Return the error without its traceback, which would hold engines in a cycle.

    OpenVINO freed by the cycle collector was seen to leave a dangling signal stack: the next Ctrl-C crashed.
    """
    return type(error)(error.what, received=error.received, expected=error.expected, action=error.action)


def _sum_up(failures: Mapping[str, EdgeKDError], builds: Sequence[Build]) -> EdgeKDError:
    """Return one error for all cells that failed; of several kinds a gate's answer decides the exit code."""
    cells: dict[str, list[str]] = {}
    for cell, error in failures.items():
        cells.setdefault(str(error), []).append(cell)
    told = [f"{', '.join(names)}: {text}" for text, names in cells.items()]
    made = ", ".join(build.name for build in builds) or "none"
    kinds = [type(error) for error in failures.values()]
    kind = GateFailure if GateFailure in kinds else kinds[0]
    return kind(f"{'. '.join(told)}. Builds that were made: {made}")


class _Request:
    """One call of `export_bundle`: the graphs it has made so far, and what is still to be built of them."""

    def __init__(
        self,
        bundle: Bundle,
        cells: Sequence[tuple[str, str]],
        sm: Sequence[str | int] | None,
        calib: Path | None,
        shapes: FixedShapes | None,
        options: TensorRtOptions,
        progress: Progress,
        device: str,
        *,
        quiet: bool,
    ) -> None:
        self._bundle, self._cells, self._sm, self._calib, self._shapes = bundle, cells, sm, calib, shapes
        self._options, self._progress, self._device, self._quiet = options, progress, device, quiet
        self._check_calibration(cells)
        self._graphs = self._provide_graphs()
        self._int8: Build | None = None
        self._int8_fault: EdgeKDError | None = None

    def build(self, target: str, precision: str) -> Build:
        """Return the build of a cell."""
        if target.startswith("tensorrt"):
            return self._build_tensorrt(target, precision)
        if target == "onnx" and precision == "fp16":
            _check_onnx_is_here(self._bundle)
            from edgekd.export.onnx import build_onnx_half

            return build_onnx_half(self._bundle, self._graphs, self._find_calibration(), self._shapes)
        deploy = self._provide_int8() if precision == "int8" else self._graphs
        if target == "onnx":
            return deploy
        from edgekd.export.openvino import build_openvino

        calibration = None if precision == "fp32" else self._find_calibration()
        return build_openvino(
            self._bundle, self._graphs, precision, deploy, self._shapes, calibration, self._device
        )

    def _check_calibration(self, cells: Sequence[tuple[str, str]]) -> None:
        """Raise UsageError where int8 is asked for and there is nothing to make it from."""
        lacking: list[str] = []
        for target, precision in cells if self._calib is None else ():
            found = find_engine_graph if target.startswith("tensorrt") else find_graphs
            if precision == "int8" and found(self._bundle, "int8") is None:
                lacking.append(target)
        if lacking:
            others = "".join(f" --target {target}" for target in lacking[1:])
            raise UsageError(
                "int8 needs frames to measure the ranges of its numbers on",
                received=f"no --calib, and no int8 graph for {' and '.join(lacking)} in the bundle",
                expected="the data set that the student was distilled on",
                action=f"{self._format_export(lacking[0])}{others} --calib DATA",
            )

    def _format_export(self, target: str) -> str:
        size = None if self._shapes is None else self._shapes.frame_size
        return format_export(self._bundle.path, target, "int8", self._device, size)

    def _provide_graphs(self) -> Build:
        """Return the fp32 ONNX build, made anew where it is asked for by name.

        Without torch it is made anew from its own core, which is what tracing the student gave.
        """
        is_asked = ("onnx", "fp32") in self._cells
        existing = None if is_asked and not _list_missing() else find_graphs(self._bundle)
        if existing is not None and not is_asked:
            return existing
        if existing is None:
            _check_tracing_is_possible(self._bundle)
        else:
            _check_onnx_is_here(self._bundle)
        from edgekd.export.onnx import build_onnx, read_core

        core = None if existing is None else read_core(existing)
        return build_onnx(self._bundle, core, self._shapes if is_asked else None)

    def _provide_int8(self) -> Build:
        """Return the int8 ONNX build, made anew once where calibration frames are named."""
        if self._int8_fault is not None:
            raise self._int8_fault
        if self._int8 is None:
            try:
                self._int8 = self._find_int8() if self._calib is None else self._build_int8()
            except EdgeKDError as error:
                self._int8_fault = _copy_error(error)
                raise
        return self._int8

    def _find_int8(self) -> Build:
        found = find_graphs(self._bundle, "int8")
        assert found is not None  # _check_calibration saw it
        if ("onnx", "int8") not in self._cells:
            return found
        if self._shapes is None:
            return free_shapes(self._bundle, found)
        return fix_shapes(self._bundle, found, self._shapes)

    def _build_int8(self) -> Build:
        from edgekd.export.onnx import build_onnx_int8

        shapes = self._shapes if ("onnx", "int8") in self._cells else None
        return build_onnx_int8(self._bundle, self._graphs, self._calibration, shapes, quiet=self._quiet)

    def _find_calibration(self) -> Calibration | None:
        return None if self._calib is None else self._calibration

    @cached_property
    def _calibration(self) -> Calibration:
        assert self._calib is not None
        return load_calibration(self._bundle, self._calib, quiet=self._quiet)

    def _build_tensorrt(self, target: str, precision: str) -> Build:
        from edgekd.export.tensorrt import build_tensorrt

        with self._open_engine_graph(target, precision) as (graph, found):
            fields, files, notices = build_tensorrt(
                self._bundle, graph, target, precision, self._sm, self._options, self._progress
            )
            facts = {**fields.pop("facts"), **found, "notices": [*found.get("notices", ()), *notices]}
            with draft_build(self._bundle, **fields, files=files, facts=facts) as draft:
                obstacle = find_obstacle(draft)
                if obstacle is None:
                    return install_checked(self._bundle, draft)
                notices = [*facts["notices"], f"built, not run here: {obstacle}"]
                return install_build(self._bundle, draft, facts={**facts, "notices": notices})

    @contextlib.contextmanager
    def _open_engine_graph(self, target: str, precision: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Give the file of the engine graph in a precision, and what is known about how it was made."""
        if precision == "fp32":
            yield self._graphs.resolve_file(ENGINE_FILE), {}
            return
        existing = None if self._calib is not None else find_engine_graph(self._bundle, precision, target)
        if existing is not None:
            kept = pick_graph_facts(existing)
            if (kept.get("calibration") or {}).get("data_of_the_student") is False:
                kept["notices"] = [f"{precision}: {OTHER_DATA}"]
            yield existing.resolve_file(ENGINE_FILE), kept
            return
        _check_onnx_is_here(self._bundle)
        from edgekd.export.engine_graphs import build_engine_in

        made = build_engine_in(
            self._bundle, self._graphs, precision, self._find_calibration(), quiet=self._quiet
        )
        with temporary_folder() as folder:
            path = folder / ENGINE_FILE
            path.write_bytes(made.content)
            yield path, {**made.facts, "notices": made.notices}


def _list_missing() -> list[str]:
    return [name for name in TRACING_PACKAGES if importlib.util.find_spec(name) is None]


def _check_tracing_is_possible(bundle: Bundle) -> None:
    missing = _list_missing()
    if missing:
        raise MachineError(
            f"the ONNX graphs of {bundle.path} must be traced, which needs {', '.join(missing)}",
            action=f"run `{format_export(Path(bundle.path.name), 'onnx')}` on the workstation, then copy it; "
            'or pip install "edgekd[train]" here',
        )


def _check_onnx_is_here(bundle: Bundle) -> None:
    if importlib.util.find_spec("onnx") is None:
        raise MachineError(
            f"graphs of {bundle.path} cannot be made without the package onnx",
            action="pip install onnx, or run it on the workstation, then copy the bundle",
        )
