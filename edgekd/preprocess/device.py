"""What the CUDA driver says about the GPU, asked directly so that no CUDA package needs to be installed."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from edgekd.errors import MachineError

# CUdevice_attribute of the driver's cuda.h.
_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76


@dataclass(frozen=True)
class CudaDevice:
    """One GPU and its driver.

    Attributes:
        index: its number at the driver.
        name: product name.
        architecture: compute capability, 87 for 8.7.
        driver_cuda: (major, minor) of the newest CUDA that the driver supports.
    """

    index: int
    name: str
    architecture: int
    driver_cuda: tuple[int, int]


def find_device(index: int = 0, *, library: str | None = None) -> CudaDevice:
    """Return the GPU of number ``index``; makes no context and allocates nothing on it.

    Args:
        index: number of the GPU.
        library: path of the driver's library; None takes the system's.

    Raises:
        MachineError: no driver, no GPU, or not that many.
    """
    driver = _load_driver(library)
    _call(driver, "cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if not 0 <= index < count.value:
        raise MachineError(
            f"there is no GPU number {index}",
            received=f"{count.value} GPUs, numbered from 0",
            action="name another",
        )
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDeviceGet", ctypes.byref(device), index)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(major), _MAJOR_ATTRIBUTE, device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(minor), _MINOR_ATTRIBUTE, device)
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    return CudaDevice(
        index=index,
        name=name.value.decode(errors="replace"),
        architecture=major.value * 10 + minor.value,
        # The driver encodes 12.6 as 12060.
        driver_cuda=(version.value // 1000, version.value % 1000 // 10),
    )


def _load_driver(library: str | None) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(library or ("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"))
    except OSError as error:
        raise MachineError(
            "no NVIDIA driver on this machine",
            received=str(error),
            action="run on a machine with an NVIDIA GPU",
        ) from error


def _call(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    status = getattr(driver, function)(*arguments)
    if status != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        raise MachineError(
            "the NVIDIA driver finds no usable GPU",
            received=f"{function}: {(text.value or b'unknown error').decode()} ({status})",
            action="nvidia-smi shows the driver's state",
        )
