"""What a step of phase 2 costs beside the bare networks, and how much of an epoch is spent inside them.

Four steps are taken in turn, in one process, in an order that changes from round to round:

- online: the product's own loop, the teacher asked;
- stored: the product's own loop, the teacher's answers read;
- bare student: forward, the same losses, backward and optimiser on a batch that lies ready;
- bare pair: the teacher's forward before it; twice where it is shown each view's mirror image too.

The figures are medians over the rounds of online ÷ bare pair and stored ÷ bare student. Beside the clock
stands the processor time of the whole process, every thread of it, which other work on the machine disturbs
less. Epochs with their validation are then run for each, with a stopwatch around the networks.

Run it as ``python -m edgekd.benchmarks.suites.step_cost --out step_cost.json``.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from edgekd.atomic import write_json_atomic
from edgekd.benchmarks.environment import describe_conditions, describe_environment
from edgekd.benchmarks.suites.second_phase import VIEWS, Pair, Stage, reach_second_phase
from edgekd.data import write_phantom
from edgekd.distill import loop
from edgekd.distill.checkpoints import Journal
from edgekd.distill.objective import LossInputs, TeacherAnswer, compute_losses
from edgekd.distill.schedule import build_optimizer

FRAMES = 96
EPOCHS = 2
PAIRS = ("dynunet-s,unet-narrow,128,8", "unet-wide-s,dwnet-xs,64,16")
Sample = tuple[int, int]
"""Wall and processor time, ns."""


def build_bare_step(stage: Stage) -> Callable[[bool], None]:
    """Return a step of a copy of the student on one batch, after the teacher's forward or without it."""
    learner, teaching = stage.phase.learners[0], _get_teaching(stage)
    student = copy.deepcopy(learner.network).train()
    optimizer = build_optimizer(student, stage.setting.config.weight_decay)
    for group in optimizer.param_groups:
        group["lr"] = learner.peak_lr
    batch = stage.setting.batches.build(0, with_free=True)
    teacher, images, truths = teaching.teachers[0].network, batch.views.images, batch.views.truths
    mirrors = [images.flip(-1)] if teaching.mirror else []
    with torch.no_grad():
        kept = TeacherAnswer(teacher(images), {})
    weight = teaching.weigh_pixels(batch, kept)

    def step(with_teacher: bool) -> None:
        answer = kept
        if with_teacher:
            with torch.no_grad():
                answer, *_ = (TeacherAnswer(teacher(view), {}) for view in (images, *mirrors))
        inputs = LossInputs(student(images), truths, answer, weight, temperature=teaching.temperature)
        compute_losses(learner.terms, inputs)["total"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure_steps(online: Stage, stored: Stage, rounds: int) -> dict[str, list[Sample]]:
    """Return the samples of each of the four steps, after rounds that are not counted and fill the store."""
    bare = build_bare_step(online)
    counter = iter(range(10**9))
    steps: dict[str, Callable[[], None]] = {
        "online": lambda: loop.run_step(*online, next(counter)),
        "bare pair": lambda: bare(True),
        "stored": lambda: loop.run_step(*stored, next(counter)),
        "bare student": lambda: bare(False),
    }
    for number in range(VIEWS * stored.setting.steps_per_epoch + 1):
        loop.run_step(*stored, number)
    samples: dict[str, list[Sample]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        names = list(steps)[number % 4 :] + list(steps)[: number % 4]
        taken = {name: _time(steps[name]) for name in (names if number % 2 else reversed(names))}
        if number >= 2:
            for name, sample in taken.items():
                samples[name].append(sample)
    return samples


class _Stopwatch:
    """Adds up the time of the calls it wraps; calls inside wrapped calls are not counted twice."""

    def __init__(self) -> None:
        self.taken: Sample = (0, 0)
        self._inside = False

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return function(*arguments, **options)
            self._inside, begin = True, _read_clocks()
            try:
                return function(*arguments, **options)
            finally:
                end, self._inside = _read_clocks(), False
                self.taken = (self.taken[0] + end[0] - begin[0], self.taken[1] + end[1] - begin[1])

        return timed


def measure_epoch(stage: Stage) -> dict[str, Sample]:
    """Return the time of EPOCHS epochs up to the last record, and the networks' part of it.

    The checkpoint that ends a phase comes after; the others are bounded by ``clocks.SAVE_SHARE``.
    """
    setting, phase, journal = stage
    watch, ends = _Stopwatch(), list[Sample]()

    def log(journal: Journal) -> None:
        setting.log(journal)
        ends.append(_read_clocks())

    with _watched(stage, watch):
        begin = _read_clocks()
        short = replace(phase, end_epoch=journal.epoch + EPOCHS)
        loop.run_phase(replace(setting, quiet=True, log=log), short, journal)
    return {"epochs": (ends[-1][0] - begin[0], ends[-1][1] - begin[1]), "inside the networks": watch.taken}


@contextmanager
def _watched(stage: Stage, watch: _Stopwatch) -> Iterator[None]:
    """Put the stopwatch around forwards, losses, backward and optimiser, in training and validation."""
    fabric, learners = stage.setting.fabric, stage.phase.learners
    networks = [one.network for one in (*_get_teaching(stage).teachers, *learners)]
    kept = loop.compute_losses, fabric.backward
    loop.compute_losses, fabric.backward = map(watch.wrap, kept)
    for network in networks:
        network.forward = watch.wrap(network.forward)
    for learner in learners:
        learner.step = watch.wrap(learner.step)
    try:
        yield
    finally:
        loop.compute_losses, fabric.backward = kept
        for network in networks:
            del network.forward
        for learner in learners:
            del learner.__dict__["step"]


def _get_teaching(stage: Stage) -> Any:
    return stage.phase.teaching


def _time(step: Callable[[], None]) -> Sample:
    begin = _read_clocks()
    step()
    end = _read_clocks()
    return end[0] - begin[0], end[1] - begin[1]


def _read_clocks() -> Sample:
    return time.perf_counter_ns(), time.process_time_ns()


def summarise(
    samples: Mapping[str, list[Sample]], epochs: Mapping[str, Mapping[str, Sample]]
) -> dict[str, Any]:
    """Return the medians of the ratios, by wall clock and by processor time, and the parts of the epochs."""
    clocks = {"wall": 0, "cpu": 1}
    ratios = {
        f"{name} / {bare}": {
            clock: statistics.median(a[i] / b[i] for a, b in zip(samples[name], samples[bare], strict=True))
            for clock, i in clocks.items()
        }
        for name, bare in (("online", "bare pair"), ("stored", "bare student"))
    }
    inside = {
        name: {clock: one["inside the networks"][i] / one["epochs"][i] for clock, i in clocks.items()}
        for name, one in epochs.items()
    }
    medians_ms = {
        name: {clock: statistics.median(one[i] for one in taken) / 1e6 for clock, i in clocks.items()}
        for name, taken in samples.items()
    }
    return {"ratios": ratios, "part of an epoch inside the networks": inside, "medians_ms": medians_ms}


def measure_pair(pair: Pair, rounds: int, folder: Path) -> dict[str, Any]:
    """Return everything about a pair: what it is, the figures and the raw samples."""
    data = folder / "data"
    if not data.is_dir():
        write_phantom(data, FRAMES, 0, quiet=True)
    name = "-".join(map(str, pair))
    stages = {
        kind: reach_second_phase(pair, data, folder / f"{name}-{kind}", stored=kind == "stored")
        for kind in ("online", "stored")
    }
    samples = measure_steps(stages["online"], stages["stored"], rounds)
    epochs = {kind: measure_epoch(stage) for kind, stage in stages.items()}
    figures = summarise(samples, epochs)
    return {**pair._asdict(), **figures, "samples_ns": samples, "epochs_ns": epochs}


def _parse_pair(text: str) -> Pair:
    teacher, student, size, batch = text.split(",")
    return Pair(teacher, student, int(size), int(batch))


def _show(found: Mapping[str, Any]) -> None:
    size, batch = found["image_size"], found["batch_size"]
    typer.echo(f"\n{found['teacher']} → {found['student']} at {size}, batches of {batch}")
    rows = {
        **found["ratios"],
        **{f"{k}: inside": v for k, v in found["part of an epoch inside the networks"].items()},
    }
    for name, value in rows.items():
        typer.echo(f"  {name:24} wall {value['wall']:.3f}   cpu {value['cpu']:.3f}")
    for name, value in found["medians_ms"].items():
        typer.echo(f"  {name:24} wall {value['wall']:.1f} ms   cpu {value['cpu']:.1f} ms")


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    pair: Annotated[list[str] | None, typer.Option(help="TEACHER,STUDENT,SIZE,BATCH; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(min=3)] = 25,
    threads: Annotated[int, typer.Option(min=0, help="Of torch; 0 takes torch's default.")] = 0,
) -> None:
    """Measure the pairs, print the ratios and write them with the raw samples."""
    if threads:
        torch.set_num_threads(threads)
    pairs = [_parse_pair(text) for text in pair or PAIRS]
    conditions = describe_conditions()
    with tempfile.TemporaryDirectory() as folder:
        found = [measure_pair(one, rounds, Path(folder)) for one in pairs]
    for one in found:
        _show(one)
    machine = {**describe_environment(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    write_json_atomic(out, {"environment": machine, "conditions": conditions, "pairs": found})


if __name__ == "__main__":
    typer.run(main)
