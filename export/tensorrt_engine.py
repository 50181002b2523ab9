"""A serialized TensorRT engine from a parsed graph, by ``tensorrt`` or ``tensorrt_rtx``: one code path."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.errors import EdgeKDError
from edgekd.export.source_graphs import ENGINE_FILE
from edgekd.export.tensorrt_inspector import inspect_engine, read_inspected_layers
from edgekd.export.tensorrt_network import ParsedNetwork, check_precision, read_network_layers
from edgekd.export.tensorrt_options import BatchProfile, TensorRtOptions, apply_options, choose_profile
from edgekd.export.tensorrt_progress import create_monitor, hold_interrupts
from edgekd.progress import Progress
from edgekd.runtime.precision import Layer
from edgekd.runtime.tensorrt_library import PACKAGES, describe_platform

PLAN_FILE = "student.engine"


@dataclass(frozen=True)
class EnginePlan:
    """A serialized engine, as trtexec would write it.

    Attributes:
        plan: the raw plan.
        timing_cache: measured kernel times, to build faster next time; None where the library keeps none.
        details: the engine inspector's JSON text; None where the engine was not loaded here.
        facts: what must be known to run the plan, and what was found while building it.
    """

    plan: bytes
    timing_cache: bytes | None
    details: str | None
    facts: dict[str, Any]


def build_engine(
    parsed: ParsedNetwork,
    target: str,
    precision: str,
    architectures: Sequence[int],
    *,
    options: TensorRtOptions | None = None,
    timing_cache: bytes | None = None,
    inspect: bool = False,
    progress: Progress | None = None,
) -> EnginePlan:
    """Build a strongly typed engine, TF32 off.

    Args:
        parsed: the graph.
        target: ``tensorrt`` or ``tensorrt-rtx``.
        precision: what the graph is meant to compute in: ``fp32``, ``fp16`` or ``int8``.
        architectures: compute capabilities; more than one only for ``tensorrt_rtx``.
        options: batch profile, workspace, compatibility; None is an engine for batches of one.
        timing_cache: that of an earlier build.
        inspect: load the engine here and read its precision back from it.
        progress: an open group of bars to show the builder's phases in.

    Raises:
        UsageError: the options name other shapes than the graph's.
        MachineError: the graph or the engine computes in another precision, or the library lacks an option.
        EdgeKDError: the graph does not build; the message carries the library's log.
    """
    start = time.perf_counter()
    options = options or TensorRtOptions()
    library = parsed.library
    layers = read_network_layers(parsed)
    precision_facts = check_precision(layers, precision, "parsed network")
    profile = choose_profile(options, parsed.image, parsed.shape)
    config = parsed.builder.create_builder_config()
    # On by default in TensorRT; it rounds the factors of fp32 products to 10 bits.
    config.clear_flag(library.BuilderFlag.TF32)
    apply_options(options, library, target, config)
    if inspect:
        config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    _add_profile(parsed, config, profile)
    cache = None
    if target == "tensorrt-rtx":
        _name_architectures(parsed, config, architectures)
    else:
        cache = _use_timing_cache(config, timing_cache)
    plan = _run_builder(parsed, config, target, progress or Progress(quiet=True))
    host_code = options.version_compatible
    details = inspect_engine(library, plan, host_code=host_code) if inspect else None
    if details is not None:
        precision_facts = _check_inspected(details, layers, precision)
    facts = {
        "library": f"{PACKAGES[target]} {library.__version__}",
        "platform": describe_platform(),
        "architectures": list(architectures),
        "inputs": {parsed.image: [profile.usual, *parsed.shape[1:]]},
        "batch": list(profile),
        "version_compatible": options.version_compatible,
        "hardware_compatible": options.hardware_compatible,
        "workspace_mib": options.workspace,
        "layers": parsed.network.num_layers,
        "precision": precision_facts,
        "strongly_typed": True,
        "tf32": bool(config.get_flag(library.BuilderFlag.TF32)),
        "build_s": round(time.perf_counter() - start, 3),
        "command": format_command(parsed, target, profile, architectures, options, inspect),
        "warnings": parsed.log.list_warnings(),
    }
    return EnginePlan(plan, None if cache is None else bytes(cache.serialize()), details, facts)


def format_command(
    parsed: ParsedNetwork,
    target: str,
    profile: BatchProfile,
    architectures: Sequence[int],
    options: TensorRtOptions,
    detailed: bool = False,
) -> str:
    """Return the command line that builds the same engine with the library's own tool."""
    command = f"--onnx={ENGINE_FILE} --saveEngine={PLAN_FILE} --noTF32"
    # The tools refuse shapes for an input whose batch is fixed.
    if parsed.shape[0] == -1:
        minimum, usual, maximum = (_format_shape(parsed, batch) for batch in profile)
        command += (
            f" --shapes={usual}"
            if minimum == maximum
            else f" --minShapes={minimum} --optShapes={usual} --maxShapes={maximum}"
        )
    if options.workspace is not None:
        command += f" --memPoolSize=workspace:{options.workspace}M"
    if detailed:
        command += " --profilingVerbosity=detailed"
    if target == "tensorrt-rtx":
        return f"tensorrt_rtx {command} --computeCapabilities={','.join(map(str, architectures))}"
    if options.version_compatible:
        command += " --versionCompatible"
    if options.hardware_compatible != "none":
        command += f" --hardwareCompatibilityLevel={options.hardware_compatible}"
    return f"trtexec {command} --stronglyTyped"


def _format_shape(parsed: ParsedNetwork, batch: int) -> str:
    return f"{parsed.image}:{'x'.join(map(str, (batch, *parsed.shape[1:])))}"


def _add_profile(parsed: ParsedNetwork, config: Any, batches: BatchProfile) -> None:
    if parsed.shape[0] == -1:
        allowed = parsed.builder.create_optimization_profile()
        allowed.set_shape(parsed.image, *((batch, *parsed.shape[1:]) for batch in batches))
        config.add_optimization_profile(allowed)


def _name_architectures(parsed: ParsedNetwork, config: Any, architectures: Sequence[int]) -> None:
    config.num_compute_capabilities = len(architectures)
    for index, number in enumerate(architectures):
        if not config.set_compute_capability(parsed.library.ComputeCapability(number), index):
            raise EdgeKDError(f"TensorRT-RTX refuses sm_{number}", received=parsed.log.format_errors())


def _use_timing_cache(config: Any, content: bytes | None) -> Any:
    cache = config.create_timing_cache(content or b"")
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        # Measured on another GPU or by another version: start anew.
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _run_builder(parsed: ParsedNetwork, config: Any, target: str, progress: Progress) -> bytes:
    monitor = create_monitor(parsed.library, progress)
    config.progress_monitor = monitor
    with hold_interrupts(monitor):
        plan = parsed.builder.build_serialized_network(parsed.network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise EdgeKDError(
            f"{PACKAGES[target]} could not build {parsed.graph.name}", received=parsed.log.format_errors()
        )
    return bytes(plan)


def _check_inspected(details: str, layers: Sequence[Layer], precision: str) -> dict[str, Any]:
    inspected, found = read_inspected_layers(details, layers)
    origin = f"engine inspector, which names {found} of {len(layers)} layers"
    return check_precision(inspected, precision, origin)
