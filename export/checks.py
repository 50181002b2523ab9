"""What can be asked of an export, checked before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from edgekd.bundle import PRECISIONS, TARGETS, check_precision, check_target
from edgekd.errors import InputError, UsageError, build_unknown_name_error
from edgekd.export.cells import DEVICES, check_cell
from edgekd.export.fixed_shapes import FixedShapes
from edgekd.export.kernels import parse_architecture


def check_device(
    device: str, targets: Sequence[str], precisions: Sequence[str], shapes: FixedShapes | None
) -> str:
    """Return the name of a device in capitals; UsageError where it cannot be meant."""
    name = device.upper()
    _check_names(targets, precisions)
    if name not in DEVICES:
        raise build_unknown_name_error("device", name, DEVICES)
    if name == "CPU":
        return name
    others = [
        f"{target} in {precision}"
        for target, precision in product(targets, precisions)
        if target != "openvino" and (name, target, precision) != ("GPU", "onnx", "fp16")
    ]
    if others:
        raise UsageError(
            "a device is chosen for OpenVINO's builds and ONNX's in fp16 alone",
            received=f"--device {name} for {', '.join(others)}",
            expected="none: TensorRT's builds are for the GPU, ONNX's in fp32 for processor and GPU, and in "
            "int8 for the processor",
            action="export these in a call of their own, without --device",
        )
    if name == "NPU" and (shapes is None or shapes.frame_size is None):
        raise UsageError(
            "an NPU takes frames of one size only",
            received="no --frame-size",
            action="add the size of the frames, height first, as in: --frame-size 768x1024",
        )
    return name


def check_request(
    targets: Sequence[str], precisions: Sequence[str], sm: Sequence[str | int] | None, device: str
) -> None:
    """Raise UsageError for a name that is unknown, MachineError for a pair that cannot be computed here."""
    if not targets:
        raise UsageError(
            "no target was named",
            expected=f"one or more of {', '.join(TARGETS)}",
            action="for example: edgekd export --target onnx --target openvino",
        )
    if not precisions:
        raise UsageError("no precision was named", expected=f"one or more of {', '.join(PRECISIONS)}")
    if sm is not None and not any(target.startswith("tensorrt") for target in targets):
        raise UsageError(
            "a GPU architecture is meant for TensorRT alone",
            received=f"sm {', '.join(map(str, sm))} for {', '.join(targets)}",
            action="leave it out, or add a TensorRT target",
        )
    for text in sm or ():
        parse_architecture(text)
    _check_names(targets, precisions)
    for target, precision in product(targets, precisions):
        check_cell(target, precision, device)


def _check_names(targets: Sequence[str], precisions: Sequence[str]) -> None:
    for target in targets:
        check_target(target)
    for precision in precisions:
        check_precision(precision)


def check_calib_is_used(calib: Path, precisions: Sequence[str]) -> None:
    """Raise InputError where there is no such data set, UsageError where nothing would be made with it."""
    if not calib.exists():
        raise InputError(
            f"the data set {calib} of --calib is not there",
            expected="the data set that the student was distilled on",
        )
    if all(precision == "fp32" for precision in precisions):
        raise UsageError(
            "nothing that was asked for uses --calib",
            received=f"--calib {calib} with precision fp32 alone",
            action="leave it out, or add a precision that is judged with it, as in: --precision int8",
        )
