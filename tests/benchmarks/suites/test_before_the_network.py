"""Both ways of each pair give the same, and are timed in every round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="openvino runs both")
pytest.importorskip("onnx", reason="onnx writes the graphs")

from edgekd.benchmarks.suites import before_the_network as suite
from edgekd.specs import PreprocessSpec


def test_new_and_old_give_the_same() -> None:
    spec, size = PreprocessSpec(height=16, width=24), (40, 48)
    new, old = suite.open_resize(spec, size)
    np.testing.assert_allclose(new()[0], old()[0], atol=1e-5)
    (made,), (expected,) = (call() for call in suite.open_luma(spec, size))
    np.testing.assert_array_equal(made.pixels, expected.pixels)


def test_each_kind_and_size_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "SIZES", ((40, 48),))
    suite.main(tmp_path / "pairs.json", rounds=4, size=16)
    rows = json.loads((tmp_path / "pairs.json").read_text())["rows"]
    assert [(row["what"], row["kind"]) for row in rows] == [
        ("resize", "gray"),
        ("luma", "gray"),
        *(("resize", kind) for kind in list(suite.SPECS)[1:]),
    ]
    for row in rows:
        assert min(row["new_ms"], row["old_ms"]) > 0.001
        ratio = row["new_over_old"]
        assert ratio["quartile_low"] <= ratio["median"] <= ratio["quartile_high"]
