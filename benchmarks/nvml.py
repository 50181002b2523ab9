"""Energy or power of an NVIDIA GPU by the driver's management library, called without a package.

``nvmlDeviceGetTotalEnergyConsumption`` counts mJ (from Volta on), ``nvmlDeviceGetPowerUsage`` gives mW
(NVML API reference). Jetson modules have neither: see ``jetson_power.py``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from edgekd.errors import MachineError

_NVML_LIBRARY, _CUDA_LIBRARY = "libnvidia-ml.so.1", "libcuda.so.1"


class NvmlMeter:
    """Energy or power of one NVIDIA GPU, by the driver's management library."""

    name = "NVML"
    covers = "the GPU board"

    def __init__(self, library: Any, bus_id: bytes) -> None:
        """Open the GPU at a place of the PCI bus; raises MachineError where there is none."""
        self._library = library
        self._device = ctypes.c_void_p()
        _check(library.nvmlInit_v2(), "nvmlInit_v2")
        _check(
            library.nvmlDeviceGetHandleByPciBusId_v2(bus_id, ctypes.byref(self._device)),
            "nvmlDeviceGetHandleByPciBusId_v2",
        )
        self._counts = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong) is not None

    @classmethod
    def find(cls, index: int = 0, load: Any = ctypes.CDLL) -> NvmlMeter | None:
        """Return a meter where the driver, the GPU and one of the two readings are there.

        Args:
            index: number of the GPU as engines count, with which CUDA_VISIBLE_DEVICES has its say.
            load: opens a library by its name.
        """
        try:
            meter = cls(load(_NVML_LIBRARY), _read_bus_id(load(_CUDA_LIBRARY), index))
        except (OSError, AttributeError, MachineError):
            return None
        return meter if meter._counts or meter.read_power_w() else None

    def read_energy_j(self) -> float | None:
        """Return the driver's counter, or None where this GPU has none."""
        value = (
            self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong) if self._counts else None
        )
        return None if value is None else value / 1e3

    def read_power_w(self) -> Mapping[str, float] | None:
        """Return the board's watts, or None where energy is counted or nothing can be read."""
        value = None if self._counts else self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        return None if value is None else {"GPU": value / 1e3}

    def close(self) -> None:
        """Let the library go."""
        self._library.nvmlShutdown()

    def _read(self, function: str, kind: Any) -> int | None:
        value = kind()
        status = getattr(self._library, function)(self._device, ctypes.byref(value))
        return int(value.value) if status == 0 else None


def _read_bus_id(cuda: Any, index: int) -> bytes:
    """Return where GPU number ``index`` of CUDA is, since NVML numbers all GPUs, and in another order."""
    device, bus_id = ctypes.c_int(), ctypes.create_string_buffer(32)
    _check(cuda.cuInit(0), "cuInit")
    _check(cuda.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
    _check(cuda.cuDeviceGetPCIBusId(bus_id, len(bus_id), device), "cuDeviceGetPCIBusId")
    return bus_id.value


def _check(status: int, function: str) -> None:
    if status != 0:
        raise MachineError(f"{function} failed", received=f"status {status}")
