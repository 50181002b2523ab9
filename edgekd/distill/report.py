"""One plain line an epoch for logs and pipes, where no progress bar can be drawn."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any


def report_epoch(record: Mapping[str, Any], total_epochs: int, left_s: float, *, quiet: bool = False) -> None:
    """Write ``format_epoch`` to stderr, unless it is a terminal, which has the bar, or ``quiet``."""
    if quiet or sys.stderr.isatty():
        return
    sys.stderr.write(format_epoch(record, total_epochs, left_s) + "\n")
    sys.stderr.flush()


def format_epoch(record: Mapping[str, Any], total_epochs: int, left_s: float) -> str:
    """Return an epoch's mean losses, validation Dice and the time left as one line.

    Args:
        record: a line of ``curves.jsonl``, see ``write_curves``.
        total_epochs: epochs of the whole run.
        left_s: estimate for the epochs that are left, seconds.
    """
    learners = "; ".join(_format_learner(name, fact) for name, fact in record["learners"].items())
    line = f"epoch {record['epoch']}/{total_epochs}, phase {record['phase']}: {learners}"
    return line if record["epoch"] == total_epochs else f"{line}; {_format_left(left_s)}"


def _format_learner(name: str, fact: Mapping[str, Any]) -> str:
    dice = fact["val"]["dice"]
    shown = "undefined" if dice is None else f"{dice:.3f}"
    return f"{name} loss {fact['losses']['total']:.4f}, val Dice {shown}"


def _format_left(seconds: float) -> str:
    return "less than 1 min left" if seconds < 60 else f"about {math.ceil(seconds / 60)} min left"
