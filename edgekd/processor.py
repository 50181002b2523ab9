"""What this process may use of the processor: cores and instructions."""

from __future__ import annotations

import os
from pathlib import Path


def count_usable_cores() -> int:
    """Return the logical cores this process may run on; fewer than the machine's in many containers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_instructions(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the instruction sets as Linux names them, ``avx2`` or ``asimd``; none on another system."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    entries = [line.partition(":") for line in lines]
    return frozenset(
        flag for key, _, value in entries if key.strip() in ("flags", "Features") for flag in value.split()
    )
