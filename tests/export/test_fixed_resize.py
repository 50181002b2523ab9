"""A build for one size of frame runs with the simpler resize, and is measured with it when it is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("openvino")

from edgekd.bundle import Bundle, find_build
from edgekd.errors import GateFailure
from edgekd.export import openvino_ir
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes, free_shapes
from edgekd.runtime import load
from edgekd.runtime import openvino as engine
from edgekd.runtime.openvino_resize import has_simple_resize, simplify_resize

FRAMES = np.random.default_rng(2).integers(0, 256, (2, 60, 96), dtype=np.uint8)
SHAPES = FixedShapes(frame_size=(60, 96))
FACT = "fixed_preprocess_max_difference"


def test_the_engine_takes_it_where_the_size_is_known(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[set[str]] = []

    def simplify(model: Any, *rest: Any) -> None:
        simplify_resize(model, *rest)
        kinds.append({node.get_type_name() for node in model.get_ordered_ops()})

    monkeypatch.setattr(engine, "simplify_resize", simplify)
    with load(bundle_copy, "openvino", threads=1) as segmenter:
        free = segmenter.segment(FRAMES)
    fix_shapes(bundle_copy, find_build(bundle_copy, "openvino"), SHAPES)
    with load(bundle_copy, "openvino", threads=1) as segmenter:
        np.testing.assert_array_equal(segmenter.segment(FRAMES), free)
        # The convolution of the columns is none of the network's layers.
        assert segmenter.engine.facts()["layers_in_other_precision"] == []
    assert "MatMul" in kinds[0] and "MatMul" not in kinds[-1]


def test_how_far_it_is_from_the_truth_is_recorded(bundle_copy: Bundle) -> None:
    free = find_build(bundle_copy, "openvino")
    fixed = fix_shapes(bundle_copy, free, SHAPES)
    assert 0 < fixed.record.facts[FACT] < 1e-6
    assert fixed.record.facts["preprocess_max_difference"] == free.record.facts["preprocess_max_difference"]
    assert FACT not in free_shapes(bundle_copy, fixed).record.facts
    assert FACT not in fix_shapes(bundle_copy, find_build(bundle_copy, "onnx"), SHAPES).record.facts


def test_another_resize_is_no_build(bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_build(bundle_copy, "openvino")
    monkeypatch.setattr(
        openvino_ir,
        "simplify_resize",
        lambda model, spec: simplify_resize(model, spec.model_copy(update={"antialias": False})),
    )
    with pytest.raises(GateFailure, match="preprocessing in the graph differ from the truth"):
        fix_shapes(bundle_copy, before, SHAPES)
    assert find_build(bundle_copy, "openvino").record == before.record


def test_only_float32_on_a_processor_has_it() -> None:
    assert has_simple_resize("CPU", "f32")
    assert not any(has_simple_resize(*one) for one in (("CPU", "bf16"), ("CPU", "f16"), ("GPU", "f32")))
