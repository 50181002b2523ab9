"""How long the epochs that are left will take, and when a checkpoint is due."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgekd.distill.checkpoints import Journal

SAVE_INTERVAL_S = 20.0
# Checkpoints take no larger part of the time: one that is slow to write is written less often.
SAVE_SHARE = 0.03


class Pace:
    """Knows how long the epochs that are left will take at the pace of those since it began.

    Args:
        total_epochs: of the whole run.
        steps_per_epoch: of an epoch.
        journal: where the run stands.
    """

    def __init__(self, total_epochs: int, steps_per_epoch: int, journal: Journal) -> None:
        self._total_epochs = total_epochs
        self._begin = time.monotonic()
        self._first = journal.epoch + journal.step / steps_per_epoch
        self._least = 1 / steps_per_epoch

    def estimate_left(self, journal: Journal) -> float:
        """Return seconds, at the end of an epoch."""
        elapsed = time.monotonic() - self._begin
        # A run that goes on at the end of an epoch has only validated when that epoch is reported.
        done = max(journal.epoch - self._first, self._least)
        return elapsed * (self._total_epochs - journal.epoch) / done


class SaveClock:
    """Knows when a checkpoint is due, and keeps the journal's count of seconds.

    Args:
        write: writes a checkpoint.
        journal: whose seconds are counted.
    """

    def __init__(self, write: Callable[[], None], journal: Journal) -> None:
        self._write, self._journal = write, journal
        self._last, self._cost_s = time.monotonic(), 0.0

    def is_due(self) -> bool:
        """Return whether the last checkpoint is SAVE_INTERVAL_S old, and worth SAVE_SHARE of that time."""
        return time.monotonic() - self._last >= max(SAVE_INTERVAL_S, self._cost_s / SAVE_SHARE)

    def save(self) -> None:
        """Write a checkpoint."""
        begin = time.monotonic()
        self._journal.seconds += begin - self._last
        self._last = begin
        self._write()
        self._cost_s = time.monotonic() - begin
