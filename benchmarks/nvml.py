"""Energy or power of an NVIDIA GPU by the driver's management library, called without a package.

``nvmlDeviceGetTotalEnergyConsumption`` counts mJ (from Volta on), ``nvmlDeviceGetPowerUsage`` gives mW
(NVML API reference). Jetson modules have neither: see ``jetson_power.py``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from edgekd.errors import MachineError

_NVML_LIBRARY = "libnvidia-ml.so.1"


class NvmlMeter:
    """Energy or power of the first NVIDIA GPU, by the driver's management library."""

    name = "NVML"
    covers = "the GPU board"

    def __init__(self, library: Any) -> None:
        """Open the first GPU; raises MachineError where there is none."""
        self._library = library
        self._device = ctypes.c_void_p()
        _check(library.nvmlInit_v2(), "nvmlInit_v2")
        _check(
            library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device)),
            "nvmlDeviceGetHandleByIndex_v2",
        )
        self._counts = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong) is not None

    @classmethod
    def find(cls, load: Any = ctypes.CDLL) -> NvmlMeter | None:
        """Return a meter where the driver, a GPU and one of the two readings are there."""
        try:
            meter = cls(load(_NVML_LIBRARY))
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


def _check(status: int, function: str) -> None:
    if status != 0:
        raise MachineError(f"{function} failed", received=f"status {status}")
