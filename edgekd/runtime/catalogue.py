"""The engines by target, and loading one of them for a bundle."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from edgekd.bundle import TARGETS, Build, Bundle, check_precision, list_builds
from edgekd.errors import MachineError, UsageError, build_unknown_name_error
from edgekd.extras import explain_installing
from edgekd.interrupts import check_interrupt
from edgekd.runtime.base import LoadRequest, Segmenter


class Entry(NamedTuple):
    """Where an engine's class is, what must be importable for it, and what installs that.

    Attributes:
        location: ``module:Class``.
        package: the module the engine needs, or None.
        extra: the extra of EdgeKD that installs it, or None.
        device: the device it takes where none is named.
    """

    location: str
    package: str | None
    extra: str | None
    device: str


PROCESSOR = "CPU"
ENGINES: dict[str, Entry] = {
    "onnx": Entry("edgekd.runtime.onnx:OnnxEngine", "onnxruntime", "onnx", "CPU"),
    "openvino": Entry("edgekd.runtime.openvino:OpenVinoEngine", "openvino", "openvino", "CPU"),
    "tensorrt": Entry("edgekd.runtime.tensorrt:TensorRtEngine", "tensorrt", "tensorrt", "GPU"),
    "tensorrt-rtx": Entry("edgekd.runtime.tensorrt:TensorRtEngine", "tensorrt_rtx", "tensorrt-rtx", "GPU"),
    "null": Entry("edgekd.runtime.null:NullEngine", None, None, "CPU"),
    "scripted": Entry("edgekd.runtime.scripted:ScriptedEngine", None, None, "CPU"),
}


def load(
    bundle: Path | str | Bundle,
    target: str,
    precision: str = "fp32",
    device: str | None = None,
    *,
    cache: Path | str | None = None,
    threads: int | None = None,
    build: Build | None = None,
) -> Segmenter:
    """Load the build of ``bundle`` for a target and return a segmenter that runs it.

    Args:
        bundle: an opened bundle, or the path of one.
        target: a name in ENGINES.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; the bundle must hold that build.
        device: ``CPU``, ``GPU`` or ``NPU``; None takes the target's own (CPU, for TensorRT GPU).
            There is no fallback: a device that is not there is an error.
        cache: folder where an engine may keep compiled code; nothing is ever written into the bundle.
        threads: processor threads the engine may use, on the processor alone; None leaves it to the engine.
        build: a draft of that target and precision, to be tried; None takes the bundle's own build.

    Raises:
        UsageError: an unknown target or precision, fewer than one thread, threads on another device, or a
            cache that cannot be made.
        MachineError: the package, device or build is missing; the error names the command that adds it.
        IntegrityError: a file is not what its record says.
    """
    entry = find_entry(target)
    check_precision(precision)
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(
            "an engine needs a thread", received=f"threads={threads!r}", expected="a whole number, 1 or more"
        )
    place = (device or entry.device).upper()
    if threads is not None and place != PROCESSOR:
        raise UsageError(
            "threads are those of an engine on the processor",
            received=f"threads={threads} for {target} on {place}",
            action="leave them out",
        )
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    folder = None if cache is None else Path(cache)
    request = LoadRequest(opened, target, precision, place, folder, threads, build)
    engine_class = load_engine_class(target)
    try:
        engine = engine_class(request)
    except ImportError as error:
        # An extension that is interrupted while it initialises says that it cannot be imported.
        check_interrupt()
        raise MachineError(f"{target} is installed but cannot be imported", received=error) from error
    # Only the engines of a deploy graph know limits: the others take any frame.
    limits = getattr(engine, "limits", None)
    return Segmenter(engine, opened.manifest.preprocess, opened.manifest.classes, limits)


def find_entry(target: str) -> Entry:
    """Return the entry of a target; an unknown name is a UsageError that offers the nearest."""
    if target not in ENGINES:
        raise build_unknown_name_error("target", target, TARGETS)
    return ENGINES[target]


def load_engine_class(target: str) -> Any:
    """Import and return the engine class of a target.

    Raises:
        UsageError: the target is unknown.
        MachineError: its package is not installed; the error names the pip command.
    """
    entry = find_entry(target)
    missing = _explain_missing_package(entry)
    if missing is not None:
        raise MachineError(f"{target} cannot run here: {missing}")
    module, _, name = entry.location.partition(":")
    return getattr(importlib.import_module(module), name)


def list_runnable(
    bundle: Bundle, target: str | None = None, precision: str | None = None, device: str | None = None
) -> list[tuple[Build, str | None]]:
    """Return every build of ``bundle`` with the reason why it cannot run here, or None if it can.

    Args:
        bundle: the opened bundle.
        target, precision: only such builds, whose records alone are read; None takes all.
        device: where each shall run, such as ``GPU``; None asks for each on the device it was made for.

    Raises:
        IntegrityError: a build's record is not what it should be.
    """
    return [(build, find_obstacle(build, device)) for build in list_builds(bundle, target, precision)]


def find_obstacle(build: Build, device: str | None = None) -> str | None:
    """Return why ``build`` cannot run here on ``device``, or None if it can; None takes the build's own."""
    target = build.record.target
    missing = _explain_missing_package(ENGINES[target])
    if missing is not None:
        return missing
    try:
        return load_engine_class(target).find_obstacle(build, (device or build.record.device).upper())
    except ImportError as error:
        check_interrupt()
        return f"{target} is installed but cannot be imported: {error}"


def _explain_missing_package(entry: Entry) -> str | None:
    if entry.package is None or entry.extra is None or _is_installed(entry.package):
        return None
    return f"the package {entry.package} is not installed ({explain_installing(entry.extra)})"


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:
        # A package that is blocked by None in sys.modules has no spec.
        return False
