"""The power of a Jetson: rails by their INA3221 chips, or by NVIDIA's own tool.

INA3221: ``/sys/class/hwmon/hwmonN`` of that name has, for a rail K, ``inK_label``, ``inK_input`` in mV and
``currK_input`` in mA (kernel, Documentation/hwmon/ina3221); so it is from JetPack 5 on. tegrastats prints a
line an interval with ``RAIL nowmW/meanmW``, without the unit before JetPack 5, sometimes with a maximum.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgekd.benchmarks.sysfs import read_int, read_text

INPUT_RAILS = ("VDD_IN", "VIN", "POM_5V_IN", "VDD_SYS_IN")
"""Rails that carry all that a module takes; the others are parts of them."""
PART_RAILS = ("VDDQ_VDD2_1V8AO", "NC")
"""The memory of an AGX Orin, which is fed by VIN_SYS_5V0 and would count twice; a channel without a rail."""
TEGRASTATS_INTERVAL_MS = 100
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?:/\d+(?:mW)?)?(?= |$)")
_NOT_RAILS = frozenset({"RAM", "SWAP", "IRAM"})


def sum_rails(rails: Mapping[str, float]) -> float:
    """Return the power of the whole: its input rail where it has one, else the sum of the rails."""
    return sum(rails[name] for name in _choose_rails(rails))


def describe_total(rails: Iterable[str]) -> str:
    """Return in words what ``sum_rails`` takes of these rails."""
    chosen = _choose_rails(rails)
    return f"the input rail {chosen[0]}" if chosen[0] in INPUT_RAILS else "the sum of " + ", ".join(chosen)


def _choose_rails(rails: Iterable[str]) -> list[str]:
    names = sorted(rails)
    whole = [name for name in INPUT_RAILS if name in names][:1]
    return whole or [name for name in names if name not in PART_RAILS] or names


def parse_tegrastats(line: str) -> dict[str, float]:
    """Return the present power of each rail of a tegrastats line in W, empty where there is none."""
    return {name: int(now_mw) / 1000 for name, now_mw, _ in _RAIL.findall(line) if name not in _NOT_RAILS}


class Ina3221Meter:
    """Power of the rails that INA3221 chips measure."""

    name = "INA3221"

    def __init__(self, rails: Mapping[str, tuple[Path, Path]]) -> None:
        """Read from (voltage in mV, current in mA) by rail."""
        self._rails = dict(rails)
        self.covers = describe_total(rails)

    @classmethod
    def find(cls, root: Path) -> Ina3221Meter | None:
        """Return a meter where such a chip is there and its channels can be read."""
        rails: dict[str, tuple[Path, Path]] = {}
        for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
            if not read_text(chip / "name").startswith("ina3221"):
                continue
            for label in sorted(chip.glob("in[0-9]_label")):
                channel = label.name[2]
                paths = chip / f"in{channel}_input", chip / f"curr{channel}_input"
                if read_int(paths[0]) is not None and read_int(paths[1]) is not None:
                    rails[read_text(label)] = paths
        return cls(rails) if rails else None

    def read_energy_j(self) -> float | None:
        """Return None: power is read."""
        return None

    def read_power_w(self) -> Mapping[str, float] | None:
        """Return watts by rail."""
        values = {name: (read_int(mv), read_int(ma)) for name, (mv, ma) in self._rails.items()}
        return {name: mv * ma / 1e6 for name, (mv, ma) in values.items() if mv is not None and ma is not None}

    def close(self) -> None:
        """Do nothing."""


class TegrastatsMeter:
    """Power by NVIDIA's own tool, where its rails cannot be read directly."""

    name = "tegrastats"
    covers = "the rails it prints"

    def __init__(self, command: str) -> None:
        """Start the tool."""
        # It buffers nothing: one line an interval, each as it is measured.
        self._process = subprocess.Popen(
            [command, "--interval", str(TEGRASTATS_INTERVAL_MS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._unread = b""

    @classmethod
    def find(cls) -> TegrastatsMeter | None:
        """Return a meter where the tool is there and its first line names a rail."""
        command = shutil.which("tegrastats")
        if command is None:
            return None
        meter = cls(command)
        rails = meter.read_power_w()
        if not rails:
            meter.close()
            return None
        meter.covers = describe_total(rails)
        return meter

    def read_energy_j(self) -> float | None:
        """Return None: power is read."""
        return None

    def read_power_w(self) -> Mapping[str, float] | None:
        """Return watts by rail of the newest line, waiting for one; empty where the tool has ended."""
        return parse_tegrastats(self._read_newest_line())

    def close(self) -> None:
        """End the tool."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read_newest_line(self) -> str:
        if self._process.stdout is None:
            return ""
        # Lines that were not read in time lie in the pipe: they tell a power of long ago.
        pipe, unread = self._process.stdout.fileno(), self._unread
        while b"\n" not in unread or select.select([pipe], [], [], 0)[0]:
            chunk = os.read(pipe, 65536)
            if not chunk:
                break
            unread += chunk
        *lines, self._unread = unread.split(b"\n")
        return lines[-1].decode(errors="replace") if lines else ""
