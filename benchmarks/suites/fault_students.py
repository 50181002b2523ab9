"""The students of the fault bench: one distilled, one of another seed, one of an earlier, shorter run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.benchmarks.suites.fault_catalogue import Variant, deepen_frame, tint_frame
from edgekd.bundle import WEIGHTS_FILE, Bundle, GoldenFrames, find_build, read_golden, write_bundle
from edgekd.config import DistillConfig, TrainConfig
from edgekd.config_reader import build_config
from edgekd.data import Case, assign_splits, find_cases, read_case
from edgekd.distill import distill, load_trained_model, train
from edgekd.distill.golden import build_golden
from edgekd.export import export_bundle
from edgekd.export.source_graphs import CORE_FILE
from edgekd.export.trace import predict_logits
from edgekd.preprocess import prepare_truth, preprocess_frame
from edgekd.specs import PreprocessSpec

FRACTIONS = (0.5, 0.1, 0.4)
NETWORK = "unet-narrow-xs"
# Named, so that the bench's students do not change with the defaults of training.
COMMON = {"image_size": 96, "split": {"fractions": FRACTIONS}, "batch_size": 8, "min_epoch_steps": 0}
PHASES = {"epochs": 14, "distill_epochs": 14}
TEACHING = {"losses": "kl:1,tdice:1", "temperature": 1, "teacher_mirror": True, "mix": False}
NETWORKS = {"teacher": "unet-wide-s", "teacher_lr": 2e-3, "student": NETWORK, "lr": 5e-3}
DISTILLED = {**COMMON, **PHASES, **TEACHING, **NETWORKS}
ALONE = {"other": {"epochs": 14, "seed": 1, "lr": 2e-3}, "stale": {"epochs": 7, "seed": 0, "lr": 2e-3}}
NUM_CALIBRATION = 32
FRAMES: dict[Variant, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "gray8": lambda frame: frame,
    "tinted": tint_frame,
    "gray16": deepen_frame,
}


@dataclasses.dataclass(frozen=True)
class Student:
    """A student with its bundle, whose ONNX and OpenVINO builds are there, and its core graph."""

    name: str
    bundle: Bundle
    core: onnx.ModelProto


@dataclasses.dataclass(frozen=True)
class Scene:
    """What engines are judged on: frames of one variant with all that the PyTorch student made of them."""

    spec: PreprocessSpec
    frames: list[NDArray[Any]]
    tensors: NDArray[np.float32]
    logits: NDArray[np.float32]
    masks: NDArray[np.uint8]
    golden: GoldenFrames


def provide_students(data: Path, work: Path) -> dict[str, Student]:
    """Return the students, trained and exported under ``work`` where they are not yet."""
    main = work / "busi-run"
    if not (main / "result.json").exists():
        distill(build_config(DistillConfig, DISTILLED), data, main, quiet=True)
    students = {"main": _provide_builds("main", main / "student.edgekd")}
    for name, choices in ALONE.items():
        run = work / name
        if not (run / "result.json").exists():
            train(build_config(TrainConfig, {**COMMON, "model": NETWORK, **choices}), data, run, quiet=True)
        path = work / f"{name}.edgekd"
        if not path.exists():
            _write_bundle(run, path)
        students[name] = _provide_builds(name, path)
    return students


def find_parts(data: Path) -> dict[str, tuple[Case, ...]]:
    """Return the cases of the three splits that the students were trained with."""
    return assign_splits(find_cases(data), fractions=FRACTIONS)


def read_calibration(cases: Sequence[Case], student: Student) -> NDArray[np.float32]:
    """Return tensors of the first training cases, (NUM_CALIBRATION, C, h, w) float32."""
    spec, classes = student.bundle.manifest.preprocess, student.bundle.manifest.classes
    chosen = cases[:: max(1, len(cases) // NUM_CALIBRATION)][:NUM_CALIBRATION]
    return np.stack([preprocess_frame(read_case(case, spec, classes)[0], spec) for case in chosen])


def read_truths(cases: Sequence[Case], student: Student) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
    """Return the frames as stored and the truths (N, h, w) at the tensor's size."""
    spec, classes = student.bundle.manifest.preprocess, student.bundle.manifest.classes
    pairs = [read_case(case, spec, classes) for case in cases]
    return [frame for frame, _ in pairs], np.stack([prepare_truth(truth, spec) for _, truth in pairs])


def build_scene(student: Student, stored: Sequence[NDArray[Any]], variant: Variant) -> Scene:
    """Return frames of a variant, and by NumPy and PyTorch what a student makes of them."""
    spec = student.bundle.manifest.preprocess
    if variant == "gray16":
        spec = spec.model_copy(update={"frame_dtype": "uint16", "scale": 1 / 65535})
    frames = [FRAMES[variant](frame) for frame in stored]
    tensors, logits, masks = _run_student(student, frames, spec)
    golden = read_golden(student.bundle)
    shown = tuple(FRAMES[variant](frame) for frame in golden.frames)
    made = _run_student(student, shown, spec)
    return Scene(spec, frames, tensors, logits, masks, GoldenFrames(shown, *made, golden.truths))


def _run_student(
    student: Student, frames: Sequence[NDArray[Any]], spec: PreprocessSpec
) -> tuple[Any, Any, Any]:
    tensors = np.stack([preprocess_frame(frame, spec) for frame in frames])
    logits = predict_logits(student.bundle, tensors)
    return tensors, logits, logits.argmax(axis=1).astype(np.uint8)


def _provide_builds(name: str, path: Path) -> Student:
    bundle = Bundle.open(path)
    if not (path / "builds" / "openvino-fp32-cpu").exists():
        export_bundle(bundle, ["onnx", "openvino"], quiet=True)
    core = onnx.load_from_string(find_build(bundle, "onnx").resolve_file(CORE_FILE).read_bytes())
    return Student(name, bundle, core)


def _write_bundle(run: Path, path: Path) -> None:
    trained = load_trained_model(run)
    golden = build_golden(trained.network, trained.preprocess, trained.classes)
    write_bundle(
        path,
        preprocess=trained.preprocess,
        classes=trained.classes,
        model=trained.model,
        files={WEIGHTS_FILE: run / "model.safetensors", "golden.npz": golden.to_bytes()},
    )
