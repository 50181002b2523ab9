"""What else happened on the machine while it measured: neighbours, quotas, heat; by counters that only grow.

Sources: proc(5) for ``/proc/stat`` and ``/proc/pressure``, the kernel's cgroup-v2 document for ``cpu.stat``,
and ``thermal_throttle`` of the x86 machine-check driver. What a machine does not have is left out.
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekd.benchmarks.sysfs import read_text
from edgekd.processor import count_usable_cores

MAX_NEIGHBOUR_PART = 0.10
"""Part of the machine's processor time that others may take before it is said."""
MAX_STEAL_PART = 0.01
MAX_CLOCK_DROP = 0.10
MAX_LOAD_PER_CORE = 0.5
"""Load average a core before the start above which the machine is reported as busy."""
HOT_C = 85.0
"""Temperature from which embedded modules and laptops begin to lower their clocks."""


def read_counters(root: Path = Path("/")) -> dict[str, float]:
    """Return counters that only grow, by name; those this machine lacks are missing.

    Args:
        root: where ``proc`` and ``sys`` lie.

    Returns:
        ``wall_s``, ``process_cpu_s``, ``preemptions`` (involuntary switches of this process), ``busy_s`` and
        ``steal_s`` (of all processors), ``pressure_s`` (tasks waited for a processor), ``quota_s`` (held
        back by a cgroup's quota), ``throttle_events`` (lowered by heat).
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    counters = {
        "wall_s": time.monotonic(),
        "process_cpu_s": usage.ru_utime + usage.ru_stime,
        "preemptions": float(usage.ru_nivcsw),
    }
    counters.update(_read_processor_times(root))
    counters.update(_read_pressure(root))
    counters.update(_read_quota(root))
    counters.update(_read_throttle_events(root))
    return counters


def subtract_counters(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return what happened between two readings, for the counters in both."""
    return {name: round(after[name] - value, 6) for name, value in before.items() if name in after}


def find_disturbances(conditions: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield one sentence for each sign that the numbers are not the engine's alone.

    Args:
        conditions: ``before`` and ``after`` from ``describe_conditions``, ``during`` from
            ``subtract_counters``.
    """
    before, after = conditions.get("before", {}), conditions.get("after", {})
    yield from _find_load(before)
    yield from _find_neighbours(conditions.get("during", {}))
    yield from _find_heat(before, after, conditions.get("during", {}))


def _find_load(before: Mapping[str, Any]) -> Iterator[str]:
    load, cores = before.get("load_average_1min"), count_usable_cores()
    if isinstance(load, float) and load > MAX_LOAD_PER_CORE * cores:
        yield f"busy machine: load average {load:.2f} on {cores} usable cores before the start"


def _find_neighbours(during: Mapping[str, float]) -> Iterator[str]:
    wall = during.get("wall_s", 0.0)
    if wall <= 0:
        return
    capacity = wall * (os.cpu_count() or 1)
    others = during.get("busy_s", 0.0) - during.get("process_cpu_s", 0.0)
    if "busy_s" in during and others > MAX_NEIGHBOUR_PART * capacity:
        yield f"busy neighbours: other processes took {others / capacity:.0%} of the processors meanwhile"
    if during.get("steal_s", 0.0) > MAX_STEAL_PART * capacity:
        yield f"busy host: {during['steal_s'] / capacity:.1%} of the time was taken by other virtual machines"
    if during.get("quota_s", 0.0) > 0:
        yield f"held back: the container's processor quota stopped it for {during['quota_s']:.2f} s"


def _find_heat(
    before: Mapping[str, Any], after: Mapping[str, Any], during: Mapping[str, float]
) -> Iterator[str]:
    if during.get("throttle_events", 0) > 0:
        yield f"throttled: the processor lowered its clock {during['throttle_events']:.0f} times for its heat"
    clocks = before.get("clock_mhz"), after.get("clock_mhz")
    if isinstance(clocks[0], float) and isinstance(clocks[1], float):
        drop = 1 - clocks[1] / clocks[0] if clocks[0] > 0 else 0.0
        if drop > MAX_CLOCK_DROP:
            yield f"throttled: the mean clock fell from {clocks[0]:.0f} to {clocks[1]:.0f} MHz"
    temperature = after.get("temperature_c")
    if isinstance(temperature, float) and temperature >= HOT_C:
        yield f"hot: {temperature:.0f} °C at the end; clocks may have been lowered"
    reasons = after.get("gpu_throttle_reasons")
    if isinstance(reasons, list) and reasons:
        yield f"throttled: the GPU says {', '.join(reasons)}"


def _read_processor_times(root: Path) -> dict[str, float]:
    match = re.search(r"^cpu +([\d ]+)$", read_text(root / "proc/stat"), re.MULTILINE)
    if not match:
        return {}
    ticks = [int(text) for text in match[1].split()]
    seconds = [tick / os.sysconf("SC_CLK_TCK") for tick in ticks]
    # user, nice, system, idle, iowait, irq, softirq, steal; guest time is inside user already.
    busy = sum(seconds[:3]) + sum(seconds[5:7])
    return {"busy_s": busy, **({"steal_s": seconds[7]} if len(seconds) > 7 else {})}


def _read_pressure(root: Path) -> dict[str, float]:
    match = re.search(r"^some .*total=(\d+)", read_text(root / "proc/pressure/cpu"), re.MULTILINE)
    return {"pressure_s": int(match[1]) / 1e6} if match else {}


def _read_quota(root: Path) -> dict[str, float]:
    for name, unit in (("cgroup/cpu.stat", 1e6), ("cgroup/cpu/cpu.stat", 1e9)):
        text = read_text(root / "sys/fs" / name)
        match = re.search(r"^throttled_(?:usec|time) (\d+)", text, re.MULTILINE)
        if match:
            return {"quota_s": int(match[1]) / unit}
    return {}


def _read_throttle_events(root: Path) -> dict[str, float]:
    texts = [
        read_text(path)
        for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
    ]
    counts = [int(text) for text in texts if text.isdigit()]
    return {"throttle_events": float(sum(counts))} if counts else {}
