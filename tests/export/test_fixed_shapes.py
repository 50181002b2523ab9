"""Builds for one batch and one size of frame give the masks of the free ones, and take nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekd.bundle import Bundle, find_build
from edgekd.errors import GateFailure, InputError, UsageError
from edgekd.export import export_bundle, fixed_shapes
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes, parse_frame_size, read_options
from edgekd.runtime import load

openvino = pytest.importorskip("openvino")
FRAMES = np.random.default_rng(2).integers(0, 256, (4, 60, 81), dtype=np.uint8)
SHAPES = FixedShapes(batch=2, frame_size=(60, 81))


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_fixed_shapes_give_the_same_masks(bundle_copy: Bundle, target: str) -> None:
    with load(bundle_copy, target, threads=1) as segmenter:
        expected = segmenter.segment(FRAMES)
    build = fix_shapes(bundle_copy, find_build(bundle_copy, target), SHAPES)
    assert (build.record.facts["batch"], build.record.facts["frame_size"]) == (2, [60, 81])
    assert read_shapes(build, target) == ([2, 60, 81, 1], [2, 32, 48])
    with load(bundle_copy, target, threads=1) as segmenter:
        np.testing.assert_array_equal(segmenter.segment(FRAMES), expected)
        with pytest.raises(
            InputError, match=rf"another size.*60×80.*60×81.*edgekd export .* --target {target}"
        ):
            segmenter.segment(FRAMES[:2, :, 1:])
        with pytest.raises(InputError, match=r"another number of frames: received 3.*2 or a multiple"):
            segmenter.segment(FRAMES[:3])
        # Neither did harm.
        assert segmenter.status == "ready"
        np.testing.assert_array_equal(segmenter.segment(FRAMES[:2]), expected[:2])


def read_shapes(build: Any, target: str) -> tuple[list[int], list[int]]:
    path = build.resolve_file("deploy.onnx" if target == "onnx" else "deploy.xml")
    model = openvino.Core().read_model(path)
    return list(model.input(0).shape), list(model.output(0).shape)


def test_an_openvino_build_from_a_fixed_onnx_build_is_free(bundle_copy: Bundle) -> None:
    fix_shapes(bundle_copy, find_build(bundle_copy, "onnx"), SHAPES)
    (build,) = export_bundle(bundle_copy, ["openvino"], quiet=True)
    model = openvino.Core().read_model(build.resolve_file("deploy.xml"))
    assert str(model.input(0).partial_shape) == "[?,?,?,1]"
    export_bundle(bundle_copy, ["openvino"], shapes=FixedShapes(frame_size=(60, 81)), quiet=True)
    with load(bundle_copy, "openvino", threads=1) as segmenter:
        assert segmenter.segment(FRAMES[:3]).shape == (3, 32, 48)


def test_other_masks_are_no_build(bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    build = find_build(bundle_copy, "onnx")
    segment, calls = fixed_shapes._segment, []

    def answer(*arguments: Any) -> np.ndarray:
        calls.append(arguments)
        masks = segment(*arguments)
        return masks if len(calls) == 1 else 1 - masks

    monkeypatch.setattr(fixed_shapes, "_segment", answer)
    with pytest.raises(GateFailure, match="gives other masks and was removed"):
        fix_shapes(bundle_copy, build, SHAPES)
    assert not build.path.exists()


def test_options() -> None:
    assert read_options(None, None) is None
    assert read_options(1, "768x1024") == FixedShapes(1, (768, 1024))
    for text in ("768", "768x", "x", "0x5", "1x1", "768 x 1024", "-3x4"):
        with pytest.raises(UsageError, match="height x width"):
            parse_frame_size(text)
    with pytest.raises(UsageError, match="without frames"):
        FixedShapes(0).check(["onnx"])
    with pytest.raises(UsageError, match="ONNX and OpenVINO builds only: received tensorrt-rtx"):
        FixedShapes(1).check(["onnx", "tensorrt-rtx"])
