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
from edgekd.runtime import load, openvino_resize
from edgekd.runtime import openvino as engine
from edgekd.runtime.openvino_resize import has_fast_kernels, has_simple_resize, simplify_resize

FRAMES = np.random.default_rng(2).integers(0, 256, (2, 60, 96), dtype=np.uint8)
SHAPES = FixedShapes(frame_size=(60, 96))
FACT = "fixed_preprocess_max_difference"
needs_avx2 = pytest.mark.skipif(not has_fast_kernels(), reason="the processor has no AVX2")


@needs_avx2
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
    assert "MatMul" in kinds[0] and "MatMul" not in kinds[-1]


@needs_avx2
def test_how_far_it_is_from_the_truth_is_recorded(bundle_copy: Bundle) -> None:
    free = find_build(bundle_copy, "openvino")
    fixed = fix_shapes(bundle_copy, free, SHAPES)
    assert 0 < fixed.record.facts[FACT] < 1e-6
    assert fixed.record.facts["preprocess_max_difference"] == free.record.facts["preprocess_max_difference"]
    assert FACT not in free_shapes(bundle_copy, fixed).record.facts
    assert FACT not in fix_shapes(bundle_copy, find_build(bundle_copy, "onnx"), SHAPES).record.facts


@needs_avx2
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


def test_only_float32_on_a_processor_with_avx2_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_resize, "read_instructions", lambda: frozenset({"avx2", "sse4_1"}))
    assert has_simple_resize("CPU", "f32")
    assert not any(has_simple_resize(*one) for one in (("CPU", "bf16"), ("CPU", "f16"), ("GPU", "f32")))
    monkeypatch.setattr(openvino_resize, "read_instructions", lambda: frozenset({"avx", "sse4_1"}))
    assert not has_simple_resize("CPU", "f32")


def test_without_avx2_builds_run_as_they_were_written(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_resize, "read_instructions", frozenset)
    fixed = fix_shapes(bundle_copy, find_build(bundle_copy, "openvino"), SHAPES)
    assert FACT not in fixed.record.facts
    monkeypatch.setattr(engine, "simplify_resize", lambda *_: pytest.fail("changed all the same"))
    with load(bundle_copy, "openvino", threads=1) as segmenter:
        masks = segmenter.segment(np.repeat(FRAMES[..., None], 3, axis=3))
        np.testing.assert_array_equal(segmenter.segment(FRAMES), masks)
    assert segmenter.engine._write_luma is None
