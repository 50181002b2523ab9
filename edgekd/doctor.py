"""What this machine can run, what is missing, and the command that adds it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.extras import explain_installing
from edgekd.processor import read_instructions

GIB = 1 << 30
PROCESSOR_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "bf16",
    "amx_bf16": "AMX",
    "asimdhp": "fp16",
}
# The same module from another wheel: for a GPU, or for CUDA 12 where the plain one is for CUDA 13.
STAND_INS = {
    "onnxruntime": ("onnxruntime-gpu",),
    "nvidia-cuda-nvrtc": ("nvidia-cuda-nvrtc-cu12",),
    "tensorrt": ("tensorrt-cu12",),
    "tensorrt-rtx": ("tensorrt-rtx-cu12",),
}


@dataclass(frozen=True)
class Capability:
    """One thing this machine can or cannot do.

    Attributes:
        name: the capability, for example ``OpenVINO``.
        serves: the verbs or targets that need it.
        available: whether it was found and answered.
        detail: version and devices, or why it does not answer.
        remedy: the command that adds it; None where nothing is missing.
    """

    name: str
    serves: str
    available: bool
    detail: str
    remedy: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dict."""
        return asdict(self)


def examine_machine() -> list[Capability]:
    """Return every capability EdgeKD can use, in the order of its pipeline; imports what it examines."""
    return [
        _describe_processor(),
        _describe_disk(),
        _probe_package("PyTorch", "train, distill, evaluate", ("torch",), _describe_torch, "train"),
        _probe_package("MONAI and Fabric", "train, distill", ("monai", "lightning-fabric"), None, "train"),
        _probe_package("ONNX exporter", "export from a run", ("onnx", "onnxscript"), None, "train"),
        _probe_package("ONNX Runtime", "target onnx", ("onnxruntime",), _describe_onnxruntime, "onnx"),
        _probe_package("OpenVINO", "target openvino", ("openvino",), _describe_openvino, "openvino"),
        _describe_gpu(),
        _probe_package(
            "TensorRT", "target tensorrt", ("tensorrt",), _describe_import("tensorrt"), "tensorrt"
        ),
        _probe_package(
            "TensorRT-RTX",
            "target tensorrt-rtx",
            ("tensorrt-rtx",),
            _describe_import("tensorrt_rtx"),
            "tensorrt-rtx",
        ),
        _probe_package("NVRTC", "CUDA preprocessing, compiled", ("nvidia-cuda-nvrtc",), None, "nvrtc"),
        # The package alone loads anywhere; its driver module needs the driver's library and its symbols.
        _probe_package(
            "PyCUDA", "CUDA preprocessing, run", ("pycuda",), _describe_import("pycuda.driver"), "cuda"
        ),
    ]


def _probe_package(
    name: str,
    serves: str,
    distributions: tuple[str, ...],
    describe: Callable[[], str] | None,
    extra: str,
) -> Capability:
    remedy = explain_installing(extra)
    shown: list[str] = []
    for distribution in distributions:
        found = _find_distribution(distribution)
        if found is None:
            return Capability(name, serves, False, f"{distribution} is not installed", remedy)
        installed, version = found
        shown.append(version if installed == distribution else f"{version} ({installed})")
        if installed != distribution:
            # The extra would put the plain wheel over this one.
            remedy = f"pip install --force-reinstall {installed}"
    detail = ", ".join(shown)
    if describe is None:
        return Capability(name, serves, True, detail, None)
    try:
        return Capability(name, serves, True, f"{detail}; {describe()}".removesuffix("; "), None)
    except Exception as error:  # a broken install may raise anything at import; the doctor reports it
        return Capability(
            name, serves, False, f"{detail}, does not load: {type(error).__name__}: {error}", remedy
        )


def _find_distribution(distribution: str) -> tuple[str, str] | None:
    """Return name and version of the distribution that is installed, or of one that stands for it."""
    for name in (distribution, *STAND_INS.get(distribution, ())):
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _describe_torch() -> str:
    torch = importlib.import_module("torch")
    devices = ["CPU"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return "devices " + ", ".join(devices)


def _describe_onnxruntime() -> str:
    return "providers " + ", ".join(importlib.import_module("onnxruntime").get_available_providers())


def _describe_openvino() -> str:
    return "devices " + ", ".join(importlib.import_module("openvino").Core().available_devices)


def _describe_import(module: str) -> Callable[[], str]:
    def describe() -> str:
        importlib.import_module(module)
        return ""

    return describe


def _describe_processor() -> Capability:
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
    except OSError:
        pass  # no /proc on this system: the model name alone is reported
    flags = read_instructions()
    found = [label for flag, label in PROCESSOR_FLAGS.items() if flag in flags]
    return Capability("Processor", "everything", True, ", ".join([model, platform.machine(), *found]), None)


def _describe_disk() -> Capability:
    free_gib = shutil.disk_usage(Path.cwd()).free / GIB
    return Capability("Disk", "runs and builds", free_gib > 1, f"{free_gib:.1f} GiB free here", None)


def _describe_gpu() -> Capability:
    name, serves = "NVIDIA GPU", "targets tensorrt and onnx, CUDA preprocessing"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Capability(name, serves, False, "no driver (libcuda.so.1) on this machine", None)
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Capability(name, serves, False, "the driver answers, but shows no device", None)
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Capability(name, serves, True, f"{count.value} device(s), driver for CUDA {cuda}", None)
