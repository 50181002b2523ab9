"""A contender's process times what it is asked to; ratios are of the same round."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from edgekd.benchmarks.suites import frame_to_mask
from edgekd.bundle import Bundle


def test_a_contender_prints_a_sample_for_every_frame(device_bundle: Bundle) -> None:
    result = CliRunner().invoke(frame_to_mask.app, ["worker", str(device_bundle.path), "onnx fp32", "3"])
    assert result.exit_code == 0
    samples = json.loads(result.stdout)
    assert len(samples) == 3
    assert all(sample > 1000 for sample in samples)


def test_the_hand_written_way_without_opencv_says_so(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    result = CliRunner().invoke(frame_to_mask.app, ["worker", str(device_bundle.path), "by hand", "3"])
    assert "needs OpenCV" in str(result.exception)


def test_ratios_are_of_the_same_round() -> None:
    # Both were slowed threefold in the second round; the ratio of pooled medians would not be 2.
    ratios = frame_to_mask.compare_rounds([2.0, 6.0, 2.2, 2.0], [1.0, 3.0, 1.1, 1.0])
    assert ratios == {"median": 2.0, "quartile_low": 2.0, "quartile_high": 2.0}
