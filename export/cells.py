"""Which precision each target can really compute in on this machine: asked before anything is built."""

from __future__ import annotations

from edgekd.errors import MachineError
from edgekd.runtime.openvino import find_device
from edgekd.runtime.precision import list_precisions

DEVICES = ("CPU", "GPU", "NPU")
# What devices compute in that are not here to be asked: OpenVINO's documentation of its devices. An NPU takes
# the hints f16 and i8 alone.
_KNOWN_CAPABILITIES = {"GPU": ("FP32", "FP16", "INT8"), "NPU": ("FP16", "INT8")}


def check_cell(target: str, precision: str, device: str = "CPU") -> None:
    """Raise MachineError, with the reason, where a build could not compute as asked.

    Args:
        target: a name among `edgekd.bundle.TARGETS`.
        precision: a name among `edgekd.bundle.PRECISIONS`.
        device: a name among DEVICES; of an ONNX build GPU is NVIDIA's, of OpenVINO's Intel's.
    """
    reason = _find_reason(target, precision, device)
    if reason is None:
        return
    received, action = reason
    raise MachineError(f"no {target} build in {precision}", received=received, action=action)


def _find_reason(target: str, precision: str, device: str) -> tuple[str, str] | None:
    if target == "openvino":
        return _find_openvino_reason(precision, device)
    if precision == "fp32":
        return None
    if precision == "bf16":
        return "bf16 exists for OpenVINO only", "export with --target openvino, or in fp32 or int8"
    if target == "onnx" and precision == "fp16" and device != "GPU":
        received = "ONNX Runtime computes half-precision graphs in fp32 on a processor"
        return (
            received,
            "export in fp32 or int8, or in fp16 for an NVIDIA GPU: --device GPU, or --target tensorrt",
        )
    return None


def _find_openvino_reason(precision: str, device: str) -> tuple[str, str] | None:
    """Ask OpenVINO what the device computes in; without OpenVINO the build itself will say so."""
    try:
        import openvino
    except ModuleNotFoundError:
        return None
    core = openvino.Core()
    is_here = device == "CPU" or find_device(device, core.available_devices) is not None
    has = core.get_property(device, "OPTIMIZATION_CAPABILITIES") if is_here else _KNOWN_CAPABILITIES[device]
    known = list_precisions(has)
    if precision in known:
        return None
    if device != "CPU":
        return f"{device} computes in {', '.join(known)}", f"export with {_offer(known[0])}"
    elsewhere = "on a processor with fp16, or for an Intel GPU: --device GPU"
    return (
        f"this processor computes in {', '.join(known)} and OpenVINO would run it in fp32",
        f"export with {' or '.join(map(_offer, known)) or '--precision fp32'}, or "
        + (elsewhere if precision == "fp16" else f"on a processor with {precision}"),
    )


def _offer(precision: str) -> str:
    return f"--precision {precision}" + (" and --calib DATA" if precision == "int8" else "")
