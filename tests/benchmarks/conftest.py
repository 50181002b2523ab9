"""A bundle, a data set and engines small enough to be known by heart: the student is a threshold."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from written_builds import write_build

from edgekd.bundle import (
    Build,
    Bundle,
    GoldenFrames,
    Recording,
    find_build,
    save_recording,
    write_bundle,
)
from edgekd.data import find_cases, hash_cases, read_case
from edgekd.preprocess import prepare_truth, preprocess_frame
from edgekd.runtime import LoadRequest
from edgekd.runtime.catalogue import ENGINES, Entry
from edgekd.runtime.limits import FrameLimits
from edgekd.specs import ClassSpec, ModelSpec, PreprocessSpec

SPEC = PreprocessSpec(height=24, width=32)
CLASSES = ClassSpec()
NUM_CASES = 24


class ThresholdEngine:
    """The student of these tests: class 1 where the tensor is above ``cut``."""

    name = "threshold"
    synchronisation = "computes in the caller"
    cut = 0.0
    obstacle: str | None = None

    def __init__(self, request: LoadRequest) -> None:
        self.spec = request.bundle.manifest.preprocess
        build = find_build(request.bundle, request.target, request.precision)
        self.limits = FrameLimits.read(build.record.facts, "rebuild")

    @classmethod
    def find_obstacle(cls, build: Build, device: str) -> str | None:
        # Like every engine it knows which devices it runs on.
        return cls.obstacle if device in ("CPU", "GPU") else f"no {device} here"

    def stages(self) -> Mapping[str, Callable[[Any], Any]]:
        return {"preprocess": self._preprocess, "infer": self._infer}

    def facts(self) -> dict[str, Any]:
        return {"precision_effective": "fp32"}

    def close(self) -> None:
        pass

    def _preprocess(self, frames: Any) -> Any:
        return np.stack([preprocess_frame(frame, self.spec) for frame in frames])

    def _infer(self, tensors: Any) -> Any:
        return (tensors[:, 0] > self.cut).astype(np.uint8)


class ShiftedEngine(ThresholdEngine):
    """The same with its preprocessing changed: every pixel counts as darker."""

    cut = 0.35


class MissingEngine(ThresholdEngine):
    """One that no machine can run."""

    obstacle = "this machine has no such device"


def make_case(seed: int, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A bright soft ellipse on speckle, and the ellipse as truth."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    centre = rng.uniform(0.35, 0.65, 2) * (height, width)
    radii = rng.uniform(0.15, 0.3, 2) * (height, width)
    distance = np.hypot((rows - centre[0]) / radii[0], (columns - centre[1]) / radii[1])
    frame = 70 + 110 / (1 + np.exp(6 * (distance - 1))) + rng.normal(0, 12, distance.shape)
    return frame.clip(0, 255).astype(np.uint8), (distance < 1).astype(np.uint8)


def run_student(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tensor, logits and mask of the threshold student."""
    tensor = preprocess_frame(frame, SPEC)
    logits = np.concatenate([-tensor, tensor]).astype(np.float32)
    return tensor, logits, (tensor[0] > 0).astype(np.uint8)


@pytest.fixture(autouse=True)
def test_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``onnx`` is the student itself, ``openvino`` the shifted one, ``tensorrt-rtx`` cannot run."""
    module = types.ModuleType("edgekd_test_engines")
    for engine in (ThresholdEngine, ShiftedEngine, MissingEngine):
        setattr(module, engine.__name__, engine)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for target, engine in (
        ("onnx", ThresholdEngine),
        ("openvino", ShiftedEngine),
        ("tensorrt-rtx", MissingEngine),
    ):
        monkeypatch.setitem(ENGINES, target, Entry(f"{module.__name__}:{engine.__name__}", None, None, "CPU"))
    yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of 24 patients with one frame each, of two sizes."""
    root = tmp_path / "data"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(NUM_CASES):
        frame, truth = make_case(index, height=48 + 8 * (index % 2))
        Image.fromarray(frame).save(root / "images" / f"case{index:02d}.png")
        Image.fromarray(truth).save(root / "masks" / f"case{index:02d}.png")
    return root


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle of the threshold student with golden frames and no build."""
    cases = [make_case(100 + index) for index in range(3)]
    made = [run_student(frame) for frame, _ in cases]
    golden = GoldenFrames(
        frames=tuple(frame for frame, _ in cases),
        tensors=np.stack([tensor for tensor, _, _ in made]),
        logits=np.stack([logits for _, logits, _ in made]),
        masks=np.stack([mask for _, _, mask in made]),
        truths=np.stack([prepare_truth(truth, SPEC) for _, truth in cases]),
    )
    return write_bundle(
        tmp_path / "run" / "student.edgekd",
        preprocess=SPEC,
        classes=CLASSES,
        model=ModelSpec(name="threshold", in_channels=1, num_classes=2, parameters=1, macs=768),
        files={"student.safetensors": b"none", "golden.npz": golden.to_bytes()},
    )


@pytest.fixture
def add_build(bundle: Bundle) -> Callable[..., Build]:
    """Add an empty build of a target to the bundle; ``frame_size`` is the one size of frame it takes."""

    def add(target: str, precision: str = "fp32", device: str = "CPU", **facts: Any) -> Build:
        return write_build(
            bundle,
            target=target,
            precision_asked=precision,
            precision_effective=precision,
            device=device,
            status="run",
            files={},
            facts=facts,
        )

    return add


@pytest.fixture
def reference(bundle: Bundle, data: Path) -> Recording:
    """What the student makes of the data set, also saved as ``reference.npz`` beside the bundle."""
    cases = find_cases(data).cases
    read = [read_case(case, SPEC, CLASSES) for case in cases]
    made = [run_student(frame) for frame, _ in read]
    recording = Recording(
        source="pytorch",
        manifest_sha256=bundle.manifest_sha256,
        data_sha256=hash_cases(cases),
        names=tuple(case.name for case in cases),
        groups=tuple(case.group_or_name for case in cases),
        truths=np.stack([prepare_truth(truth, SPEC) for _, truth in read]),
        masks=np.stack([mask for _, _, mask in made]),
        logits=np.stack([logits for _, logits, _ in made]),
    )
    save_recording(bundle.path.parent / "reference.npz", recording)
    return recording
