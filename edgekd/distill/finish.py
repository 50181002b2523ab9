"""The end of a run: weights, scores, the student's bundle with golden frames, the reference recording."""

from __future__ import annotations

import copy
import hashlib
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd import __version__
from edgekd.bundle import GOLDEN_FILE, WEIGHTS_FILE, save_recording, write_bundle
from edgekd.class_scores import score_classes
from edgekd.data import shorten_hashes
from edgekd.distill.curves import draw_curves
from edgekd.distill.golden import build_golden
from edgekd.distill.learner import copy_weights
from edgekd.distill.predict import copy_to_cpu, count_network, predict_recording
from edgekd.distill.results import BUNDLE_FOLDER, NetworkResult, RunRecord
from edgekd.distill.session import Session
from edgekd.distill.teaching import Ensemble
from edgekd.metrics import score_cases
from edgekd.specs import ModelSpec

REFERENCE_FILE = "reference.npz"
CURVES_PICTURE = "curves.png"
LIBRARIES = ("torch", "lightning-fabric", "monai", "numpy", "safetensors")


def pack_weights(network: nn.Module) -> bytes:
    """Return weights and buffers as the bytes of a safetensors file; equal weights give equal bytes."""
    return safetensors.torch.save(copy_weights(network))


def describe_trained(
    session: Session, network: nn.Module, model: ModelSpec, file: str, epoch: int | None
) -> NetworkResult:
    """Return the facts of a trained network whose weights are, or will be, in ``file`` of the run."""
    confusions = _count(session, network, "test")
    classes = score_classes(confusions, session.config.classes.names)
    return NetworkResult(
        file=file,
        sha256=hashlib.sha256(pack_weights(network)).hexdigest(),
        model=model,
        epoch=epoch,
        val=_score(session, network, "val"),
        test=score_cases(confusions).to_dict(),
        test_classes=tuple(one.to_dict() for one in classes),
    )


def build_run_record(
    session: Session,
    kind: str,
    networks: Mapping[str, NetworkResult],
    learned: ModelSpec,
    teachers: Sequence[nn.Module] = (),
    seen_before: Iterable[str] = (),
) -> RunRecord:
    """Draw the curves and return the run's record.

    Args:
        session: the run.
        kind: ``train`` or ``distill``.
        networks: what was trained.
        learned: the network that is scored untrained beside.
        teachers: several are scored together too.
        seen_before: hashes of the frames that ready teachers had learned from.
    """
    draw_curves(session.out / CURVES_PICTURE, session.journal.history)
    untrained = session.build_network(learned.name, learned.options)
    return RunRecord.model_validate(
        {
            "kind": kind,
            "networks": dict(networks),
            "ensemble_test": _score(session, Ensemble(teachers), "test") if len(teachers) > 1 else None,
            "untrained_test": _score(session, untrained, "test"),
            "preprocess": session.config.build_preprocess(),
            "classes": session.config.classes,
            "split": session.config.split,
            "config": session.config.model_dump(mode="json"),
            "data_sha256": dict(session.inputs.sha256),
            "train_pixels_sha256": tuple(
                dict.fromkeys([*session.inputs.splits["train"].pixels_sha256, *seen_before])
            ),
            "precision": session.precision,
            "seconds": session.journal.seconds,
            "environment": describe_training_environment(session),
        }
    )


def write_student_bundle(session: Session, student: nn.Module, record: RunRecord) -> None:
    """Write ``student.edgekd`` and the reference recording of the student on the test split."""
    final = session.out / BUNDLE_FOLDER
    # Without result.json nobody was told of it: a run that died while finishing left it.
    shutil.rmtree(final, ignore_errors=True)
    network = copy.deepcopy(student).cpu().eval()
    fact = record.networks["student"]
    golden = build_golden(network, record.preprocess, record.classes, session.inputs.golden)
    bundle = write_bundle(
        final,
        preprocess=record.preprocess,
        classes=record.classes,
        model=fact.model,
        files={WEIGHTS_FILE: pack_weights(network), GOLDEN_FILE: golden.to_bytes()},
        metrics={"val": fact.val, "test": fact.test},
        training=_describe_training(record),
        environment=record.environment,
    )
    recording = predict_recording(
        network,
        session.inputs.splits["test"],
        manifest_sha256=bundle.manifest_sha256,
        data_sha256=session.inputs.sha256["test"],
    )
    save_recording(session.out / REFERENCE_FILE, recording)


def describe_training_environment(session: Session) -> dict[str, Any]:
    """Return versions and the machine, as JSON values."""
    device = session.fabric.device
    is_gpu = device.type == "cuda"
    return {
        "edgekd": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "os": platform.platform(),
        "device": torch.cuda.get_device_name(device) if is_gpu else platform.machine(),
        "processes": session.fabric.world_size,
        "threads": torch.get_num_threads(),
    }


def _describe_training(record: RunRecord) -> dict[str, Any]:
    others = {name: fact for name, fact in record.networks.items() if name != "student"}
    return {
        "config": record.config,
        "seed": record.config["seed"],
        "data_sha256": record.data_sha256,
        "train_pixels_sha256": shorten_hashes(record.train_pixels_sha256),
        "precision": record.precision,
        "epoch": record.networks["student"].epoch,
        "seconds": record.seconds,
        "networks": {name: fact.model_dump(mode="json") for name, fact in others.items()},
        "untrained_test": record.untrained_test,
    }


def _score(session: Session, network: nn.Module, split: str) -> dict[str, float | int | None]:
    return score_cases(_count(session, network, split)).to_dict()


def _count(session: Session, network: nn.Module, split: str) -> NDArray[np.int64]:
    cases, num_classes = session.inputs.splits[split], session.config.classes.count
    return count_network(copy_to_cpu(network), cases, num_classes)
