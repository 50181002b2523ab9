"""What a measurement was made on, and under which conditions: read from the system, importing no engine.

Whatever this machine does not tell is the text ``not measured``, never a zero or a guess.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgekd.benchmarks.sysfs import read_number, read_text
from edgekd.processor import count_usable_cores
from edgekd.tables import NOT_MEASURED

LIBRARIES = (
    "edgekd",
    "numpy",
    "pillow",
    "pydantic",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
    "torch",
)
COMMAND_TIMEOUT_S = 10

_GIB = 1 << 30
_THROTTLE_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of NVML's nvmlClocksEventReasons that mean a lowered clock; idle and applications' settings do not."""
_GPU_FIELDS = (
    "name",
    "driver_version",
    "compute_cap",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "power.limit",
    "temperature.gpu",
)


def describe_environment(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts that stay the same during a measurement, as JSON values.

    Args:
        root: where ``proc``, ``sys`` and ``etc`` lie.

    Returns:
        ``cpu`` (model, logical cores, those this process may use, governor, clock range in MHz),
        ``memory_gib``, ``os``, ``kernel``, ``python``, ``libraries`` (name → version or ``not installed``),
        ``gpu`` (fields of nvidia-smi), ``jetson`` (release, power mode), ``measured_at`` (UTC, ISO 8601).
    """
    return {
        "cpu": _describe_cpu(root),
        "memory_gib": _read_memory_gib(root),
        "os": _read_os_name(root),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": {name: _find_version(name) for name in LIBRARIES},
        "gpu": _describe_gpu(),
        "jetson": _describe_jetson(root),
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def describe_conditions(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts that change while measuring.

    Args:
        root: where ``proc`` and ``sys`` lie.

    Returns:
        ``load_average_1min``, ``clock_mhz`` (mean of the cores), ``temperature_c`` (hottest zone),
        ``gpu_clock_mhz``, ``gpu_temperature_c`` and ``gpu_throttle_reasons`` (a list, empty where none).
    """
    return {
        "load_average_1min": _read_load_average(root),
        "clock_mhz": _read_mean_clock_mhz(root),
        "temperature_c": _read_temperature_c(root),
        **_read_gpu_conditions(root),
    }


def _describe_cpu(root: Path) -> dict[str, Any]:
    policy = root / "sys/devices/system/cpu/cpu0/cpufreq"
    clocks_khz = [read_number(policy / name) for name in ("cpuinfo_min_freq", "cpuinfo_max_freq")]
    return {
        "model": _read_cpu_model(root),
        "logical_cores": os.cpu_count() or NOT_MEASURED,
        "usable_cores": count_usable_cores(),
        "governor": read_text(policy / "scaling_governor") or NOT_MEASURED,
        "clock_range_mhz": [None if khz is None else round(khz / 1000) for khz in clocks_khz]
        if None not in clocks_khz
        else NOT_MEASURED,
    }


def _read_cpu_model(root: Path) -> str:
    # On boards cpuinfo names the cores at best ("ARMv8 Processor rev 1"), which many of them share.
    board = read_text(root / "proc/device-tree/model").strip("\0 ")
    text = read_text(root / "proc/cpuinfo")
    match = re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    named = board or (match[1].strip() if match else "")
    return named or platform.processor() or platform.machine() or NOT_MEASURED


def _read_memory_gib(root: Path) -> float | str:
    match = re.search(r"^MemTotal:\s*(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    return round(int(match[1]) * 1024 / _GIB, 1) if match else NOT_MEASURED


def _read_os_name(root: Path) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', read_text(root / "etc/os-release"), re.MULTILINE)
    return match[1] if match else platform.platform()


def _find_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _describe_gpu() -> dict[str, str] | str:
    text = _run_command("nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader")
    if not text:
        return NOT_MEASURED
    values = [value.strip() for value in text.splitlines()[0].split(",")]
    return dict(zip(_GPU_FIELDS, values, strict=False))


def _describe_jetson(root: Path) -> dict[str, str] | str:
    release = read_text(root / "etc/nv_tegra_release")
    if not release:
        return NOT_MEASURED
    mode = _run_command("nvpmodel", "-q")
    return {
        "release": release.splitlines()[0].lstrip("# "),
        "power_mode": " ".join(mode.split()) if mode else NOT_MEASURED,
    }


def _read_load_average(root: Path) -> float | str:
    text = read_text(root / "proc/loadavg")
    return float(text.split()[0]) if text else NOT_MEASURED


def _read_mean_clock_mhz(root: Path) -> float | str:
    clocks = [
        read_number(path) for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    ]
    known_mhz = [khz / 1000 for khz in clocks if khz is not None]
    if not known_mhz:
        text = read_text(root / "proc/cpuinfo")
        known_mhz = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)]
    return round(sum(known_mhz) / len(known_mhz), 1) if known_mhz else NOT_MEASURED


def _read_temperature_c(root: Path) -> float | str:
    zones = [read_number(path) for path in root.glob("sys/class/thermal/thermal_zone*/temp")]
    known = [milli / 1000 for milli in zones if milli is not None]
    return round(max(known), 1) if known else NOT_MEASURED


def _read_gpu_conditions(root: Path) -> dict[str, Any]:
    fields = "clocks.sm,temperature.gpu,clocks_throttle_reasons.active"
    text = _run_command("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits") or ""
    values = [value.strip() for value in text.partition("\n")[0].split(",")]
    clock, temperature, reasons = [*values, "", "", ""][:3]
    found: dict[str, Any] = {
        "gpu_clock_mhz": float(clock) if clock.isdigit() else _read_jetson_clock_mhz(root),
        "gpu_temperature_c": float(temperature) if temperature.isdigit() else NOT_MEASURED,
        "gpu_throttle_reasons": NOT_MEASURED,
    }
    if re.fullmatch(r"0x[0-9a-fA-F]+", reasons):
        bits = int(reasons, 16)
        found["gpu_throttle_reasons"] = [name for bit, name in _THROTTLE_REASONS.items() if bits & bit]
    return found


def _read_jetson_clock_mhz(root: Path) -> float | str:
    # The GPU of a Jetson is a platform device: 57000000.gpu, 17000000.gv11b, 17000000.gpu.
    folders = [
        path
        for kind in ("gpu", "gv11b", "ga10b", "gp10b")
        for path in root.glob(f"sys/class/devfreq/*{kind}")
    ]
    clocks_hz = [read_number(path / "cur_freq") for path in folders]
    known = [hz for hz in clocks_hz if hz is not None]
    return round(known[0] / 1e6, 1) if known else NOT_MEASURED


def _run_command(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
