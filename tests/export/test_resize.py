"""Preprocessing inside a graph is the NumPy truth, whatever the spec, frame size and engine."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.preprocess import preprocess_frames
from edgekd.specs import CropBox, PreprocessSpec

pytest.importorskip("onnx", reason="onnx writes the graphs")

from edgekd.export.agreement import Runner, check_preprocessing
from edgekd.export.graphs import build_preprocess_graph

CROP = CropBox(top=3, left=5, height=41, width=29)
RGB = {"color": "rgb", "mean": (0.1, 0.5, 0.7), "std": (0.2, 0.25, 0.4)}
SPECS = {
    "gray": {},
    "gray without antialias": {"antialias": False},
    "16 bit": {"frame_dtype": "uint16", "scale": 1 / 65535},
    "crop": {"crop": CROP},
    "rgb": RGB,
    "bgr, 16 bit, crop": {
        **RGB,
        "frame_order": "bgr",
        "frame_dtype": "uint16",
        "scale": 1 / 65535,
        "crop": CROP,
    },
}
# Odd and even, enlarged, reduced, the same size, one axis each way, and as small as a frame may be.
FRAME_SIZES = ((44, 34), (45, 61), (32, 48), (2000, 51), (331, 601))


def build_runner(engine: str, spec: PreprocessSpec) -> Runner:
    graph = build_preprocess_graph(spec).SerializeToString()
    if engine == "onnxruntime":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        return lambda value: session.run(None, {"frame": value})[0]
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda value: compiled({0: value})[0]


def build_noise(spec: PreprocessSpec, count: int, height: int, width: int) -> np.ndarray:
    shape = (count, height, width) if spec.color == "gray" else (count, height, width, 3)
    return np.random.default_rng(3).integers(
        0, np.iinfo(spec.frame_dtype).max + 1, shape, dtype=spec.frame_dtype
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (2, 97), (64, 96), (8, 592)])
def test_a_tensor_of_any_size(engine: str, height: int, width: int) -> None:
    spec = PreprocessSpec(height=height, width=width)
    run = build_runner(engine, spec)
    frames = build_noise(spec, 2, 45, 61)
    np.testing.assert_allclose(run(frames[..., None]), preprocess_frames(list(frames), spec), atol=8e-6)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("fields", SPECS.values(), ids=SPECS.keys())
def test_the_graph_is_the_truth(engine: str, fields: dict) -> None:
    spec = PreprocessSpec(height=32, width=48, **fields)
    run = build_runner(engine, spec)
    largest = np.iinfo(spec.frame_dtype).max
    for height, width in FRAME_SIZES:
        if spec.crop is not None and height < spec.crop.top + spec.crop.height:
            continue
        frames = build_noise(spec, 2, height, width)
        found = run(frames.reshape(2, height, width, spec.channels))
        truth = preprocess_frames(frames, spec)
        value_range = spec.scale * largest / np.array(spec.std).reshape(-1, 1, 1)
        assert found.shape == truth.shape
        assert (np.abs(found - truth) / value_range).max() <= 5e-7, (height, width)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("antialias", [True, False])
def test_the_smallest_frame(engine: str, antialias: bool) -> None:
    spec = PreprocessSpec(height=5, width=7, antialias=antialias)
    frames = build_noise(spec, 1, 2, 2)
    found = build_runner(engine, spec)(frames.reshape(1, 2, 2, 1))
    np.testing.assert_allclose(found, preprocess_frames(frames, spec), atol=2e-6)


def test_a_graph_of_another_spec_is_refused() -> None:
    from edgekd.errors import GateFailure

    spec = PreprocessSpec(height=32, width=48)
    assert check_preprocessing(build_runner("onnxruntime", spec), spec) < 1e-6
    for change in ({"antialias": False}, {"mean": (0.25,), "std": (0.5,)}):
        other = PreprocessSpec(height=32, width=48, **change)
        with pytest.raises(GateFailure, match="preprocessing in the graph"):
            check_preprocessing(build_runner("onnxruntime", other), spec)
    with pytest.raises(GateFailure, match="nan"):
        check_preprocessing(lambda value: np.full((1, 1, 32, 48), np.nan, np.float32), spec)
