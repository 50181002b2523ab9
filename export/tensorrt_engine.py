"""A serialized TensorRT engine from an ONNX graph, by ``tensorrt`` or ``tensorrt_rtx``: one code path."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import EdgeKDError
from edgekd.export.source_graphs import ENGINE_FILE
from edgekd.export.tensorrt_network import check_network_precision, read_network_layers
from edgekd.runtime.tensorrt_library import PACKAGES, MessageLog, describe_platform

PLAN_FILE = "student.engine"


@dataclass(frozen=True)
class EnginePlan:
    """A serialized engine, as trtexec would write it.

    Attributes:
        plan: the raw plan.
        timing_cache: measured kernel times, to build faster next time; None where the library keeps none.
        facts: what must be known to run the plan, and what was found while building it.
    """

    plan: bytes
    timing_cache: bytes | None
    facts: dict[str, Any]


def build_engine(
    library: Any,
    target: str,
    graph: Path,
    architectures: Sequence[int],
    precision: str = "fp32",
    *,
    timing_cache: bytes | None = None,
) -> EnginePlan:
    """Build a strongly typed engine for batches of one, TF32 off.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        target: its target name.
        graph: the ONNX file; a dynamic first axis becomes 1.
        architectures: compute capabilities; more than one only for ``tensorrt_rtx``.
        precision: what the graph is to compute in.
        timing_cache: that of an earlier build.

    Raises:
        MachineError: the parsed network would compute in another precision.
        EdgeKDError: the graph does not parse or does not build; the message carries the library's log.
    """
    log = MessageLog(library)
    start = time.perf_counter()
    builder = library.Builder(log.logger)
    network = _parse_graph(library, builder, log, graph)
    config = builder.create_builder_config()
    # On by default in TensorRT; it rounds the factors of fp32 products to 10 bits.
    config.clear_flag(library.BuilderFlag.TF32)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    shapes = {tensor.name: _fix_batch(tensor) for tensor in inputs}
    dynamic = {tensor.name: shapes[tensor.name] for tensor in inputs if -1 in tuple(tensor.shape)}
    if dynamic:
        _add_profile(builder, config, dynamic)
    others = check_network_precision(precision, read_network_layers(library, network))
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
        raise EdgeKDError(f"{PACKAGES[target]} could not build {graph.name}", received=log.format_errors())
    facts = {
        "library": f"{PACKAGES[target]} {library.__version__}",
        "platform": describe_platform(),
        "architectures": list(architectures),
        "inputs": shapes,
        "layers": network.num_layers,
        "image_dtype": inputs[0].dtype.name,
        "layers_in_other_precision": others,
        "strongly_typed": True,
        "tf32": bool(config.get_flag(library.BuilderFlag.TF32)),
        "build_s": round(time.perf_counter() - start, 3),
        "command": format_command(target, dynamic, architectures),
        "warnings": log.list_warnings(),
    }
    return EnginePlan(bytes(plan), None if cache is None else bytes(cache.serialize()), facts)


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


def _parse_graph(library: Any, builder: Any, log: MessageLog, graph: Path) -> Any:
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        texts = "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}".strip() for e in errors)
        raise EdgeKDError(f"TensorRT's parser refuses {graph.name}", received=texts or log.format_errors())
    return network


def _fix_batch(tensor: Any) -> list[int]:
    """Return the shape of an input with a batch of one."""
    batch, *image = tuple(tensor.shape)
    if batch not in (-1, 1) or -1 in image:
        raise EdgeKDError(
            "the engine graph has another shape than (batch, C, h, w) with C, h and w fixed",
            received=f"{tensor.name} {(batch, *image)}",
        )
    return [1, *image]


def _add_profile(builder: Any, config: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Fix the shapes of dynamic inputs: lowest, usual and highest are the same."""
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, tuple(shape), tuple(shape), tuple(shape))
    config.add_optimization_profile(profile)
