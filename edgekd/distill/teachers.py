"""Putting a run's teachers together: their weights loaded, frozen, tapped, and the store of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch

from edgekd.atomic import hash_file
from edgekd.distill.answers import AnswerStore
from edgekd.distill.learner import load_weights
from edgekd.distill.plan import Plan
from edgekd.distill.session import Session
from edgekd.distill.taps import FeatureTaps
from edgekd.distill.teacher import FrozenTeacher
from edgekd.distill.teaching import Teaching
from edgekd.errors import IntegrityError
from edgekd.specs import ModelSpec


def build_teaching(session: Session, plan: Plan, files: Sequence[Path], cache: Path) -> Teaching:
    """Return how the student of a run is taught in phase 2.

    Args:
        session: the run, whose journal names the teachers' hashes.
        plan: its choices.
        files: the teachers' weights, in the order of ``plan.teachers``.
        cache: folder for answers that are stored.

    Raises:
        IntegrityError: a file is not the teacher that phase 1 chose.
    """
    config, hashes = plan.config, session.journal.teachers_sha256
    teachers = [
        _load_teacher(session, model, file, sha256)
        for model, file, sha256 in zip(plan.teachers, files, hashes, strict=True)
    ]
    taps = {pair.name: pair.teacher for pair in plan.taps}
    return Teaching(
        fabric=session.fabric,
        teachers=teachers,
        taps=FeatureTaps(teachers[0].network, plan.teachers[0].name, taps) if taps else None,
        plain_view=config.teacher_view == "plain",
        mirror=plan.mirrors_teacher,
        temperature=config.temperature,
        boundary_weight=config.boundary_weight,
        confidence=config.confidence,
        store=_open_store(session, plan, cache) if config.store_answers else None,
    )


def _open_store(session: Session, plan: Plan, cache: Path) -> AnswerStore:
    config = plan.config
    recipe = {
        "teachers": session.journal.teachers_sha256,
        "preprocess": config.build_preprocess().compute_hash(),
        "augment": config.augment.model_dump(mode="json"),
        "view": [config.teacher_view, plan.mirrors_teacher],
        "taps": [[pair.name, pair.teacher] for pair in plan.taps],
        "precision": session.precision,
        "device": session.fabric.device.type,
    }
    return AnswerStore(cache, recipe)


def _load_teacher(session: Session, model: ModelSpec, file: Path, sha256: str) -> FrozenTeacher:
    if not file.is_file() or hash_file(file) != sha256:
        raise IntegrityError(f"{file} is not the teacher that phase 1 chose", action="begin a new run")
    network = session.build_network(model.name, model.options)
    load_weights(network, safetensors.torch.load_file(file))
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return FrozenTeacher(session.fabric.to_device(network))
