"""`distill`: the schedule, from a data set to the student's bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from edgekd.atomic import hash_file, write_bytes_atomic
from edgekd.config import DistillConfig
from edgekd.distill.checkpoints import load_learner
from edgekd.distill.finish import build_run_record, describe_trained, pack_weights, write_student_bundle
from edgekd.distill.identity import read_choices
from edgekd.distill.inputs import Inputs
from edgekd.distill.learner import Learner, load_weights
from edgekd.distill.loop import Phase
from edgekd.distill.losses import parse_terms
from edgekd.distill.ready import ReadyTeacher, find_ready_teacher
from edgekd.distill.results import BUNDLE_FOLDER, DistillResult, NetworkResult, read_record, write_record
from edgekd.distill.session import Session, describe_network, open_session
from edgekd.distill.teacher import FrozenTeacher
from edgekd.errors import IntegrityError
from edgekd.specs import ModelSpec

TEACHER_FILE = "teacher.safetensors"
CONTROL_FILE = "control.safetensors"
STUDENT_FILE = f"{BUNDLE_FOLDER}/student.safetensors"


def distill(
    config: DistillConfig,
    data: Path,
    out: Path,
    *,
    control: bool | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> DistillResult:
    """Train teacher and student, let the best teacher teach, and write the student's bundle.

    Phase 1 trains both side by side on the same batches, against the truth. In phase 2 the student
    continues against the truth and the frozen teacher of best validation Dice. The student's learning
    rate is one curve through both phases. The control branches off the student between the phases and
    continues without the teacher: as the student has not seen the teacher until then, it is bit for bit
    the student trained alone.

    Args:
        config: the choices.
        data: a data set in any layout of ``edgekd.data.find_cases``.
        out: the run folder, new unless ``resume``; ends with ``student.edgekd``, ``reference.npz``,
            ``teacher.safetensors``, ``curves.jsonl``, ``curves.png`` and ``result.json``.
        control: also train the control; None does as the run to be continued does, and not in a new one.
        resume: continue an interrupted run; the weights will be those of an uninterrupted one, bit for
            bit on the same machine and thread count. A finished run is returned as it is.
        quiet: show no bars, and write no line an epoch where there is no terminal.

    Raises:
        UsageError, InputError, MachineError: see ``open_session``; UsageError also for a diverging loss.
        KeyboardInterrupt: Ctrl-C; the run can be continued.
    """
    if control is None:
        control = resume and read_choices(out).get("control") is True
    plan = _make_plan(config, control)
    identity = {
        "kind": "distill",
        "control": control,
        "ready_teacher_sha256": None if plan.ready is None else plan.ready.fact.sha256,
    }
    session = open_session(
        config, data, out, identity, resume=resume, quiet=quiet, check_inputs=plan.check_inputs
    )
    if session is not None:
        _Distillation(session, plan).run()
    return DistillResult(out, read_record(out))


@dataclass(frozen=True)
class _Plan:
    """The choices, checked and looked up."""

    config: DistillConfig
    control: bool
    truth_terms: dict[str, float]
    teacher_terms: dict[str, float]
    ready: ReadyTeacher | None
    teacher: ModelSpec
    student: ModelSpec

    @property
    def total_epochs(self) -> int:
        """Epochs of the student in both phases."""
        second = self.config.distill_epochs
        return self.config.epochs + (self.config.epochs if second is None else second)

    def check_inputs(self, inputs: Inputs) -> None:
        """Raise UsageError where a ready teacher has learned from what judges the student."""
        if self.ready is not None:
            self.ready.check_not_leaked(inputs)


def _make_plan(config: DistillConfig, control: bool) -> _Plan:
    ready = find_ready_teacher(config)
    return _Plan(
        config=config,
        control=control,
        truth_terms=parse_terms(config.truth_losses, needs_teacher=False),
        teacher_terms=parse_terms(config.losses, needs_teacher=True),
        ready=ready,
        teacher=describe_network(config.teacher, config.teacher_options, config)
        if ready is None
        else ready.fact.model,
        student=describe_network(config.student, config.student_options, config),
    )


class _Distillation:
    """The two phases and what happens between and after them."""

    def __init__(self, session: Session, plan: _Plan) -> None:
        self._session, self._plan = session, plan
        self._student = self._build_student("student")

    def run(self) -> None:
        """Run, or continue, to the end."""
        journal = self._session.journal
        if journal.phase == 1:
            self._run_first_phase()
            learners = self._branch()
            journal.phase = 2
        else:
            learners = self._restore_second_phase()
        teacher = self._load_teacher()
        temperature = self._plan.config.temperature
        self._session.run(Phase(2, self._plan.total_epochs, learners, teacher, temperature))
        teacher.check_unchanged()
        if self._session.fabric.is_global_zero:
            self._finish(teacher, learners)
        self._session.fabric.barrier()

    def _run_first_phase(self) -> None:
        """Train both (the student alone beside a ready teacher) and write the teacher's weights."""
        session, config = self._session, self._plan.config
        learners = [self._student]
        if self._plan.ready is None:
            learners.insert(0, self._build_teacher())
        if session.checkpoint is not None:
            for learner in learners:
                load_learner(session.checkpoint, learner)
        session.run(Phase(1, config.epochs, learners))
        if session.fabric.is_global_zero:
            if self._plan.ready is None:
                weights, session.journal.teacher_epoch = learners[0].pick_weights("best")
                if session.journal.teacher_epoch is None:
                    session.journal.teacher_epoch = config.epochs - 1
                data = safetensors.torch.save(weights)
            else:
                data = self._plan.ready.weights.read_bytes()
            write_bytes_atomic(session.out / TEACHER_FILE, data)
        session.fabric.barrier()
        session.journal.teacher_sha256 = hash_file(session.out / TEACHER_FILE)

    def _branch(self) -> list[Learner]:
        """Return the student, now taught, and the control, which stands where the student stands."""
        self._student.forget_best()
        learners = [self._student]
        if self._plan.control:
            learners.append(self._build_student("control"))
            learners[1].import_state(self._student.export_state())
        self._student.terms = {**self._plan.truth_terms, **self._plan.teacher_terms}
        return learners

    def _restore_second_phase(self) -> list[Learner]:
        learners = self._branch()
        checkpoint = self._session.checkpoint
        if checkpoint is not None:
            for learner in learners:
                load_learner(checkpoint, learner)
        return learners

    def _load_teacher(self) -> FrozenTeacher:
        session, model = self._session, self._plan.teacher
        file = session.out / TEACHER_FILE
        if not file.is_file() or hash_file(file) != session.journal.teacher_sha256:
            raise IntegrityError(f"{file} is not the teacher that phase 1 chose", action="begin a new run")
        network = session.build_network(model.name, model.options)
        load_weights(network, safetensors.torch.load_file(file))
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return FrozenTeacher(session.fabric.to_device(network))

    def _finish(self, teacher: FrozenTeacher, learners: list[Learner]) -> None:
        """Choose and score the final weights, write the bundle and, last, ``result.json``."""
        session, plan = self._session, self._plan
        epoch = session.journal.teacher_epoch
        networks = {
            "teacher": describe_trained(
                session, teacher.network, plan.teacher, TEACHER_FILE, None if epoch is None else epoch + 1
            )
        }
        for learner, file in zip(learners, (STUDENT_FILE, CONTROL_FILE), strict=False):
            networks[learner.name] = self._choose(learner, file)
        if plan.control:
            write_bytes_atomic(session.out / CONTROL_FILE, pack_weights(learners[1].network))
        record = build_run_record(session, "distill", networks, plan.student)
        write_student_bundle(session, self._student.network, record)
        write_record(session.out, record)

    def _choose(self, learner: Learner, file: str) -> NetworkResult:
        weights, epoch = learner.pick_weights(self._plan.config.select)
        load_weights(learner.network, weights)
        last = self._plan.total_epochs if epoch is None else epoch + 1
        return describe_trained(self._session, learner.network, self._plan.student, file, last)

    def _build_student(self, name: str) -> Learner:
        plan = self._plan
        return self._session.build_learner(
            name, plan.student, terms=plan.truth_terms, peak_lr=plan.config.lr, epochs=plan.total_epochs
        )

    def _build_teacher(self) -> Learner:
        plan, config = self._plan, self._plan.config
        return self._session.build_learner(
            "teacher",
            plan.teacher,
            terms=plan.truth_terms,
            peak_lr=config.teacher_lr,
            epochs=config.epochs,
        )
