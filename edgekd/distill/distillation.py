"""`distill`: the schedule, from a data set to the student's bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch

from edgekd.atomic import hash_file, write_bytes_atomic
from edgekd.config import DistillConfig
from edgekd.distill.checkpoints import load_learner
from edgekd.distill.devices import explain_lost_process
from edgekd.distill.finish import build_run_record, describe_trained, pack_weights, write_student_bundle
from edgekd.distill.gain import estimate_gain
from edgekd.distill.hints import Hints, build_hints
from edgekd.distill.identity import read_choices
from edgekd.distill.learner import Learner, load_weights
from edgekd.distill.loop import Phase
from edgekd.distill.objective import LOSSES
from edgekd.distill.plan import Plan, make_plan
from edgekd.distill.predict import copy_to_cpu
from edgekd.distill.quantization import simulate_int8
from edgekd.distill.ready import read_kept_teachers, write_kept_teachers
from edgekd.distill.results import (
    BUNDLE_FOLDER,
    DistillResult,
    NetworkResult,
    name_teacher,
    name_teacher_file,
    read_record,
    write_record,
)
from edgekd.distill.session import Session, open_session
from edgekd.distill.teachers import build_teaching
from edgekd.distill.teaching import Teaching

ANSWERS_FOLDER = "answers"
CONTROL_FILE = "control.safetensors"
STUDENT_FILE = f"{BUNDLE_FOLDER}/student.safetensors"


def distill(
    config: DistillConfig,
    data: Path,
    out: Path,
    *,
    control: bool | None = None,
    resume: bool = False,
    cache: Path | None = None,
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
            bit on the same processor and thread count. A finished run is returned as it is.
        cache: folder for the teacher's answers, which runs may share; ``out/answers`` where None. Only with
            ``store_answers``.
        quiet: show no bars, and write no line an epoch where there is no terminal.

    Raises:
        UsageError, InputError, MachineError: see ``open_session``; UsageError also for a diverging loss.
        KeyboardInterrupt: Ctrl-C; the run can be continued.
    """
    if control is None:
        control = resume and read_choices(out).get("control") is True
    plan = make_plan(config, control, cache, read_kept_teachers(out) if resume else ())
    identity = {
        "kind": "distill",
        "control": control,
        "ready_teachers_sha256": [one.fact.sha256 for one in plan.ready],
    }
    session = open_session(
        config,
        data,
        out,
        identity,
        resume=resume,
        quiet=quiet,
        check_inputs=plan.check_inputs,
        write_more=lambda folder: write_kept_teachers(plan.ready, folder),
    )
    if session is not None:
        with explain_lost_process(session.fabric):
            _Distillation(session, plan, out / ANSWERS_FOLDER if cache is None else cache).run()
    return DistillResult(out, read_record(out))


class _Distillation:
    """The two phases and what happens between and after them."""

    def __init__(self, session: Session, plan: Plan, cache: Path) -> None:
        self._session, self._plan, self._cache = session, plan, cache
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
        teaching = build_teaching(self._session, self._plan, self._teacher_files, self._cache)
        self._run_second_phase(learners, teaching)
        teaching.check_unchanged()
        if self._session.fabric.is_global_zero:
            self._finish(teaching, learners)
        self._session.fabric.barrier()

    def _run_second_phase(self, learners: list[Learner], teaching: Teaching) -> None:
        config = self._plan.config
        end = config.count_epochs()
        if config.quantize == "none":
            self._session.run(Phase(2, end, learners, teaching))
            return
        begin = end - config.count_quantize_epochs()
        self._session.run(Phase(2, begin, learners, teaching))
        for learner in learners:
            learner.forget_best(before=begin)
        with simulate_int8([learner.network for learner in learners]):
            self._session.run(Phase(2, end, learners, teaching))

    def _run_first_phase(self) -> None:
        """Train both (the student alone beside a ready teacher) and write the teacher's weights."""
        session, config = self._session, self._plan.config
        learners = [self._student] if self._plan.ready else [self._build_teacher(), self._student]
        if session.checkpoint is not None:
            for learner in learners:
                load_learner(session.checkpoint, learner)
        session.run(Phase(1, config.epochs, learners))
        if session.fabric.is_global_zero:
            for file, weights in zip(self._teacher_files, self._pack_teachers(learners[0]), strict=True):
                write_bytes_atomic(file, weights)
        session.fabric.barrier()
        session.journal.teachers_sha256 = [hash_file(file) for file in self._teacher_files]

    @property
    def _teacher_files(self) -> list[Path]:
        return [self._session.out / name_teacher_file(index) for index in range(len(self._plan.teachers))]

    def _pack_teachers(self, trained: Learner) -> list[bytes]:
        """Return the files of the teachers: those of the ready ones, or the best weights of phase 1."""
        if self._plan.ready:
            return [one.weights.read_bytes() for one in self._plan.ready]
        weights, epoch = trained.pick_weights("best")
        self._session.journal.teacher_epoch = self._plan.config.epochs - 1 if epoch is None else epoch
        return [safetensors.torch.save(weights)]

    def _branch(self) -> list[Learner]:
        """Return the student, now taught, and the control, which stands where the student stands."""
        self._student.forget_best()
        learners = [self._student]
        if self._plan.control:
            learners.append(self._build_student("control"))
            learners[1].import_state(self._student.export_state())
        self._student.terms = self._plan.taught_terms
        if self._plan.taps:
            self._student.hints = self._build_hints()
        return learners

    def _restore_second_phase(self) -> list[Learner]:
        learners = self._branch()
        checkpoint = self._session.checkpoint
        if checkpoint is not None:
            for learner in learners:
                load_learner(checkpoint, learner)
        return learners

    def _build_hints(self) -> Hints:
        plan = self._plan
        projects = any(LOSSES[name].projects for name in plan.teacher_terms)
        return build_hints(
            self._session.fabric,
            self._student.network,
            plan.student.name,
            plan.taps,
            plan.tap_channels if projects else None,
            plan.config,
        )

    def _finish(self, teaching: Teaching, learners: list[Learner]) -> None:
        """Choose and score the final weights, write the bundle and, last, ``result.json``."""
        session, plan = self._session, self._plan
        epoch = session.journal.teacher_epoch
        networks = {
            name_teacher(index): describe_trained(
                session, teacher.network, model, file.name, None if epoch is None else epoch + 1
            )
            for index, (teacher, model, file) in enumerate(
                zip(teaching.teachers, plan.teachers, self._teacher_files, strict=True)
            )
        }
        for learner, file in zip(learners, (STUDENT_FILE, CONTROL_FILE), strict=False):
            networks[learner.name] = self._choose(learner, file)
        if plan.control:
            write_bytes_atomic(session.out / CONTROL_FILE, pack_weights(learners[1].network))
        seen = [sha256 for one in plan.ready for sha256 in one.record.train_pixels_sha256]
        record = build_run_record(session, "distill", networks, plan.student, teaching.teachers, seen)
        if plan.control:
            record = record.model_copy(update={"gain": self._estimate_gain(*learners)})
        write_student_bundle(session, self._student.network, record)
        write_record(session.out, record)

    def _estimate_gain(self, student: Learner, control: Learner) -> dict[str, Any]:
        config = self._session.config
        cases = self._session.inputs.splits["test"]
        ours, plain = copy_to_cpu(student.network), copy_to_cpu(control.network)
        return estimate_gain(ours, plain, cases, config.classes.count, config.seed)

    def _choose(self, learner: Learner, file: str) -> NetworkResult:
        weights, epoch = learner.pick_weights(self._plan.config.select)
        load_weights(learner.network, weights)
        last = self._plan.config.count_epochs() if epoch is None else epoch + 1
        return describe_trained(self._session, learner.network, self._plan.student, file, last)

    def _build_student(self, name: str) -> Learner:
        plan = self._plan
        return self._session.build_learner(
            name,
            plan.student,
            terms=plan.truth_terms,
            peak_lr=plan.config.lr,
            epochs=plan.config.count_epochs(),
        )

    def _build_teacher(self) -> Learner:
        plan, config = self._plan, self._plan.config
        return self._session.build_learner(
            "teacher",
            plan.teachers[0],
            terms=plan.truth_terms,
            peak_lr=config.teacher_lr,
            epochs=config.epochs,
        )
