"""Both sides of the ratio are timed in every round, for every precision of the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd.benchmarks.suites import segment_over_core
from edgekd.bundle import Bundle

pytest.importorskip("openvino", reason="openvino runs both")


def test_both_are_timed_in_every_round(device_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "pair.json"
    command = [str(device_bundle.path), "--out", str(out), "--rounds", "4", "--frames", "2"]
    assert CliRunner().invoke(segment_over_core.app, command).exit_code == 0
    result = json.loads(out.read_text())
    times = result["medians_ms"]["fp32"]
    assert {name: len(values) for name, values in times.items()} == {"segment": 4, "core": 4}
    assert all(value > 0.001 for values in times.values() for value in values)
    ratios = sorted(one / other for one, other in zip(times["segment"], times["core"], strict=True))
    assert ratios[1] <= result["segment_over_core"]["fp32"]["median"] + 5e-4
    assert result["segment_over_core"]["fp32"]["median"] <= ratios[2] + 5e-4
