"""The run folder: begun once, continued only with the same choices and the same data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from edgekd.atomic import check_output_place, staged_folder, write_json_atomic
from edgekd.config import DistillConfig, FitConfig
from edgekd.distill.batches import (
    BatchBuilder,
    MixedPool,
    Source,
    build_labelled_pool,
    build_unlabelled_pool,
)
from edgekd.distill.checkpoints import Journal, find_checkpoint, load_journal, save_checkpoint
from edgekd.distill.curves import write_curves
from edgekd.distill.devices import Precision, build_fabric, is_main_process, launch_processes
from edgekd.distill.identity import CONFIG_FILE, check_same_choices, check_same_data
from edgekd.distill.inputs import Inputs, divide_cases, hash_splits, load_inputs
from edgekd.distill.learner import Learner, build_learner
from edgekd.distill.loop import Phase, Setting, run_phase
from edgekd.distill.results import RESULT_FILE
from edgekd.distill.schedule import check_shares
from edgekd.errors import UsageError
from edgekd.models import (
    build_model,
    check_image_size,
    check_learns_from_one,
    check_network,
    count_model,
    resolve_options,
)
from edgekd.specs import ModelSpec

STATE_FOLDER = "state"
CURVES_FILE = "curves.jsonl"

Options = dict[str, int | float | str | bool]


@dataclass(frozen=True)
class Session:
    """A run in progress.

    Attributes:
        out: its folder.
        config: the choices.
        precision: what is computed in.
        fabric: device and processes.
        inputs: the data.
        journal: how far the run has come.
        checkpoint: where it continues from; None at the beginning.
        quiet: show no bar, and write no line an epoch.
    """

    out: Path
    config: FitConfig
    precision: Precision
    fabric: Fabric
    inputs: Inputs
    journal: Journal
    checkpoint: Path | None
    quiet: bool

    @property
    def setting(self) -> Setting:
        """What the loop needs."""
        val = self.inputs.splits["val"]
        return Setting(self.fabric, self.config, self.batches, val, self._save, self._log, self.quiet)

    @cached_property
    def batches(self) -> BatchBuilder:
        """What each step learns from."""
        inputs = self.inputs
        labelled = build_labelled_pool(inputs.splits["train"], inputs.cases_sha256["train"])
        free: list[Source] = [] if inputs.unlabelled is None else [build_unlabelled_pool(inputs.unlabelled)]
        if isinstance(self.config, DistillConfig) and self.config.mix:
            free.append(MixedPool(labelled, mirror=self.config.augment.flip))
        return BatchBuilder(self.fabric, self.config, labelled, free)

    def run(self, phase: Phase) -> None:
        """Train a phase to its end."""
        run_phase(self.setting, phase, self.journal)

    def build_network(self, name: str, options: Options) -> nn.Module:
        """Return a network on the CPU whose initial weights depend on the seed alone."""
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return build_model(name, config.build_preprocess().channels, config.classes.count, options)

    def build_learner(
        self, name: str, model: ModelSpec, *, terms: dict[str, float], peak_lr: float, epochs: int
    ) -> Learner:
        """Return a new learner whose learning rate is one curve over ``epochs``."""
        return build_learner(
            self.fabric,
            name,
            self.build_network(model.name, model.options),
            terms=terms,
            peak_lr=peak_lr,
            total_steps=epochs * self.batches.steps_per_epoch,
            weight_decay=self.config.weight_decay,
        )

    def _save(self, journal: Journal, learners: Sequence[Learner]) -> None:
        if self.fabric.is_global_zero:
            save_checkpoint(self.out / STATE_FOLDER, journal, learners)

    def _log(self, journal: Journal) -> None:
        if self.fabric.is_global_zero:
            write_curves(self.out / CURVES_FILE, journal.history)


def open_session(
    config: FitConfig,
    data: Path,
    out: Path,
    extra: Mapping[str, Any],
    *,
    resume: bool,
    quiet: bool,
    check_inputs: Callable[[Inputs], None] | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> Session | None:
    """Check everything, read the data and begin the run folder, or find the place to continue.

    Args:
        config: the choices.
        data: the data set.
        out: the run folder.
        extra: further facts that must stay the same when the run is continued.
        resume: continue a run.
        quiet: show no bar, and write no line an epoch.
        check_inputs: further checks of the data, before anything is written.
        write_more: writes what else the folder of a new run begins with.

    Returns:
        The session, or None where the run to be continued is finished.

    Raises:
        UsageError: ``out`` exists or cannot be written, a choice has changed since, or the processes of
            several machines were not started.
        InputError: there is no run to continue, or the data cannot be used or has changed since.
        MachineError: a device or precision is missing.
    """
    # All of it before the launch: a fault ends the one process that there is, with one message.
    fabric, precision = build_fabric(config)
    choices = {**extra, "precision": precision, "config": config.model_dump(mode="json")}
    quiet = quiet or not is_main_process()
    if not resume:
        _check_out_is_new(out)
    else:
        check_same_choices(out, type(config), choices)
        if (out / RESULT_FILE).is_file():
            check_same_data(out, hash_splits(divide_cases(data, config)))
            if not quiet:
                sys.stderr.write(f"the run {out} is finished already; nothing is left to do\n")
            return None
    inputs = load_inputs(data, config, quiet=quiet)
    world_size = config.devices * config.num_nodes
    check_shares(len(inputs.splits["train"].images), config.batch_size, world_size)
    if check_inputs is not None:
        check_inputs(inputs)
    if resume:
        check_same_data(out, inputs.sha256)
    launch_processes(fabric)
    fabric.barrier()
    if not resume and fabric.is_global_zero:
        with staged_folder(out) as staging:
            write_json_atomic(staging / CONFIG_FILE, {**choices, "data_sha256": dict(inputs.sha256)})
            if write_more is not None:
                write_more(staging)
    fabric.barrier()
    checkpoint = find_checkpoint(out / STATE_FOLDER)
    journal = Journal() if checkpoint is None else load_journal(checkpoint)
    return Session(out, config, precision, fabric, inputs, journal, checkpoint, quiet)


def describe_network(name: str, options: Options, config: FitConfig) -> ModelSpec:
    """Return the facts of a network after checking that it takes the images and gives logits.

    Raises:
        UsageError: unknown network or option, or an image size it cannot take.
    """
    spec = config.build_preprocess()
    resolved = resolve_options(name, options)
    network = build_model(name, spec.channels, config.classes.count, resolved)
    check_image_size(name, spec.height, spec.width, resolved)
    check_network(name, network, spec.channels, config.classes.count, spec.height, spec.width)
    parameters, macs = count_model(network, spec.channels, spec.height, spec.width)
    return ModelSpec(
        name=name,
        options=resolved,
        in_channels=spec.channels,
        num_classes=config.classes.count,
        parameters=parameters,
        macs=macs,
    )


def check_share_of_one(models: Sequence[ModelSpec], config: FitConfig, inputs: Inputs) -> None:
    """Raise UsageError where a step holds one image for a process, and a network cannot learn from one."""
    batch = min(config.batch_size, len(inputs.splits["train"].images))
    if batch > config.devices * config.num_nodes:
        return
    spec = config.build_preprocess()
    for model in models:
        network = build_model(model.name, model.in_channels, model.num_classes, model.options)
        check_learns_from_one(model.name, network, spec.channels, spec.height, spec.width)


def _check_out_is_new(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise UsageError(
            f"the run folder {out} exists already", action="continue it with --resume, or name another one"
        )
    check_output_place(out)
