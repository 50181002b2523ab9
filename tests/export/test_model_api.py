"""The second IR gives, at frame size, the mask that `edgekd predict` writes; Model API itself reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.bundle import Bundle, find_build
from edgekd.export.model_api import build_model_api
from edgekd.preprocess import restore_mask
from edgekd.runtime import load
from edgekd.specs import ClassSpec, CropBox, PreprocessSpec

pytest.importorskip("onnx", reason="the module under test comes with the export package")
openvino = pytest.importorskip("openvino")

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
RGB: dict[str, Any] = {"color": "rgb", "mean": (0.5, 0.4, 0.6), "std": (0.25, 0.2, 0.3)}
CROP = CropBox(top=5, left=9, height=51, width=70)
SPECS = {
    "gray": PreprocessSpec(height=32, width=48),
    "gray-crop-16-bit": PreprocessSpec(height=32, width=48, crop=CROP, frame_dtype="uint16", scale=1 / 65535),
    "rgb-crop": PreprocessSpec(height=32, width=48, crop=CROP, **RGB),
    "bgr": PreprocessSpec(height=32, width=48, frame_order="bgr", **RGB),
}
SIZES = ((67, 91), (120, 131), (57, 80))


@pytest.fixture(params=sorted(SPECS))
def bundle(request: pytest.FixtureRequest, tmp_path: Path, graphed_student: Callable[..., Bundle]) -> Bundle:
    classes = ClassSpec(names=("background", "thyroid gland", "nodule"))
    return graphed_student(tmp_path / "tiny.edgekd", SPECS[request.param], classes)


@pytest.fixture
def graph(bundle: Bundle, tmp_path: Path) -> Path:
    deploy = openvino.Core().read_model(find_build(bundle, "onnx").resolve_file("deploy.onnx"))
    openvino.save_model(build_model_api(deploy, bundle), tmp_path / "model_api.xml", compress_to_fp16=False)
    return tmp_path / "model_api.xml"


def draw_bgr_frames(spec: PreprocessSpec) -> list[np.ndarray]:
    largest = np.iinfo(spec.frame_dtype).max
    rng = np.random.default_rng(3)
    return [rng.integers(0, largest + 1, (*size, 3), dtype=spec.frame_dtype) for size in SIZES]


def find_masks(bundle: Bundle, bgr: list[np.ndarray]) -> list[np.ndarray]:
    """Return the masks at frame size, on the way that ``edgekd predict`` takes."""
    spec = bundle.manifest.preprocess
    frames = [frame if spec.frame_order == "bgr" else frame[..., ::-1] for frame in bgr]
    with load(bundle, "onnx", threads=1) as segmenter:
        masks = segmenter.segment(frames)
    return [restore_mask(mask, frame.shape, spec) for mask, frame in zip(masks, frames, strict=True)]


def test_its_logits_are_largest_where_the_mask_says(bundle: Bundle, graph: Path) -> None:
    frames = draw_bgr_frames(bundle.manifest.preprocess)
    compiled = openvino.Core().compile_model(graph, "CPU", F32)
    for frame, expected in zip(frames, find_masks(bundle, frames), strict=True):
        assert 0 < (expected > 0).mean() < 1
        found = compiled({"image": frame[None]})["logits"][0].argmax(axis=0)
        np.testing.assert_array_equal(found, expected)
    grey = frames[0][None, ..., :1]
    logits = compiled({"image": grey})["logits"].copy()
    np.testing.assert_array_equal(logits, compiled({"image": np.repeat(grey, 3, axis=3)})["logits"])


def test_model_api_gives_our_mask(bundle: Bundle, graph: Path) -> None:
    models = pytest.importorskip("model_api.models", reason="openvino-model-api is not installed")
    from model_api.adapters import OpenvinoAdapter  # pyright: ignore

    adapter = OpenvinoAdapter(openvino.Core(), str(graph), device="CPU", plugin_config=F32)
    model = models.Model.create_model(adapter)
    assert model.params.labels == ["thyroid_gland", "nodule"]
    frames = draw_bgr_frames(bundle.manifest.preprocess)
    for frame, expected in zip(frames, find_masks(bundle, frames), strict=True):
        np.testing.assert_array_equal(model(frame).resultImage, expected)


def test_the_openvino_build_holds_it(device_bundle: Bundle) -> None:
    path = find_build(device_bundle, "openvino").resolve_file("model_api.xml")
    model = openvino.Core().read_model(path)
    facts = {
        name: model.get_rt_info(["model_info", name]).astype(str)
        for name in (
            "model_type",
            "labels",
            "orig_height",
            "orig_width",
            "embedded_processing",
            "blur_strength",
        )
    }
    assert list(facts.values()) == ["Segmentation", "lesion", "32", "48", "True", "-1"]
    assert str(model.input("image").partial_shape) == "[1,?,?,?]"
