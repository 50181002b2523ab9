"""A bundle's TensorRT build: which library and GPUs, the engine, and the compiled preprocessing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.bundle import Bundle, list_builds, read_golden
from edgekd.errors import IntegrityError, MachineError
from edgekd.export.kernels import compile_kernels, describe_traffic, parse_architecture
from edgekd.export.source_graphs import ENGINE_FILE
from edgekd.export.tensorrt_engine import PLAN_FILE, build_engine
from edgekd.export.tensorrt_inspector import INSPECTOR_FILE
from edgekd.export.tensorrt_network import parse_network
from edgekd.export.tensorrt_options import TensorRtOptions
from edgekd.preprocess.device import CudaDevice, find_device
from edgekd.progress import Progress
from edgekd.runtime.tensorrt_library import AMPERE, PACKAGES, import_library, list_architectures

TIMING_CACHE_FILE = "timing.cache"
# TensorRT-RTX builds for Turing only where it is named.
LOWEST_DEFAULT_ARCHITECTURE = 80


def build_tensorrt(
    bundle: Bundle,
    graph: Path,
    target: str,
    precision: str,
    sm: Sequence[str | int] | None = None,
    options: TensorRtOptions | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], dict[str, bytes | Path], list[str]]:
    """Build an engine of a bundle and compile its preprocessing.

    Args:
        bundle: the bundle.
        graph: the engine graph (``image`` float or half → ``mask`` uint8) in the precision asked for.
        target: ``tensorrt`` or ``tensorrt-rtx``.
        precision: ``fp32``, ``fp16`` or ``int8``; read back from the parsed graph, and from the engine where
            the GPU is at hand.
        sm: compute capabilities to build for; None means this machine's GPU (``tensorrt``) or all that the
            library builds for from Ampere on (``tensorrt-rtx``).
        options: batch profile, workspace and compatibility.
        progress: an open group of bars for the builder's phases.

    Returns:
        Fields for `edgekd.bundle.draft_build` (without ``files``), the files, and sentences for the user.

    Raises:
        MachineError: the library, NVRTC or a GPU is missing, or cannot do the precision or GPU asked for;
            or the graph is in another precision.
        EdgeKDError: the library cannot build the graph.
    """
    target, library, device, notices = pick_library(target)
    architectures = choose_architectures(library, target, device, sm)
    parsed = parse_network(library, graph)
    spec = bundle.manifest.preprocess
    kernels = compile_kernels(spec, list_kernel_architectures(architectures, options), half=parsed.half)
    kernels = describe_traffic(kernels, spec, read_golden(bundle).frames[0].shape)
    timing_cache = _find_timing_cache(bundle, target, precision) if device is not None else None
    engine = build_engine(
        parsed,
        target,
        precision,
        architectures,
        options=options,
        timing_cache=timing_cache,
        inspect=device is not None,
        progress=progress,
    )
    files: dict[str, bytes | Path] = {**kernels.files, ENGINE_FILE: graph, PLAN_FILE: engine.plan}
    if engine.timing_cache is not None:
        files[TIMING_CACHE_FILE] = engine.timing_cache
    if engine.details is not None:
        files[INSPECTOR_FILE] = engine.details.encode()
    fields: dict[str, Any] = {
        "target": target,
        "precision_asked": precision,
        "precision_effective": engine.facts["precision"]["effective"],
        "device": "GPU",
        "status": "built, not run",
        "facts": {
            "engine": engine.facts,
            "kernels": kernels.facts,
            "preprocess_sha256": bundle.manifest.preprocess.compute_hash(),
        },
    }
    notices += [*kernels.notices, f"the same engine by hand: {engine.facts['command']}"]
    return fields, files, notices


def pick_library(target: str) -> tuple[str, Any, CudaDevice | None, list[str]]:
    """Return the target that can be built here, its library, the GPU it needs, and notices for the user.

    ``tensorrt`` needs its library and the GPU it builds for. Where one is missing, TensorRT-RTX is taken,
    which builds without a GPU, and a notice says so. ``tensorrt-rtx`` is taken as asked.

    Raises:
        MachineError: the library that is left is not installed.
    """
    if target == "tensorrt-rtx":
        return target, import_library(target), None, []
    try:
        device = find_device()
        return target, import_library(target), device, []
    except MachineError as error:
        missing = error
    try:
        library = import_library("tensorrt-rtx")
    except MachineError as error:
        raise missing from error
    notice = f"TensorRT cannot build here ({missing.what}): this engine is made by TensorRT-RTX, for RTX GPUs"
    return "tensorrt-rtx", library, None, [notice]


def list_kernel_architectures(architectures: Sequence[int], options: TensorRtOptions | None) -> list[int]:
    """Return the GPUs to compile the preprocessing for; PTX of the first serves all others."""
    is_for_all = options is not None and options.hardware_compatible == "ampere+"
    return sorted({*architectures, AMPERE}) if is_for_all else list(architectures)


def choose_architectures(
    library: Any, target: str, device: CudaDevice | None, sm: Sequence[str | int] | None
) -> list[int]:
    """Return the compute capabilities to build for, ascending.

    Raises:
        UsageError: ``sm`` holds no compute capability.
        MachineError: the library cannot build for one of them here.
    """
    if device is not None:
        possible = default = [device.architecture]
    else:
        possible = list_architectures(library)
        default = [number for number in possible if number >= LOWEST_DEFAULT_ARCHITECTURE]
    if sm is None:
        return default
    asked = sorted({parse_architecture(text) for text in sm})
    impossible = [number for number in asked if number not in possible]
    if impossible:
        raise MachineError(
            f"{PACKAGES[target]} cannot build here for {_format_architectures(impossible)}",
            expected=_format_architectures(possible),
            action="copy the bundle to the device and run there: edgekd export BUNDLE --target tensorrt",
        )
    return asked


def _find_timing_cache(bundle: Bundle, target: str, precision: str) -> bytes | None:
    """Return the timing cache of the build that is to be replaced; one that is damaged is left aside."""
    with contextlib.suppress(IntegrityError):
        for build in list_builds(bundle, target, precision):
            if TIMING_CACHE_FILE in build.record.files:
                return build.resolve_file(TIMING_CACHE_FILE).read_bytes()
    return None


def _format_architectures(numbers: Sequence[int]) -> str:
    return ", ".join(f"sm_{number}" for number in numbers)
