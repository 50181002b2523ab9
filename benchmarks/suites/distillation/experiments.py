"""The experiments whose results the project shows, each a plan that differs in nothing but what it asks."""

from __future__ import annotations

from typing import Any

from edgekd.benchmarks.suites.distillation.plan import DEFAULT_METHOD, Plan, Student
from edgekd.config import read_environment

REAL_SETS = ("busi", "hc18", "dsb2018")
SATURATED = "hc18"  # Its plain students reach the teacher.
# Two structures with little in common, and a teacher of over 20 times the parameters and MACs of either.
STUDENTS = (
    Student(label="unet-narrow-2", name="unet-narrow", options={"width": 2}),
    Student(label="dwnet-xs", name="dwnet-xs"),
)
# Small images and a half-width teacher, for machines without a GPU. Batch and learning rate of students this
# small were chosen on validation splits, for both sides (results/distillation/pilots.json): with 8 and 5e-3 a
# control gained 5 points of Dice from twice the steps, with these it gains nothing. Cells may come from
# several machines, so none computes in another precision than the others.
COMMON: dict[str, Any] = {"image_size": 64, "min_epoch_steps": 36, "batch_size": 16, "precision": "fp32"}
TEACHER: dict[str, Any] = {"model": "unet-wide-s", "epochs": 120, "lr": 3e-3, "batch_size": 8}
# The teacher is ready, so phase 1 only warms the student up.
DISTILL: dict[str, Any] = {
    "epochs": 10,
    "distill_epochs": 110,
    "lr": 2e-2,
    "views": 16,
    "store_answers": True,
}

MIXTURES: dict[str, dict[str, Any]] = {DEFAULT_METHOD: {}, "no-mix": {"mix": False}}
# Taught for twice the time; the doubled controls of the plan stand beside.
BUDGETS: dict[str, dict[str, Any]] = {DEFAULT_METHOD: {}, "longer-taught": {"distill_epochs": 230}}
# Changes of what the paper's abstract leaves open, losses and the teacher's views; without mixtures …
METHODS: dict[str, dict[str, Any]] = {
    "kl-tdice": {},
    "teacher-alone": {"truth_weight": 0},
    "kl": {"losses": "kl:1"},
    "tdice": {"losses": "tdice:1"},
    "cwd": {"losses": "cwd:3"},
    "cwd-alone": {"losses": "cwd:3", "truth_weight": 0},
    "with-cwd": {"losses": "kl:1,tdice:1,cwd:3"},
    "with-at": {"losses": "kl:1,tdice:1,at:1", "taps": "enc16,dec2"},
    "with-fitnet": {"losses": "kl:1,tdice:1,fitnet:1", "taps": "enc16,dec2"},
    "with-fcwd": {"losses": "kl:1,tdice:1,fcwd:1", "taps": "enc16,dec2"},
    "plain-view": {"teacher_view": "plain"},
    "no-mirror": {"teacher_mirror": False},
}
# … and numbers beside them.
NUMBERS: dict[str, dict[str, Any]] = {
    DEFAULT_METHOD: {},
    "boundary": {"boundary_weight": 2},
    "t2": {"temperature": 2},
    "kl-t2": {"losses": "kl:1", "temperature": 2},
    "kl-t4": {"losses": "kl:1", "temperature": 4},
    "half-taught": {"epochs": 60, "distill_epochs": 60},
}
# As it was run: half of the student's epochs before it is taught, a teacher of half the epochs, batches of 8,
# no mixtures.
QUARTER_COMMON: dict[str, Any] = {"image_size": 64, "min_epoch_steps": 36, "batch_size": 8}
QUARTER_TEACHER: dict[str, Any] = {"model": "dynunet-s", "epochs": 60, "lr": 4e-3}
QUARTER: dict[str, Any] = {"views": 16, "store_answers": True, "lr": 5e-3, "mix": False}


def build_experiments() -> dict[str, Plan]:
    """Return the experiments by name; of the phantom where no real set is at hand."""
    sets = REAL_SETS if read_environment().data is not None else ("phantom",)
    roomy = tuple(name for name in sets if name != SATURATED)
    shared: dict[str, Any] = {"students": STUDENTS, "common": COMMON, "teacher": TEACHER, "distill": DISTILL}
    unmixed = {**shared, "distill": {**DISTILL, "mix": False}}
    return {
        "table": Plan(sets=sets, seeds=(0, 1, 2), longer=True, **shared),
        "mixtures": Plan(sets=roomy, seeds=(0, 1, 2), methods=MIXTURES, **shared),
        "budget": Plan(sets=roomy, seeds=(0, 1, 2), methods=BUDGETS, longer=True, **shared),
        "ablation": Plan(sets=sets[:1], seeds=(0, 1, 2), methods=METHODS, **unmixed),
        "numbers": Plan(sets=sets[:1], seeds=(0, 1, 2), methods=NUMBERS, **shared),
        "quarter": Plan(
            sets=sets[:1],
            mask_part=0.25,
            seeds=(0, 1, 2),
            **{**shared, "common": QUARTER_COMMON, "teacher": QUARTER_TEACHER, "distill": QUARTER},
        ),
    }
