"""The training loop: every step of every epoch of a phase, in one view."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekd.config import FitConfig
from edgekd.data import LoadedCases
from edgekd.distill.batches import Batch, BatchBuilder
from edgekd.distill.checkpoints import Journal
from edgekd.distill.clocks import Pace, SaveClock
from edgekd.distill.interrupts import HurriedInterrupt, Interrupts
from edgekd.distill.learner import Learner
from edgekd.distill.objective import LossInputs, TeacherAnswer, compute_losses
from edgekd.distill.predict import score_network
from edgekd.distill.report import report_epoch
from edgekd.distill.schedule import compute_lr, derive_step_seed
from edgekd.distill.teaching import Teaching
from edgekd.errors import UsageError
from edgekd.metrics import Scores
from edgekd.progress import Progress


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with the same learners.

    Attributes:
        number: 1 or 2.
        end_epoch: the epoch after its last one, counted from the start of the run.
        learners: who is trained, on the same batches.
        teaching: who teaches; None where nobody does. A learner without a term that needs it never uses it.
    """

    number: int
    end_epoch: int
    learners: Sequence[Learner]
    teaching: Teaching | None = None


@dataclass(frozen=True)
class Setting:
    """What stays the same through a run.

    Attributes:
        fabric: device, precision, processes.
        config: the choices.
        batches: what each step learns from.
        val: the cases that choose epochs.
        save: writes a checkpoint of the phase's learners.
        log: is told when an epoch has ended.
        quiet: show no bar, and write no line an epoch.
    """

    fabric: Fabric
    config: FitConfig
    batches: BatchBuilder
    val: LoadedCases
    save: Callable[[Journal, Sequence[Learner]], None]
    log: Callable[[Journal], None]
    quiet: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.batches.steps_per_epoch


def run_phase(setting: Setting, phase: Phase, journal: Journal) -> None:
    """Train the learners of a phase from where ``journal`` stands to the phase's end.

    Raises:
        UsageError: a loss is not finite.
        KeyboardInterrupt: Ctrl-C; a checkpoint of the last whole step is on the disk.
    """
    quiet = setting.quiet or not setting.fabric.is_global_zero
    # The student's curve spans both phases, and whoever spans the run is in each of them.
    total_epochs = max(learner.total_steps for learner in phase.learners) // setting.steps_per_epoch
    pace = Pace(total_epochs, setting.steps_per_epoch, journal)
    names = " + ".join(learner.name for learner in phase.learners)
    remaining = (phase.end_epoch - journal.epoch) * setting.steps_per_epoch - journal.step
    with Progress(quiet=quiet) as progress, Interrupts(setting.fabric) as interrupts:
        bar = progress.add(f"phase {phase.number}: {names}", remaining)
        clock = SaveClock(functools.partial(setting.save, journal, phase.learners), journal)
        try:
            while journal.epoch < phase.end_epoch:
                advance = functools.partial(progress.advance, bar)
                _run_steps(setting, phase, journal, clock, interrupts, advance)
                with interrupts.allowed():
                    scores = {learner.name: _validate(setting, learner) for learner in phase.learners}
                _close_epoch(setting, phase, journal, scores)
                note = " ".join(f"{name} {value.dice:.3f}" for name, value in scores.items())
                progress.advance(bar, 0, note=note)
                left_s = pace.estimate_left(journal)
                report_epoch(journal.history[-1], total_epochs, left_s, quiet=quiet)
                if clock.is_due() or journal.epoch == phase.end_epoch:
                    clock.save()
        except HurriedInterrupt:
            raise  # in the middle of a step, which must not be saved
        except KeyboardInterrupt:
            clock.save()
            raise


def _run_steps(
    setting: Setting,
    phase: Phase,
    journal: Journal,
    clock: SaveClock,
    interrupts: Interrupts,
    advance: Callable[[], None],
) -> None:
    """Run the steps left in this epoch, all learners on each batch."""
    for learner in phase.learners:
        learner.module.train()
    for step in range(journal.step, setting.steps_per_epoch):
        run_step(setting, phase, journal, step)
        journal.step = step + 1
        advance()
        interrupts.stop_if_asked()
        if clock.is_due():
            clock.save()


def run_step(setting: Setting, phase: Phase, journal: Journal, step: int) -> None:
    """Train every learner of the phase on the batch of a step of the journal's epoch, counted from 0."""
    number = journal.epoch * setting.steps_per_epoch + step
    batch = setting.batches.build(number, with_free=phase.teaching is not None)
    answer = None if phase.teaching is None else phase.teaching.answer(batch)
    for learner in phase.learners:
        _prepare_step(setting, learner, journal.epoch, step)
        losses = compute_losses(learner.terms, _run_learner(learner, batch, phase.teaching, answer))
        values = _gather_losses(setting.fabric, losses)
        _check_finite(learner.name, values, journal.epoch, step)
        setting.fabric.backward(losses["total"])
        learner.step()
        _add_losses(journal, learner.name, values)


def _run_learner(
    learner: Learner, batch: Batch, teaching: Teaching | None, answer: TeacherAnswer | None
) -> LossInputs:
    """Return what the learner's losses look at; who is not taught sees the frames with masks alone."""
    if teaching is None or answer is None or not learner.is_taught:
        views = batch.take_labelled().views
        return LossInputs(learner.module(views.images), views.truths)
    logits = learner.module(batch.views.images)
    features, projected = ({}, {}) if learner.hints is None else learner.hints.read()
    return LossInputs(
        logits,
        batch.views.truths,
        answer,
        teaching.weigh_pixels(batch, answer),
        features,
        projected,
        teaching.temperature,
        teaching.boundary_weight,
    )


def _prepare_step(setting: Setting, learner: Learner, epoch: int, step: int) -> None:
    learner.set_lr(_find_lr(setting, learner, epoch, step))
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
            action="start again with a smaller learning rate or, if in bf16, with --precision fp32",
        )


def _add_losses(journal: Journal, name: str, values: dict[str, float]) -> None:
    sums = journal.sums.setdefault(name, {})
    for term, value in values.items():
        sums[term] = sums.get(term, 0.0) + value


def _validate(setting: Setting, learner: Learner) -> Scores:
    """Return the validation scores of the first process, which has the true batch-norm buffers."""
    scores = None
    if setting.fabric.is_global_zero:
        scores = score_network(learner.network, setting.val, setting.config.classes.count)
    return cast(Scores, setting.fabric.broadcast(scores))


def _close_epoch(setting: Setting, phase: Phase, journal: Journal, scores: Mapping[str, Scores]) -> None:
    """Keep the best weights and write the epoch's record."""
    record: dict[str, Any] = {"epoch": journal.epoch + 1, "phase": phase.number, "learners": {}}
    for learner in phase.learners:
        learner.record_score(scores[learner.name].dice, journal.epoch)
        sums = journal.sums[learner.name]
        record["learners"][learner.name] = {
            "lr": _find_lr(setting, learner, journal.epoch, setting.steps_per_epoch - 1),
            "losses": {term: value / setting.steps_per_epoch for term, value in sums.items()},
            "val": scores[learner.name].to_dict(),
        }
    journal.history.append(record)
    journal.epoch, journal.step, journal.sums = journal.epoch + 1, 0, {}
    setting.log(journal)
