"""Where a machine tells its power: counters of energy, or readings of power that are summed up over time.

RAPL stands here: ``/sys/class/powercap/intel-rapl:N/energy_uj`` counts microjoules of a processor package and
begins again at ``max_energy_range_uj`` (kernel, Documentation/power/powercap); as a rule only root may read
it. The rails of a Jetson are in ``jetson_power.py``, NVIDIA's GPUs in ``nvml.py``. A source that is not there
or may not be read is left out: its energy is then "not measured".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from edgekd.benchmarks.jetson_power import Ina3221Meter, TegrastatsMeter
from edgekd.benchmarks.nvml import NvmlMeter
from edgekd.benchmarks.sysfs import read_int, read_text
from edgekd.errors import MachineError

NVIDIA_TARGETS = ("tensorrt", "tensorrt-rtx", "onnx")
"""Targets whose GPU is one of NVIDIA; ONNX Runtime's is by its CUDA provider."""


class PowerMeter(Protocol):
    """One source; exactly one of its two readings is there.

    Attributes:
        name: what reports call it.
        covers: what its figure includes, in words.
    """

    name: str
    covers: str

    def read_energy_j(self) -> float | None:
        """Return a counter of joules that only grows, or None where power is read instead."""
        ...

    def read_power_w(self) -> Mapping[str, float] | None:
        """Return watts by rail now, or None where energy is counted instead."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def find_meter(root: Path = Path("/"), *, target: str, device: str) -> PowerMeter | None:
    """Return the source that covers most of what an engine takes, or None.

    A board's input comes first. Else the board of an NVIDIA GPU is taken for an engine that runs on it, and
    the processor's packages for one that does not run on a GPU: the power of a part that does not compute
    says nothing. OpenVINO's GPU may be a part of the processor or a card, so neither is taken for it.

    Args:
        root: where ``sys`` lies.
        target: name of the engine, as in ``runtime.ENGINES``.
        device: as engines are asked for one: ``CPU``, ``GPU``, ``GPU.1``, ``NPU``.
    """
    board = Ina3221Meter.find(root) or TegrastatsMeter.find()
    if board is not None:
        return board
    kind, _, number = device.upper().partition(".")
    if kind != "GPU":
        return RaplMeter.find(root)
    if target in NVIDIA_TARGETS and (not number or number.isdecimal()):
        return NvmlMeter.find(int(number or 0))
    return None


class RaplMeter:
    """Energy of all processor packages."""

    name = "RAPL"

    def __init__(self, packages: Mapping[Path, int]) -> None:
        """Count from now on; ``packages`` are zone folders with the value at which each counter restarts."""
        self.covers = f"{len(packages)} processor package{'s' if len(packages) != 1 else ''}"
        self._ranges_uj = dict(packages)
        self._last_uj = {path: read_int(path / "energy_uj") or 0 for path in packages}
        self._total_uj = 0

    @classmethod
    def find(cls, root: Path) -> RaplMeter | None:
        """Return a meter where a package's counter can be read."""
        packages: dict[Path, int] = {}
        for path in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
            limit = read_int(path / "max_energy_range_uj")
            is_package = read_text(path / "name").startswith("package")
            if is_package and limit is not None and read_int(path / "energy_uj") is not None:
                packages[path] = limit
        return cls(packages) if packages else None

    def read_energy_j(self) -> float | None:
        """Return the joules since the start; must be read more often than a counter runs over (minutes)."""
        for path, limit_uj in self._ranges_uj.items():
            now_uj = read_int(path / "energy_uj")
            if now_uj is None:
                raise MachineError(f"{path} cannot be read any more")
            self._total_uj += (now_uj - self._last_uj[path]) % (limit_uj + 1)
            self._last_uj[path] = now_uj
        return self._total_uj / 1e6

    def read_power_w(self) -> Mapping[str, float] | None:
        """Return None: energy is counted."""
        return None

    def close(self) -> None:
        """Do nothing."""
