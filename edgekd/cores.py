"""How many processor cores this process may use."""

from __future__ import annotations

import os


def count_usable_cores() -> int:
    """Return the logical cores this process may run on; fewer than the machine's in many containers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
