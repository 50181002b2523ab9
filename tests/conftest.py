"""Fixtures for every room: a tiny seeded student as a bundle, its builds, and fake engines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import WEIGHTS_FILE, Bundle, GoldenFrames, write_bundle
from edgekd.preprocess import prepare_truth, preprocess_frames
from edgekd.runtime import LoadRequest, Segmenter, load
from edgekd.runtime.scripted import ScriptedEngine
from edgekd.specs import ClassSpec, ModelSpec, PreprocessSpec

# Networks are named ``tiny_student:…`` in the manifest, so the folder must be importable.
sys.path.append(str(Path(__file__).parent / "support"))
import tiny_student

WriteStudent = Callable[..., Bundle]


def build_frames(spec: PreprocessSpec, count: int = 3) -> list[np.ndarray]:
    """Return seeded frames of different odd sizes that fit ``spec``: noise around a brighter disc."""
    largest = np.iinfo(spec.frame_dtype).max
    rng = np.random.default_rng(7)
    frames: list[np.ndarray] = []
    for index in range(count):
        height, width = 67 + 14 * index, 91 + 6 * index
        rows, columns = np.mgrid[:height, :width]
        disc = np.hypot(rows - height / 2, columns - width / 2) < height / 4
        image = rng.rayleigh(0.12, (height, width)) + 0.4 * disc
        frame = (np.clip(image, 0, 1) * largest).astype(spec.frame_dtype)
        frames.append(
            frame if spec.color == "gray" else np.stack([frame, frame // 2, largest - frame], axis=-1)
        )
    return frames


def write_student(
    final: Path, spec: PreprocessSpec | None = None, classes: ClassSpec | None = None
) -> Bundle:
    """Write the tiny student as a bundle with golden frames; needs no torch."""
    from safetensors.numpy import save

    spec = spec or PreprocessSpec(height=32, width=48)
    classes = classes or ClassSpec()
    weights = tiny_student.build_weights(spec.channels, classes.count)
    frames = build_frames(spec)
    tensors = preprocess_frames(frames, spec)
    logits = tiny_student.compute_logits(tensors, weights)
    truths = [prepare_truth(np.zeros(frame.shape[:2], np.uint8), spec) for frame in frames]
    masks = logits.argmax(axis=1).astype(np.uint8)
    golden = GoldenFrames(tuple(frames), tensors, logits, masks, np.stack(truths))
    parameters = sum(value.size for name, value in weights.items() if name.endswith((".weight", ".bias")))
    macs = spec.height * spec.width * sum(weights[name].size for name in ("0.weight", "3.weight"))
    model = ModelSpec(
        name="tiny_student:build_tiny_student",
        in_channels=spec.channels,
        num_classes=classes.count,
        parameters=parameters,
        macs=macs,
    )
    files = {WEIGHTS_FILE: save(weights), "golden.npz": golden.to_bytes()}
    return write_bundle(final, preprocess=spec, classes=classes, model=model, files=files)


def add_graphs(bundle: Bundle) -> Bundle:
    """Give a tiny student its ONNX build from the core that is written by hand; needs onnx, no torch."""
    pytest.importorskip("onnx", reason="onnx writes the graphs")
    pytest.importorskip("onnxruntime", reason="onnxruntime checks the graphs")
    from edgekd.export.onnx import build_onnx

    facts = bundle.manifest
    weights = tiny_student.build_weights(facts.model.in_channels, facts.model.num_classes)
    core = tiny_student.build_tiny_core(weights, facts.preprocess.height, facts.preprocess.width)
    build_onnx(bundle, core)
    return bundle


@pytest.fixture
def new_student() -> WriteStudent:
    """Return `write_student`, to write a student of another spec."""
    return write_student


@pytest.fixture(scope="session")
def graphed_student() -> Callable[..., Bundle]:
    """Return a function that writes a student of any spec together with its ONNX build; no torch."""

    def build(final: Path, spec: PreprocessSpec | None = None, classes: ClassSpec | None = None) -> Bundle:
        return add_graphs(write_student(final, spec, classes))

    return build


@pytest.fixture(scope="session")
def student_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A student without any build. Read only: copy it with `bundle_copy` to change it."""
    return write_student(tmp_path_factory.mktemp("student") / "tiny.edgekd")


@pytest.fixture(scope="session")
def device_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A student with its ONNX build, and its OpenVINO build where that is installed; no torch. Read only."""
    bundle = add_graphs(write_student(tmp_path_factory.mktemp("device") / "tiny.edgekd"))
    try:
        import openvino  # noqa: F401
    except ModuleNotFoundError:
        return bundle
    from edgekd.export import export_bundle

    export_bundle(bundle, ["openvino"], quiet=True)
    return bundle


@pytest.fixture(scope="session")
def exported_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A student exported with torch to ONNX and OpenVINO. Read only."""
    pytest.importorskip("torch", reason="torch traces the student")
    pytest.importorskip("openvino", reason="openvino is one of the targets")
    from edgekd.export import export_bundle

    bundle = write_student(tmp_path_factory.mktemp("exported") / "tiny.edgekd")
    export_bundle(bundle, ["onnx", "openvino"], quiet=True)
    return bundle


@pytest.fixture
def bundle_copy(device_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy of `device_bundle` that a test may damage."""
    shutil.copytree(device_bundle.path, tmp_path / "copy.edgekd")
    return Bundle.open(tmp_path / "copy.edgekd")


@pytest.fixture
def null_segmenter(student_bundle: Bundle) -> Segmenter:
    """A segmenter that answers with background at once."""
    return load(student_bundle, "null")


@pytest.fixture
def build_scripted_segmenter(student_bundle: Bundle) -> Callable[[Mapping[str, Sequence[int]]], Segmenter]:
    """Return a function from stage → latencies in ns to a segmenter that takes just so long."""

    def build(latencies_ns: Mapping[str, Sequence[int]]) -> Segmenter:
        engine = ScriptedEngine(LoadRequest(student_bundle, "scripted", "fp32", "CPU"), latencies_ns)
        return Segmenter(engine, student_bundle.manifest.preprocess, student_bundle.manifest.classes)

    return build
