"""How results become text: what a build was fixed to, and figures at their edges."""

from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime", reason="the student's ONNX build is written with it")

from edgekd.answer_tables import format_scores
from edgekd.answers import show_bundle
from edgekd.bundle import Bundle, find_build, list_builds
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes
from edgekd.tables import Table


def test_what_a_build_was_fixed_to_stands_beside_it(bundle_copy: Bundle) -> None:
    assert "Frames" not in _show_builds(bundle_copy).columns
    build = find_build(bundle_copy, "onnx")
    fix_shapes(bundle_copy, build, FixedShapes(frame_size=(60, 80), batch=2))
    shown = _show_builds(bundle_copy)
    frames = [row[shown.columns.index("Frames")] for row in shown.rows]
    assert frames[0] == "60×80, batch 2" and set(frames[1:]) <= {"any"}


def _show_builds(bundle: Bundle) -> Table:
    (table,) = (one for one in show_bundle(bundle, list_builds(bundle)).tables if one.title == "Builds")
    return table


def test_a_kappa_that_is_zero_but_for_rounding_has_no_sign() -> None:
    assert format_scores({"acc": 1.0, "miou": None, "dice": 0.12345, "kappa": -1e-9}) == (
        "100.00",
        "–",
        "12.35",
        "0.00",
    )
