"""Whether a build can be loaded here, told from its record before any of its files is read.

A fact that a record does not hold, as those of older builds, is not checked.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgekd.bundle import NOT_SHOWN, Build, Bundle, format_export
from edgekd.errors import IntegrityError, MachineError
from edgekd.runtime.precision import list_precisions

_SHAPES = ("min", "opt", "max")


def format_rebuild(build: Build, *, resize: bool = False) -> str:
    """Return the command that makes a build anew; with ``resize`` for frames of another size, or of any."""
    record = build.record
    facts = {key: value for key, value in record.facts.items() if not (resize and key == "frame_size")}
    size = facts.get("frame_size")
    command = format_export(
        build.path.parent.parent, record.target, record.precision_asked, record.device, size
    )
    options = [*_list_shape_options(facts), *_list_engine_options(facts.get("engine", {}))]
    if "--frame-size" in command:  # an NPU's, named already
        options = [word for word in options if not word.startswith("--frame-size")]
    return " ".join([command, *map(shlex.quote, options)])


def _list_shape_options(facts: Mapping[str, Any]) -> list[str]:
    size, batch = facts.get("frame_size"), facts.get("batch")
    words = [] if size is None else ["--frame-size={}x{}".format(*size)]
    return words if batch is None else [*words, f"--batch={batch}"]


def _list_engine_options(engine: Mapping[str, Any]) -> list[str]:
    """Return the options of a TensorRT build; not the GPU's, which is another where an engine is refused."""
    words: list[str] = []
    sizes = engine.get("batch", [1, 1, 1])
    for image, (_, *shape) in engine.get("inputs", {}).items():
        texts = ["x".join(map(str, (size, *shape))) for size in sizes]
        if len(set(sizes)) > 1:
            words += [f"--{name}-shapes={image}:{text}" for name, text in zip(_SHAPES, texts, strict=True)]
        elif sizes[0] > 1:
            words.append(f"--opt-shapes={image}:{texts[0]}")
    if engine.get("workspace_mib") is not None:
        words.append(f"--workspace={engine['workspace_mib']}")
    if engine.get("version_compatible"):
        words.append("--version-compatible")
    level = engine.get("hardware_compatible", "none")
    return words if level == "none" else [*words, f"--hardware-compatible={level}"]


def format_other_engine(build: Build) -> str:
    """Return the command that makes a build of the same student for the other engine of its device."""
    bundle, precision = build.path.parent.parent, build.record.precision_asked
    if (build.record.target, precision) == ("onnx", "fp16"):
        return format_export(bundle, "tensorrt", precision)
    target = "onnx" if build.record.target == "openvino" else "openvino"
    # On a processor ONNX Runtime computes neither in fp16 nor in bf16, and not every one does in OpenVINO.
    return format_export(bundle, target, precision if precision in ("fp32", "int8") else "fp32")


def offer_processor(build: Build) -> str:
    """Return what makes an ONNX build of the same student that runs on a processor, as part of a sentence."""
    return f"build for the processor: {format_export(build.path.parent.parent, 'onnx', 'fp32')}"


def check_build_record(build: Build, bundle: Bundle) -> None:
    """Raise where a build does not compute as it was asked to, or preprocesses in another way.

    Raises:
        MachineError: its effective precision is another than the one asked for.
        IntegrityError: its preprocessing is not that of ``bundle``.
    """
    record = build.record
    if record.precision_effective not in (record.precision_asked, NOT_SHOWN):
        raise MachineError(
            f"the build {build.name} does not compute in the precision it was asked for",
            received=record.precision_effective,
            expected=record.precision_asked,
            action=format_rebuild(build),
        )
    expected = bundle.manifest.preprocess.compute_hash()
    found = record.facts.get("preprocess_sha256", expected)
    if found != expected:
        raise IntegrityError(
            f"the preprocessing of the build {build.name} is not that of the bundle",
            received=f"sha256 {found[:12]}…",
            expected=f"{expected[:12]}…",
            action=format_rebuild(build),
        )


def check_provider(build: Build, provider: str, usual: Sequence[str]) -> None:
    """Raise MachineError where an ONNX build is meant for other execution providers.

    Args:
        build: an ONNX build.
        provider: the one that would run it.
        usual: what builds of its precision are meant for, where its record does not say.
    """
    meant: Sequence[str] = build.record.facts.get("providers", usual)
    if provider not in meant:
        reason, rebuild = _explain_provider(build)
        raise MachineError(
            f"the build {build.name} is not meant for {provider}",
            received=f"{provider}{reason}",
            expected=" or ".join(meant),
            action=f"take another --device, {rebuild}",
        )


def _explain_provider(build: Build) -> tuple[str, str]:
    """Return why the other provider would not compute in a build's precision, and what does there."""
    bundle, precision = build.path.parent.parent, build.record.precision_asked
    if precision == "int8":
        reason = ", which has no int8 convolutions and would compute them in float"
        return reason, f"or build for the GPU: {format_export(bundle, 'tensorrt', 'int8')}"
    if precision == "fp16":
        reason = ", which has no half precision and would compute in float32"
        return reason, f"such as GPU, or {offer_processor(build)}"
    return "", f"for a GPU a TensorRT build, or {format_rebuild(build)}"


def check_onnx_format(build: Build, library: str, reads: Callable[[int, int], str | None]) -> None:
    """Raise MachineError where ONNX Runtime does not read graphs of a build's format.

    Args:
        build: an ONNX build.
        library: name and version of the library, for the message.
        reads: IR version and opset → why such a graph is not read, or None if it is.
    """
    facts = build.record.facts
    if "ir_version" not in facts or "opset" not in facts:
        return
    reason = reads(facts["ir_version"], facts["opset"])
    if reason is not None:
        raise _build_format_error(build, library, f"IR {facts['ir_version']}, opset {facts['opset']}", reason)


def check_openvino_format(build: Build, library: str, opsets: Sequence[int]) -> None:
    """Raise MachineError where OpenVINO lacks operators of a build's graph.

    Args:
        build: an OpenVINO build.
        library: name and version of the library, for the message.
        opsets: the operator sets that it has.
    """
    opset = build.record.facts.get("opset")
    if opset is not None and opset not in opsets:
        raise _build_format_error(build, library, f"opset {opset}", f"it knows up to {max(opsets)}")


def check_capability(build: Build, device: str, capabilities: Sequence[str]) -> None:
    """Raise MachineError where a device of OpenVINO does not run a build as it was asked to.

    Args:
        build: an OpenVINO build.
        device: its name.
        capabilities: what the library says of it, such as ``FP32`` and ``INT8``.
    """
    precision, bundle = build.record.precision_asked, build.path.parent.parent
    here = list_precisions(capabilities)
    if precision not in here:
        raise MachineError(
            f"{device} does not compute in {precision}, for which {build.name} was built",
            received=f"{device} computes in {', '.join(here) or 'none of ours'}",
            action=_advise_capability(build, device, here),
        )
    if device.startswith("NPU") and build.record.facts.get("frame_size") is None:
        raise MachineError(
            f"an NPU takes frames of one size only, {build.name} any",
            action=format_export(bundle, build.record.target, precision, device),
        )


def _advise_capability(build: Build, device: str, here: Sequence[str]) -> str:
    if not build.record.device.startswith(device.partition(".")[0]) and build.record.device != "CPU":
        return f"run it on {build.record.device}, for which it was made"
    if device == "CPU" or not here:
        return f"{format_rebuild(build)} where the processor has it, or another precision here"
    return format_export(build.path.parent.parent, build.record.target, here[0], device)


def _build_format_error(build: Build, library: str, found: str, reason: Any) -> MachineError:
    return MachineError(
        f"{library} does not read the graph of {build.name}",
        received=f"{found}: {reason}",
        action=f"update it, or build anew: {format_rebuild(build)}",
    )
