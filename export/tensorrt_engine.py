"""A serialized TensorRT engine from an ONNX graph, by ``tensorrt`` or ``tensorrt_rtx``: one code path."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.errors import EdgeKDError
from edgekd.export.source_graphs import ENGINE_FILE
from edgekd.export.tensorrt_inspector import inspect_engine, read_inspected_layers
from edgekd.export.tensorrt_network import ParsedNetwork, check_precision, read_network_layers
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
    timing_cache: bytes | None = None,
    inspect: bool = False,
) -> EnginePlan:
    """Build a strongly typed engine for batches of one, TF32 off.

    Args:
        parsed: the graph; a free batch becomes 1.
        target: ``tensorrt`` or ``tensorrt-rtx``.
        precision: what the graph is meant to compute in: ``fp32``, ``fp16`` or ``int8``.
        architectures: compute capabilities; more than one only for ``tensorrt_rtx``.
        timing_cache: that of an earlier build.
        inspect: load the engine here and read its precision back from it.

    Raises:
        MachineError: the graph or the engine computes in another precision.
        EdgeKDError: the graph does not build; the message carries the library's log.
    """
    start = time.perf_counter()
    library, log, builder, network = parsed.library, parsed.log, parsed.builder, parsed.network
    layers = read_network_layers(parsed)
    precision_facts = check_precision(layers, precision, "parsed network")
    config = builder.create_builder_config()
    # On by default in TensorRT; it rounds the factors of fp32 products to 10 bits.
    config.clear_flag(library.BuilderFlag.TF32)
    if inspect:
        config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    shape = [1, *parsed.shape[1:]]
    dynamic = {parsed.image: shape} if parsed.shape[0] == -1 else {}
    if dynamic:
        _add_profile(builder, config, dynamic)
    cache = None
    if target == "tensorrt-rtx":
        config.num_compute_capabilities = len(architectures)
        for index, number in enumerate(architectures):
            if not config.set_compute_capability(library.ComputeCapability(number), index):
                raise EdgeKDError(f"{PACKAGES[target]} refuses sm_{number}", received=log.format_errors())
    else:
        cache = config.create_timing_cache(timing_cache or b"")
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            # Measured on another GPU or by another version: start anew.
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EdgeKDError(
            f"{PACKAGES[target]} could not build {parsed.graph.name}", received=log.format_errors()
        )
    details = None
    if inspect:
        details = inspect_engine(library, bytes(plan))
        inspected, found = read_inspected_layers(details, layers)
        origin = f"engine inspector, which names {found} of {len(layers)} layers"
        precision_facts = check_precision(inspected, precision, origin)
    facts = {
        "library": f"{PACKAGES[target]} {library.__version__}",
        "platform": describe_platform(),
        "architectures": list(architectures),
        "inputs": {parsed.image: shape},
        "layers": network.num_layers,
        "precision": precision_facts,
        "strongly_typed": True,
        "tf32": bool(config.get_flag(library.BuilderFlag.TF32)),
        "build_s": round(time.perf_counter() - start, 3),
        "command": format_command(target, dynamic, architectures),
        "warnings": log.list_warnings(),
    }
    return EnginePlan(bytes(plan), None if cache is None else bytes(cache.serialize()), details, facts)


def format_command(target: str, shapes: Mapping[str, Sequence[int]], architectures: Sequence[int]) -> str:
    """Return the command line that builds the same engine with the library's own tool.

    Args:
        target: the target.
        shapes: shapes of the inputs with a dynamic batch; the tools refuse them for static ones.
        architectures: compute capabilities.
    """
    command = f"--onnx={ENGINE_FILE} --saveEngine={PLAN_FILE} --noTF32"
    if shapes:
        command += " --shapes=" + ",".join(f"{name}:{'x'.join(map(str, s))}" for name, s in shapes.items())
    if target == "tensorrt":
        return f"trtexec {command} --stronglyTyped"
    return f"tensorrt_rtx {command} --computeCapabilities={','.join(map(str, architectures))}"


def _add_profile(builder: Any, config: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Fix the shapes of dynamic inputs: lowest, usual and highest are the same."""
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, tuple(shape), tuple(shape), tuple(shape))
    config.add_optimization_profile(profile)
