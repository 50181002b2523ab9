"""What a finished run says about itself (``result.json``), and the trained networks it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from pydantic import ValidationError
from torch import nn

from edgekd.atomic import hash_file, write_json_atomic
from edgekd.bundle import MANIFEST_FILE, WEIGHTS_FILE, Bundle
from edgekd.config import SplitConfig
from edgekd.data import shorten_hashes
from edgekd.distill.learner import load_weights
from edgekd.errors import InputError, IntegrityError
from edgekd.models import build_model
from edgekd.specs import ClassSpec, ModelSpec, PreprocessSpec, Spec

RESULT_FILE = "result.json"
BUNDLE_FOLDER = "student.edgekd"

ScoreValues = dict[str, float | int | None]


class NetworkResult(Spec):
    """A trained network of a run.

    Attributes:
        file: its weights (safetensors), relative to the run.
        sha256: of that file.
        model: the network and its size.
        epoch: the epoch, from 1, whose weights these are; None where the teacher was ready before.
        val, test: scores at tensor size, see ``edgekd.metrics.Scores``; None for undefined.
        test_classes: of each class on the test split, see ``edgekd.class_scores.ClassScores``; runs made
            before they were kept have none.
    """

    file: str
    sha256: str
    model: ModelSpec
    epoch: int | None
    val: ScoreValues
    test: ScoreValues
    test_classes: tuple[dict[str, float | int | str | None], ...] = ()


class RunRecord(Spec):
    """The content of ``result.json``.

    Attributes:
        kind: ``train`` or ``distill``.
        networks: ``model``, or ``teacher`` (several: ``teacher-2`` …), ``student`` and (if asked for)
            ``control``.
        ensemble_test: scores on the test split of several teachers' mean probabilities; None for one.
        gain: student - control on the test split with intervals and verdicts, see ``estimate_gain``; None
            without control.
        untrained_test: scores on the test split of the student (or model) before its first step.
        preprocess, classes, split: what a user of the networks must repeat.
        config: the resolved configuration.
        data_sha256: hash of each split.
        train_pixels_sha256: of each frame with a mask that the networks learned from, ready teachers
            included; see ``edgekd.data.hash_pixels``.
        precision: what was computed in (``fp32`` or ``bf16``), whatever was asked.
        seconds: time spent in training, interruptions left out.
        environment: versions and the machine.
    """

    kind: Literal["train", "distill"]
    networks: dict[str, NetworkResult]
    ensemble_test: ScoreValues | None = None
    gain: dict[str, dict[str, float | int | bool | str | None]] | None = None
    untrained_test: ScoreValues
    preprocess: PreprocessSpec
    classes: ClassSpec
    split: SplitConfig
    config: dict[str, Any]
    data_sha256: dict[str, str]
    train_pixels_sha256: tuple[str, ...]
    precision: str
    seconds: float
    environment: dict[str, Any]


def name_teacher(index: int) -> str:
    """Return the role of a run's teacher counted from 0: ``teacher``, ``teacher-2`` …"""
    return "teacher" if index == 0 else f"teacher-{index + 1}"


def name_teacher_file(index: int) -> str:
    """Return the file of a run with the weights of its teacher counted from 0."""
    return f"{name_teacher(index)}.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """A finished `train` run: its folder and its record."""

    out: Path
    record: RunRecord

    @property
    def model(self) -> NetworkResult:
        """The trained network."""
        return self.record.networks["model"]


@dataclass(frozen=True)
class DistillResult:
    """A finished `distill` run: its folder and its record."""

    out: Path
    record: RunRecord

    @property
    def bundle(self) -> Path:
        """The folder of the student's bundle."""
        return self.out / BUNDLE_FOLDER

    @property
    def teacher(self) -> NetworkResult:
        """The network that taught."""
        return self.record.networks["teacher"]

    @property
    def teachers(self) -> dict[str, NetworkResult]:
        """Every network that taught, by its role."""
        return {name: one for name, one in self.record.networks.items() if name.startswith("teacher")}

    @property
    def student(self) -> NetworkResult:
        """The distilled student."""
        return self.record.networks["student"]

    @property
    def control(self) -> NetworkResult | None:
        """The student without a teacher; None where it was not asked for."""
        return self.record.networks.get("control")


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its trained weights, in eval mode, and what its user must know.

    Attributes:
        network: (N, C, h, w) float32 → logits (N, K, h, w).
        model, preprocess, classes, split: see NetworkResult and RunRecord.
        learned: the shortened hash of each frame with a mask that it or its teachers learned
            from, see ``edgekd.data.hash_pixels``.
        bundle: the bundle it came from; None for another network of a run.
    """

    network: nn.Module
    model: ModelSpec
    preprocess: PreprocessSpec
    classes: ClassSpec
    split: SplitConfig
    learned: frozenset[str]
    bundle: Bundle | None


def write_record(out: Path, record: RunRecord) -> None:
    """Write ``result.json``, which marks a run as finished."""
    write_json_atomic(out / RESULT_FILE, record.model_dump(mode="json"))


def read_record(out: Path) -> RunRecord:
    """Return the record of a finished run.

    Raises:
        InputError: there is no finished run.
        IntegrityError: the record is damaged.
    """
    path = out / RESULT_FILE
    if not path.is_file():
        raise InputError(
            f"{out} holds no finished run",
            received="no result.json" if out.is_dir() else "nothing there",
            action="finish it with --resume, or name another folder" if out.is_dir() else "check the path",
        )
    try:
        return RunRecord.model_validate(json.loads(path.read_text()))
    except (ValueError, ValidationError) as error:
        raise IntegrityError(f"{path} is damaged", received=str(error).splitlines()[0]) from error


def load_trained_model(path: Path, role: str | None = None) -> TrainedNetwork:
    """Return a trained network of a bundle or of a finished run.

    Args:
        path: a bundle, or the folder of a `train` or `distill` run.
        role: which network of a run; None takes ``model`` of a `train` run and the student's bundle of a
            `distill` run.

    Raises:
        InputError: ``path`` is neither, or the run has no such network.
        IntegrityError: weights that are not what their record says.
    """
    if path.is_file():
        raise InputError(
            f"{path} is neither a run nor a bundle",
            received="a file",
            expected=f"the folder of a run, or a bundle (a folder such as {BUNDLE_FOLDER})",
            action=f"name the folder it lies in: {path.parent}",
        )
    if (path / MANIFEST_FILE).is_file():
        return _load_bundle(Bundle.open(path))
    record = read_record(path)
    if role is None and record.kind == "distill":
        return _load_bundle(Bundle.open(path / BUNDLE_FOLDER))
    name = "model" if role is None else role
    file = resolve_weights(path, record, name)
    fact = record.networks[name]
    return TrainedNetwork(
        network=_build_with_weights(fact.model, file),
        model=fact.model,
        preprocess=record.preprocess,
        classes=record.classes,
        split=record.split,
        learned=frozenset(shorten_hashes(record.train_pixels_sha256)),
        bundle=None,
    )


def resolve_weights(path: Path, record: RunRecord, name: str) -> Path:
    """Return the file with a network's weights in the run at ``path``, its sha256 checked.

    Raises:
        InputError: the run has no such network.
        IntegrityError: the file is missing or changed.
    """
    if name not in record.networks:
        raise InputError(
            f"the run {path} has no {name}", received=", ".join(record.networks), action="name another run"
        )
    fact = record.networks[name]
    file = path / fact.file
    if not file.is_file() or hash_file(file) != fact.sha256:
        raise IntegrityError(f"{file} is not what {RESULT_FILE} says", action="train it again")
    return file


def _load_bundle(bundle: Bundle) -> TrainedNetwork:
    manifest = bundle.manifest
    return TrainedNetwork(
        network=_build_with_weights(manifest.model, bundle.resolve_file(WEIGHTS_FILE)),
        model=manifest.model,
        preprocess=manifest.preprocess,
        classes=manifest.classes,
        split=SplitConfig.model_validate(manifest.training["config"]["split"]),
        learned=frozenset(manifest.training.get("train_pixels_sha256", ())),
        bundle=bundle,
    )


def _build_with_weights(model: ModelSpec, file: Path) -> nn.Module:
    network = build_model(model.name, model.in_channels, model.num_classes, model.options)
    try:
        load_weights(network, safetensors.torch.load_file(file))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise IntegrityError(
            f"the weights in {file} do not fit the network {model.name!r}",
            received=str(error).splitlines()[0],
        ) from error
    return network.eval()
