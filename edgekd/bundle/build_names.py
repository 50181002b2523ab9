"""What builds are called: their targets, precisions and folders, and the command that makes one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgekd.errors import UsageError, build_unknown_name_error

TARGETS = ("onnx", "openvino", "tensorrt", "tensorrt-rtx")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
DEVICE_PATTERN = r"^[A-Za-z0-9._]+$"
_NAME = re.compile(rf"({'|'.join(TARGETS)})-({'|'.join(PRECISIONS)})-(.+)")


class Cell(NamedTuple):
    """What a build is of: target, precision and device, the last in small letters as in a folder's name."""

    target: str
    precision: str
    device: str


def name_build(target: str, precision: str, device: str) -> str:
    """Return the name of a build's folder, ``<target>-<precision>-<device>``.

    Raises:
        UsageError: a name is unknown or impossible.
    """
    check_target(target)
    check_precision(precision)
    if re.match(DEVICE_PATTERN, device) is None:
        raise UsageError(
            "no device has such a name", received=repr(device), expected="a name such as CPU or GPU.1"
        )
    return f"{target}-{precision}-{device.lower()}"


def parse_build_name(name: str) -> Cell | None:
    """Return what a folder of that name is a build of, or None where it is no build's name."""
    match = _NAME.fullmatch(name)
    return None if match is None else Cell(*match.groups())


def format_export(
    bundle: Path,
    target: str,
    precision: str | None = None,
    device: str | None = None,
    frame_size: Sequence[int] | None = None,
) -> str:
    """Return the command that makes a build, as a shell reads it.

    Args:
        bundle: its path.
        target: of the build.
        precision: None names none.
        device: what the build is for; named where the processor's would else be made. Of ONNX builds only
            that in fp16 has one of its own, the GPU.
        frame_size: (H, W) that an NPU's build takes; None leaves a place for it. Not named for other devices.
    """
    words = ["edgekd", "export", str(bundle), "--target", target]
    words += [] if precision is None else ["--precision", precision]
    family = _find_family(target, precision, device)
    words += ["--device", family] if family in ("GPU", "NPU") else []
    if family == "NPU":
        words += ["--frame-size", "HEIGHTxWIDTH" if frame_size is None else "{}x{}".format(*frame_size)]
    return shlex.join(words)


def _find_family(target: str, precision: str | None, device: str | None) -> str:
    """Return the kind of device that an export has to name, or an empty text."""
    if target == "onnx":
        return "GPU" if precision == "fp16" else ""
    return device.partition(".")[0].upper() if target == "openvino" and device is not None else ""


def check_target(target: str) -> None:
    """Raise UsageError, naming the nearest, where ``target`` is not one of TARGETS."""
    if target not in TARGETS:
        raise build_unknown_name_error("target", target, TARGETS)


def check_precision(precision: str) -> None:
    """Raise UsageError, naming the nearest, where ``precision`` is not one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise build_unknown_name_error("precision", precision, PRECISIONS)
