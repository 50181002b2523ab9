"""When a checkpoint is due."""

from __future__ import annotations

import time

import pytest

from edgekd.distill.checkpoints import Journal
from edgekd.distill.clocks import SaveClock


class FakeRun:
    """A run whose checkpoints take a known time on a clock that is moved by hand."""

    def __init__(self, cost_s: float) -> None:
        self.now, self.cost_s = 1000.0, cost_s

    def save(self) -> None:
        """Take as long as a checkpoint takes."""
        self.now += self.cost_s


def list_due(monkeypatch: pytest.MonkeyPatch, cost_s: float) -> list[int]:
    """Return the seconds after a checkpoint at which the next is due, out of the first 300."""
    run = FakeRun(cost_s)
    monkeypatch.setattr(time, "monotonic", lambda: run.now)
    clock = SaveClock(run.save, Journal())
    clock.save()
    begin, due = run.now - cost_s, []
    for second in range(300):
        run.now = begin + second
        due += [second] if clock.is_due() else []
    return due


def test_a_quick_checkpoint_is_written_every_twenty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_due(monkeypatch, 0.1)[0] == 20


def test_a_slow_checkpoint_takes_at_most_three_percent_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_due(monkeypatch, 6.0)[0] == 200
