"""Checkpoints: one folder a checkpoint, and a pointer that names the newest complete one.

state/
  current                   the name of the folder below
  p2-e00012-s00003/         phase, epoch and step about to begin
    state.json              the journal and the best scores
    student.safetensors     weights, buffers and moments
    student.best.safetensors

A folder appears complete (renamed) before the pointer moves, so a reader finds the old checkpoint or the
new one, whenever the process dies.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch

from edgekd.atomic import staged_folder, write_bytes_atomic, write_json_atomic, write_text_atomic
from edgekd.distill.learner import Learner, State
from edgekd.errors import IntegrityError

POINTER = "current"
STATE_FILE = "state.json"


@dataclass
class Journal:
    """How far a run has come; everything in it is in the checkpoint.

    Attributes:
        phase: 1 or 2.
        epoch, step: the step that comes next; epochs count through both phases, from 0.
        sums: learner → term → sum of the loss over the steps of this epoch.
        history: one record an epoch, the lines of ``curves.jsonl``.
        teachers_sha256: hash of each file that a frozen teacher is loaded from, in phase 2.
        teacher_epoch: the epoch, from 0, of the teacher's weights; None where it was ready before.
        seconds: time spent in training so far, over all interruptions.
    """

    phase: int = 1
    epoch: int = 0
    step: int = 0
    sums: dict[str, dict[str, float]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    teachers_sha256: list[str] = field(default_factory=list)
    teacher_epoch: int | None = None
    seconds: float = 0.0

    @property
    def checkpoint_name(self) -> str:
        """The folder name of a checkpoint taken now."""
        return f"p{self.phase}-e{self.epoch:05d}-s{self.step:05d}"


def save_checkpoint(folder: Path, journal: Journal, learners: Sequence[Learner]) -> None:
    """Write a checkpoint, move the pointer to it and remove the one before.

    Raises:
        MachineError: the disk is full; the checkpoint before stays valid.
    """
    name = journal.checkpoint_name
    previous = find_checkpoint(folder)
    if previous is not None and previous.name == name:
        return
    _remove_others(folder, keep=previous)
    with staged_folder(folder / name) as staging:
        for learner in learners:
            _write_tensors(staging / f"{learner.name}.safetensors", learner.export_state())
            _write_best(staging, previous, learner)
        scores = {learner.name: [learner.best_dice, learner.best_epoch] for learner in learners}
        write_json_atomic(staging / STATE_FILE, {"journal": asdict(journal), "best": scores})
    write_text_atomic(folder / POINTER, name)
    _remove_others(folder, keep=folder / name)


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in ``folder``; None where none was written yet."""
    pointer = folder / POINTER
    if not pointer.is_file():
        return None
    path = folder / pointer.read_text().strip()
    if path.parent != folder or not (path / STATE_FILE).is_file():
        raise IntegrityError(f"the checkpoint that {pointer} names is missing", received=path.name)
    return path


def load_journal(checkpoint: Path) -> Journal:
    """Return the journal of a checkpoint.

    Raises:
        IntegrityError: it is damaged.
    """
    try:
        return Journal(**_read_state(checkpoint)["journal"])
    except (KeyError, TypeError) as error:
        raise IntegrityError(
            f"the checkpoint {checkpoint} holds no journal",
            received=str(error),
            action="remove the run and start it again",
        ) from error


def load_learner(checkpoint: Path, learner: Learner) -> None:
    """Put a learner where it stood at a checkpoint.

    Raises:
        IntegrityError: the checkpoint is damaged or of another network.
    """
    try:
        best_dice, best_epoch = _read_state(checkpoint)["best"][learner.name]
        state = safetensors.torch.load_file(checkpoint / f"{learner.name}.safetensors")
        learner.import_state(state)
        learner.best_dice, learner.best_epoch = float(best_dice), best_epoch
        if best_epoch is not None:
            learner.best_weights = safetensors.torch.load_file(checkpoint / _name_best(learner))
    except (OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise IntegrityError(
            f"the checkpoint {checkpoint} cannot be loaded",
            received=str(error).splitlines()[0],
            action="remove the run and start it again",
        ) from error


def _write_best(staging: Path, previous: Path | None, learner: Learner) -> None:
    if learner.best_epoch is None:
        return
    target = staging / _name_best(learner)
    older = previous / target.name if previous is not None else None
    if older is not None and older.is_file():
        best = _read_state(older.parent)["best"].get(learner.name)
        if best == [learner.best_dice, learner.best_epoch]:
            _link_or_copy(older, target)
            return
    _write_tensors(target, learner.best_weights)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _name_best(learner: Learner) -> str:
    return f"{learner.name}.best.safetensors"


def _write_tensors(path: Path, tensors: State) -> None:
    write_bytes_atomic(path, safetensors.torch.save(tensors))


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        return json.loads((checkpoint / STATE_FILE).read_text())
    except (OSError, ValueError) as error:
        raise IntegrityError(f"the checkpoint {checkpoint} cannot be read", received=error) from error


def _remove_others(folder: Path, *, keep: Path | None) -> None:
    """Remove checkpoints and half-written ones of a process that died, but ``keep``."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and path != keep:
            shutil.rmtree(path)
