"""A run of the product brought to the beginning of phase 2, where a suite may take its steps one by one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgekd.config import DistillConfig
from edgekd.distill import distill, loop, session
from edgekd.distill.checkpoints import Journal

VIEWS = 4
# As long as an epoch of a real set; the frames of a suite are fewer.
EPOCH_STEPS = 36


class Pair(NamedTuple):
    """A teacher, a student, the side of the images in pixels, and the images of a batch."""

    teacher: str
    student: str
    image_size: int
    batch_size: int


class Stage(NamedTuple):
    """A run that stands at the beginning of phase 2."""

    setting: loop.Setting
    phase: loop.Phase
    journal: Journal


class _Reached(Exception):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage


def reach_second_phase(pair: Pair, data: Path, out: Path, *, stored: bool) -> Stage:
    """Run phase 1 of a short run and return where phase 2 would begin."""
    config = DistillConfig(
        teacher=pair.teacher,
        student=pair.student,
        image_size=pair.image_size,
        batch_size=pair.batch_size,
        min_epoch_steps=EPOCH_STEPS,
        epochs=1,
        distill_epochs=1000,
        views=VIEWS if stored else 0,
        store_answers=stored,
    )
    run_phase = session.run_phase

    def stop_before_second(setting: loop.Setting, phase: loop.Phase, journal: Journal) -> None:
        if phase.number == 2:
            raise _Reached(Stage(setting, phase, journal))
        run_phase(setting, phase, journal)

    session.run_phase = stop_before_second
    try:
        distill(config, data, out, quiet=True)
    except _Reached as reached:
        return reached.stage
    finally:
        session.run_phase = run_phase
    raise RuntimeError("phase 2 was not reached")
