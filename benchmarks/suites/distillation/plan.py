"""Which cells an experiment has, and the makefile that runs them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edgekd.atomic import write_json_atomic, write_text_atomic
from edgekd.config import DistillConfig, TrainConfig
from edgekd.config_reader import build_config
from edgekd.errors import InputError, build_unknown_name_error
from edgekd.specs import Spec

PLAN_FILE = "plan.json"
MAKEFILE = "Makefile"
DEFAULT_METHOD = "default"
PATHS = ("teacher", "unlabeled", "golden")  # places on the machine that runs a cell, no part of a result

Values = dict[str, Any]
# Parts of file names and of make's targets.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class Student(Spec):
    """A student structure: a network of the catalogue, its options, and a short name."""

    label: Label
    name: str
    options: dict[str, int] = Field(default_factory=dict)


class Plan(Spec):
    """An experiment; everything a cell needs, so that a cell can run on any machine that has the data.

    Attributes:
        sets: data sets by their folder below ``EDGEKD_DATA``, or ``phantom``.
        mask_part: part of the training groups that keep their masks, by hash; the other frames become frames
            without masks.
        students: the structures.
        seeds: one run each of every student; a set has one teacher.
        common: configuration of every run (image size, epochs a pass …).
        teacher: configuration of the teacher's run beside.
        distill: configuration of the students' runs beside.
        methods: name → what a method changes in ``distill``; the first one's runs train the controls too.
        longer: also train each control for twice the steps, to see whether the budget is long enough.
        defaults: of ``train`` and ``distill`` when the plan was written, so that its cells stay alike when
            they change; empty for those of the day of each run.
    """

    sets: tuple[Label, ...]
    mask_part: float = 1.0
    students: tuple[Student, ...]
    seeds: tuple[int, ...]
    common: Values
    teacher: Values
    distill: Values
    methods: dict[Label, Values] = Field(default_factory=lambda: {DEFAULT_METHOD: {}}, min_length=1)
    longer: bool = False
    defaults: dict[Literal["train", "distill"], Values] = Field(default_factory=dict)

    @property
    def base_method(self) -> str:
        """The method whose runs train the controls and whose students stand for their structure."""
        return next(iter(self.methods))

    @property
    def num_runs(self) -> int:
        """Runs of each method."""
        return len(self.sets) * len(self.students) * len(self.seeds)


@dataclass(frozen=True)
class Cell:
    """One run of an experiment.

    Attributes:
        kind: the teacher of a set, a student by a method, or a control of twice the steps.
        set: the data set.
        student: label of the structure; "" for a teacher.
        seed: of the run.
        method: name of the method; "" for what is not distilled.
    """

    kind: Literal["teacher", "student", "longer"]
    set: str
    student: str = ""
    seed: int = 0
    method: str = ""

    @property
    def name(self) -> str:
        """The name of its JSON file and run folder."""
        if self.kind == "teacher":
            return f"{self.set}-teacher"
        return f"{self.set}-{self.student}-s{self.seed}-{self.method or 'longer'}"


def list_cells(plan: Plan) -> list[Cell]:
    """Return the cells in the order they are worth running: teachers, the table, the rest."""
    cells = [Cell("teacher", name) for name in plan.sets]
    places = [(name, student.label) for name in plan.sets for student in plan.students]
    for seed in plan.seeds:
        cells += [Cell("student", *place, seed, method) for method in plan.methods for place in places]
    if plan.longer:
        cells += [Cell("longer", *place, seed) for seed in plan.seeds for place in places]
    return cells


def list_choices(plan: Plan, cell: Cell) -> Values:
    """Return what the plan says of a cell's configuration, without the places of data and teacher."""
    if cell.kind == "teacher":
        return {**plan.defaults.get("train", {}), **plan.common, **plan.teacher, "seed": cell.seed}
    student = next(student for student in plan.students if student.label == cell.student)
    distilled = {**plan.defaults.get("distill", {}), **plan.common, **plan.distill}
    if cell.kind == "student":
        network = {"student": student.name, "student_options": student.options}
        return {**distilled, **plan.methods[cell.method], **network, "seed": cell.seed}
    kept = {key: value for key, value in distilled.items() if key in TrainConfig.model_fields}
    epochs = 2 * build_config(DistillConfig, distilled).count_epochs()
    lr = distilled.get("lr", DistillConfig.model_fields["lr"].default)
    network = {"model": student.name, "model_options": student.options}
    return {**kept, **network, "epochs": epochs, "lr": lr, "select": "last", "seed": cell.seed}


def find_cell(plan: Plan, name: str) -> Cell:
    """Return the cell of that name.

    Raises:
        UsageError: there is none.
    """
    cells = {cell.name: cell for cell in list_cells(plan)}
    if name not in cells:
        raise build_unknown_name_error("cell", name, cells)
    return cells[name]


def write_plan(plan: Plan, out: Path) -> None:
    """Write ``plan.json``, with today's defaults, and a makefile with a target for each cell's JSON file."""
    out.mkdir(parents=True, exist_ok=True)
    kinds = {"train": TrainConfig(), "distill": DistillConfig()}
    defaults = {name: config.model_dump(mode="json", exclude=set(PATHS)) for name, config in kinds.items()}
    plan = plan.model_copy(update={"defaults": defaults})
    write_json_atomic(out / PLAN_FILE, plan.model_dump(mode="json"))
    write_text_atomic(out / MAKEFILE, format_makefile(plan))


def read_plan(out: Path) -> Plan:
    """Return the plan of an experiment.

    Raises:
        InputError: there is none in ``out``.
    """
    path = out / PLAN_FILE
    if not path.is_file():
        raise InputError(f"there is no experiment in {out}", action="write one with the command plan")
    return Plan.model_validate(json.loads(path.read_text()))


def format_makefile(plan: Plan) -> str:
    """Return the makefile: one target a cell, students after their teacher."""
    cells = list_cells(plan)
    lines = [
        f"PYTHON ?= {sys.executable}",
        "CELL = $(PYTHON) -m edgekd.benchmarks.suites.distillation cell .",
        "",
        "all: " + " ".join(f"{cell.name}.json" for cell in cells),
    ]
    for cell in cells:
        # A control of twice the steps needs no teacher, but two cells must not make the same data at once.
        needs = "" if cell.kind == "teacher" else f" {cell.set}-teacher.json"
        lines += ["", f"{cell.name}.json:{needs}", f"\t$(CELL) {cell.name}"]
    return "\n".join(lines) + "\n"
