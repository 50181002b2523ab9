"""Builds on trial: run under a hidden name, and given their own once they passed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.bundle import NOT_SHOWN, Build, Bundle, draft_build, install_build, name_build
from edgekd.errors import GateFailure
from edgekd.export.agreement import install_checked, run_on_golden_frames
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes, open_fixed
from edgekd.runtime import find_obstacle


def keep_build(
    bundle: Bundle,
    *,
    target: str,
    precision: str,
    device: str = "CPU",
    files: Mapping[str, Path | bytes],
    facts: Mapping[str, Any],
    shapes: FixedShapes | None = None,
) -> Build:
    """Write the build of a deploy graph, once it has run on the golden frames.

    For another device its graph runs on the processor first; where the device is not here that is all, and
    the build is ``built, not run``.
    Whatever fails leaves the build that was there as it was.

    Args:
        bundle: the bundle.
        target: ``onnx`` or ``openvino``.
        precision: of the build.
        device: what it is for, here or not.
        files: name in the build → bytes, or the path of a file to copy.
        facts: of the build's record.
        shapes: what its graph shall take alone; None leaves it free.

    Raises:
        MachineError, SegmenterFault: it cannot run here as asked, or fails.
        GateFailure: its masks are others.
    """
    # Hints make OpenVINO's fp16 and bf16, of a graph in float32; ONNX's fp16 a processor computes in float32.
    stand_in = precision if device == "CPU" or precision == "int8" else "fp32"
    with _draft(bundle, target, stand_in, "CPU", files, facts) as draft:
        if device != "CPU":
            return _keep_for_device(bundle, draft, precision, device, shapes)
        return install_checked(bundle, draft) if shapes is None else fix_shapes(bundle, draft, shapes)


def _keep_for_device(
    bundle: Bundle, trial: Build, precision: str, device: str, shapes: FixedShapes | None
) -> Build:
    """Write the build for a device of a draft for the processor, which also takes what is not fixed yet."""
    target, stand_in = trial.record.target, trial.record.precision_asked
    with contextlib.ExitStack() as stack:
        try:
            if shapes is not None:
                trial = stack.enter_context(open_fixed(bundle, trial, shapes))
            # An ONNX graph in half is so on a processor too, but for the sums; OpenVINO's is of float32.
            seen = run_on_golden_frames(bundle, trial, precision if target == "onnx" else None)
        except GateFailure as error:
            raise GateFailure(
                f"the build {name_build(target, precision, device)} was not kept: its graph failed on the "
                f"processor in {stand_in}",
                received=error.received,
                expected=error.expected,
                action=error.action,
            ) from error
        known = {**trial.record.facts, f"on_the_processor_in_{stand_in}": seen}
        kept = {name: trial.resolve_file(name) for name in trial.record.files}
        draft = stack.enter_context(_draft(bundle, target, precision, device, kept, known))
        if find_obstacle(draft) is None:
            return install_checked(bundle, draft)
        said = f"not run on {device}; its graph ran on the processor in {stand_in}"
        return install_build(bundle, draft, facts={**known, "notices": [*known.get("notices", ()), said]})


def _draft(
    bundle: Bundle,
    target: str,
    precision: str,
    device: str,
    files: Mapping[str, Path | bytes],
    facts: Mapping[str, Any],
) -> contextlib.AbstractContextManager[Build]:
    return draft_build(
        bundle,
        target=target,
        precision_asked=precision,
        # Of a hint that was never taken by its device, and of an NPU, nothing is read back.
        precision_effective=precision if device == "CPU" or target == "onnx" else NOT_SHOWN,
        device=device,
        files=files,
        facts=facts,
    )
