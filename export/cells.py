"""Which precision each target can really compute in on this machine: asked before anything is built."""

from __future__ import annotations

from edgekd.errors import MachineError
from edgekd.runtime.precision import OPENVINO_CAPABILITIES


def check_cell(target: str, precision: str) -> None:
    """Raise MachineError, with the reason, where a build could not compute as asked.

    Args:
        target: a name among `edgekd.bundle.TARGETS`.
        precision: a name among `edgekd.bundle.PRECISIONS`.
    """
    reason = _find_reason(target, precision)
    if reason is None:
        return
    received, action = reason
    raise MachineError(f"no {target} build in {precision}", received=received, action=action)


def _find_reason(target: str, precision: str) -> tuple[str, str] | None:
    if precision == "fp32":
        return None
    if target == "openvino":
        return _find_openvino_reason(precision)
    if precision == "bf16":
        return "bf16 exists for OpenVINO only", "export with --target openvino, or in fp16 or int8"
    if target == "onnx" and precision == "fp16":
        received = "ONNX Runtime computes half-precision graphs in fp32 on a processor"
        return received, "export in fp32 or int8, or in fp16 with --target tensorrt"
    return None


def _find_openvino_reason(precision: str) -> tuple[str, str] | None:
    """Ask OpenVINO what the processor computes in; without OpenVINO the build itself will say so."""
    try:
        import openvino
    except ModuleNotFoundError:
        return None
    has: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if OPENVINO_CAPABILITIES[precision] in has:
        return None
    known = [name for name, capability in OPENVINO_CAPABILITIES.items() if capability in has]
    return (
        f"this processor computes in {', '.join(known)} and OpenVINO would run it in fp32",
        f"export with --precision {known[-1] if known else 'fp32'}, or on a processor with {precision}",
    )
