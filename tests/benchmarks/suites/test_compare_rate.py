from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.benchmarks.suites import compare_rate
from edgekd.bundle import Bundle


def test_planted_losses_are_marked_where_they_are_beyond_the_bounds(
    student_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = compare_rate.check_planted(student_bundle.path, "scripted", tmp_path / "large")
    assert report["passed"] and {"p50", "Dice"} <= set(report["marked"])
    monkeypatch.setattr(compare_rate, "SLOWDOWN", 1.01)
    monkeypatch.setattr(compare_rate, "DROP", 0.0)
    report = compare_rate.check_planted(student_bundle.path, "scripted", tmp_path / "small")
    assert (report["marked"], report["passed"]) == ([], False)
