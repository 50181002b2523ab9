"""The fault bench and the study of the gate's power, with a small student and phantom frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the bench trains its students")
pytest.importorskip("openvino", reason="the bench runs OpenVINO too")

from edgekd.benchmarks.suites import fault_bench, fault_students, gate_power
from edgekd.config import DistillConfig
from edgekd.config_reader import build_config
from edgekd.data import write_phantom
from edgekd.distill import distill


@pytest.fixture(autouse=True)
def test_engines() -> None:
    """Take the place of the room's engines: the bench runs real ones."""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results and case sums of a bench whose three students are one, of a few seconds' training."""
    choices = {**fault_students.DISTILLED, "image_size": 32, "epochs": 5, "distill_epochs": 5}
    choices |= {"min_epoch_steps": 12, "lr": 1e-2}
    data = tmp_path / "data"
    write_phantom(data, 60, 0, quiet=True)
    distill(build_config(DistillConfig, choices), data, tmp_path / "run", quiet=True)
    main = fault_students._provide_builds("main", tmp_path / "run" / "student.edgekd")
    same = dict.fromkeys(("main", "other", "stale"), main)
    monkeypatch.setattr(fault_bench, "provide_students", lambda *_: same)
    return fault_bench.run_bench(data, tmp_path)


@pytest.mark.slow
def test_faults_are_caught_sound_exports_are_not_and_the_gate_holds_at_its_margin(
    results: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, sums = results
    caught = {row["name"]: [check for check in fault_bench.CHECKS if row[check]] for row in report["faults"]}
    assert len(caught) == report["summary"]["faults"] == 72
    for name in ("label order swapped", "frame upside down", "16 bit read as 8: low byte"):
        assert {"golden", "floor", "task"} <= set(caught[name])
    for name in ("no normalisation", "one weight not a number", "fp16 overflow of 5 %"):
        assert "export" in caught[name]
    # The three students are one here.
    assert not caught["engine of another student"] and not caught["stale weights of an earlier run"]
    assert len(report["faithful"]) > 100
    assert not any(row["golden"] or row["floor"] for row in report["faithful"])
    assert "\n| label order swapped | – | caught | caught | caught |" in fault_bench.format_results(report)

    np.savez(tmp_path / "sums.npz", **sums)
    monkeypatch.setattr(gate_power, "GROUPS", (20,))
    # Of this score every fault of the kind loses the margin, whatever the student learned.
    monkeypatch.setattr(gate_power, "CELLS", (("half", "dice", (20,)),))
    # A hundredth of a margin is hardly ever met, a whole one by most groups.
    monkeypatch.setattr(gate_power, "LOSSES", (0.01, 1.0))
    gate_power.main(tmp_path / "sums.npz", tmp_path, studies=10, power_studies=10)
    power = json.loads((tmp_path / "gate_power.json").read_text())
    little, margin = (row["pass"] for row in power["power"])
    assert little > 0.3 and margin <= 0.1
    (row,) = power["type_one"]
    assert row["score"] == "dice" and row["gate_pass"] <= row["pass"] <= 0.3
