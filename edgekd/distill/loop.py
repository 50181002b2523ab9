"""The training loop: every step of every epoch of a phase, in one view."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekd.config import FitConfig
from edgekd.data import LoadedCases
from edgekd.distill.augment import augment_batch
from edgekd.distill.checkpoints import Journal
from edgekd.distill.learner import Learner
from edgekd.distill.losses import LossInputs, compute_losses
from edgekd.distill.predict import score_network
from edgekd.distill.report import report_epoch
from edgekd.distill.schedule import (
    compute_lr,
    count_steps,
    derive_sample_keys,
    derive_step_seed,
    order_epoch,
    set_lr,
)
from edgekd.distill.teacher import FrozenTeacher
from edgekd.errors import UsageError
from edgekd.metrics import Scores
from edgekd.progress import Progress

SAVE_INTERVAL_S = 20.0


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with the same learners.

    Attributes:
        number: 1 or 2.
        end_epoch: the epoch after its last one, counted from the start of the run.
        learners: who is trained, on the same batches.
        teacher: who teaches; None where nobody does. A learner without a term that needs it never uses it.
        temperature: see ``pixel_kl``.
    """

    number: int
    end_epoch: int
    learners: Sequence[Learner]
    teacher: FrozenTeacher | None = None
    temperature: float = 1.0


@dataclass(frozen=True)
class Setting:
    """What stays the same through a run.

    Attributes:
        fabric: device, precision, processes.
        config: the choices.
        train, val: the cases learned from and those that choose epochs.
        save: writes a checkpoint of the phase's learners.
        log: is told when an epoch has ended.
        quiet: show no bar, and write no line an epoch.
    """

    fabric: Fabric
    config: FitConfig
    train: LoadedCases
    val: LoadedCases
    save: Callable[[Journal, Sequence[Learner]], None]
    log: Callable[[Journal], None]
    quiet: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return count_steps(len(self.train.images), self.config.batch_size)


def run_phase(setting: Setting, phase: Phase, journal: Journal) -> None:
    """Train the learners of a phase from where ``journal`` stands to the phase's end.

    Raises:
        UsageError: a loss is not finite.
        KeyboardInterrupt: Ctrl-C; a checkpoint of the last whole step is on the disk.
    """
    quiet = setting.quiet or not setting.fabric.is_global_zero
    pace = _Pace(phase, setting.steps_per_epoch, journal)
    names = " + ".join(learner.name for learner in phase.learners)
    remaining = (phase.end_epoch - journal.epoch) * setting.steps_per_epoch - journal.step
    with Progress(quiet=quiet) as progress:
        bar = progress.add(f"phase {phase.number}: {names}", remaining)
        clock = _SaveClock(setting, phase, journal)
        while journal.epoch < phase.end_epoch:
            _run_steps(setting, phase, journal, clock, lambda: progress.advance(bar))
            dice = _close_epoch(setting, phase, journal)
            progress.advance(bar, 0, note=" ".join(f"{name} {value:.3f}" for name, value in dice.items()))
            report_epoch(journal.history[-1], pace.total_epochs, pace.estimate_left(journal), quiet=quiet)
            clock.save()


def _run_steps(
    setting: Setting, phase: Phase, journal: Journal, clock: _SaveClock, advance: Callable[[], None]
) -> None:
    """Run the steps left in this epoch, all learners on each batch."""
    order = order_epoch(len(setting.train.images), setting.config.seed, journal.epoch)
    for learner in phase.learners:
        learner.module.train()
    for step in range(journal.step, setting.steps_per_epoch):
        with delay_interrupt() as is_interrupted:
            images, truths = _build_batch(setting, order, journal.epoch, step)
            teacher_logits = _ask_teacher(setting, phase, images)
            for learner in phase.learners:
                _prepare_step(setting, learner, journal.epoch, step)
                inputs = LossInputs(learner.module(images), truths, teacher_logits, phase.temperature)
                losses = compute_losses(learner.terms, inputs)
                values = _gather_losses(setting.fabric, losses)
                _check_finite(learner.name, values, journal.epoch, step)
                setting.fabric.backward(losses["total"])
                learner.optimizer.step()
                learner.optimizer.zero_grad(set_to_none=True)
                _add_losses(journal, learner.name, values)
            journal.step = step + 1
            advance()
            if is_interrupted() or clock.is_due():
                clock.save()


def _build_batch(setting: Setting, order: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    """Return this process's share of a batch: images (n, C, h, w) float32, truths (n, h, w) int64."""
    fabric, config = setting.fabric, setting.config
    batch = order[step * config.batch_size : (step + 1) * config.batch_size]
    share = batch[fabric.global_rank :: fabric.world_size]
    images = torch.from_numpy(setting.train.images[share.numpy()]).to(fabric.device)
    truths = torch.from_numpy(setting.train.truths[share.numpy()]).to(fabric.device).long()
    keys = derive_sample_keys(share, config.seed, epoch)
    images, truths = augment_batch(images, truths, keys, config.augment, config.build_preprocess())
    return images.contiguous(memory_format=torch.channels_last), truths


def _ask_teacher(setting: Setting, phase: Phase, images: Tensor) -> Tensor | None:
    if phase.teacher is None:
        return None
    with setting.fabric.autocast():
        return phase.teacher(images).float()


def _prepare_step(setting: Setting, learner: Learner, epoch: int, step: int) -> None:
    set_lr(learner.optimizer, _find_lr(setting, learner, epoch, step))
    # Set before each learner, so that dropout depends on the step and not on who was trained before.
    torch.manual_seed(derive_step_seed(setting.config.seed, epoch, step, setting.fabric.global_rank))


def _find_lr(setting: Setting, learner: Learner, epoch: int, step: int) -> float:
    run_step = epoch * setting.steps_per_epoch + step
    return compute_lr(run_step, learner.total_steps, learner.peak_lr, setting.config.warmup_fraction)


def _gather_losses(fabric: Fabric, losses: dict[str, Tensor]) -> dict[str, float]:
    """Return the losses as numbers, averaged over the processes."""
    values = torch.stack([value.detach() for value in losses.values()])
    mean = fabric.all_reduce(values, reduce_op="mean") if fabric.world_size > 1 else values
    return dict(zip(losses, torch.as_tensor(mean).tolist(), strict=True))


def _check_finite(name: str, values: dict[str, float], epoch: int, step: int) -> None:
    if not all(math.isfinite(value) for value in values.values()):
        shown = ", ".join(f"{term} {value:g}" for term, value in values.items())
        raise UsageError(
            f"the {name} diverged in epoch {epoch + 1}, step {step + 1}",
            received=f"losses {shown}",
            expected="finite numbers",
            action="start again with a smaller learning rate, or with --precision fp32",
        )


def _add_losses(journal: Journal, name: str, values: dict[str, float]) -> None:
    sums = journal.sums.setdefault(name, {})
    for term, value in values.items():
        sums[term] = sums.get(term, 0.0) + value


def _close_epoch(setting: Setting, phase: Phase, journal: Journal) -> dict[str, float]:
    """Validate, keep best weights, write the epoch's record; return each learner's validation Dice."""
    record: dict[str, Any] = {"epoch": journal.epoch + 1, "phase": phase.number, "learners": {}}
    dice: dict[str, float] = {}
    for learner in phase.learners:
        scores = _validate(setting, learner)
        dice[learner.name] = scores.dice
        learner.record_score(scores.dice, journal.epoch)
        sums = journal.sums[learner.name]
        record["learners"][learner.name] = {
            "lr": _find_lr(setting, learner, journal.epoch, setting.steps_per_epoch - 1),
            "losses": {term: value / setting.steps_per_epoch for term, value in sums.items()},
            "val": scores.to_dict(),
        }
    journal.history.append(record)
    journal.epoch, journal.step, journal.sums = journal.epoch + 1, 0, {}
    setting.log(journal)
    return dice


def _validate(setting: Setting, learner: Learner) -> Scores:
    """Return the validation scores of the first process, which has the true batch-norm buffers."""
    scores = None
    if setting.fabric.is_global_zero:
        scores = score_network(learner.network, setting.val, setting.config.classes.count)
    return cast(Scores, setting.fabric.broadcast(scores))


class _Pace:
    """Knows the epochs of the whole run, and how long those that are left will take at this phase's pace."""

    def __init__(self, phase: Phase, steps_per_epoch: int, journal: Journal) -> None:
        # The student's curve spans both phases, and whoever spans the run is in each of them.
        self.total_epochs = max(learner.total_steps for learner in phase.learners) // steps_per_epoch
        self._begin = time.monotonic()
        self._first = journal.epoch + journal.step / steps_per_epoch
        self._least = 1 / steps_per_epoch

    def estimate_left(self, journal: Journal) -> float:
        """Return seconds, at the end of an epoch."""
        elapsed = time.monotonic() - self._begin
        # A run that goes on at the end of an epoch has only validated when that epoch is reported.
        done = max(journal.epoch - self._first, self._least)
        return elapsed * (self.total_epochs - journal.epoch) / done


class _SaveClock:
    """Knows when a checkpoint is due, and keeps the journal's count of seconds."""

    def __init__(self, setting: Setting, phase: Phase, journal: Journal) -> None:
        self._setting, self._phase, self._journal = setting, phase, journal
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Return whether SAVE_INTERVAL_S have passed since the last checkpoint."""
        return time.monotonic() - self._last >= SAVE_INTERVAL_S

    def save(self) -> None:
        """Write a checkpoint."""
        now = time.monotonic()
        self._journal.seconds += now - self._last
        self._last = now
        self._setting.save(self._journal, self._phase.learners)


@contextmanager
def delay_interrupt() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back until the block ends, then raise KeyboardInterrupt; a second Ctrl-C raises at once.

    Yields a function that tells whether Ctrl-C was pressed. Only the main thread can hold signals back;
    elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pending = False

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal pending
        if pending:
            raise KeyboardInterrupt
        pending = True

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: pending
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        raise KeyboardInterrupt
