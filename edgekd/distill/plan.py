"""What a distillation is going to do: its choices, checked and looked up before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.config import DistillConfig
from edgekd.distill.idle_options import refuse_idle_options
from edgekd.distill.inputs import Inputs, check_can_choose
from edgekd.distill.objective import check_terms, compares_logits, parse_terms
from edgekd.distill.ready import ReadyTeacher, find_ready_teachers
from edgekd.distill.session import check_share_of_one, describe_network
from edgekd.distill.taps import TapPair, measure_channels, parse_taps
from edgekd.errors import UsageError
from edgekd.models import build_model
from edgekd.specs import ModelSpec


@dataclass(frozen=True)
class Plan:
    """The choices, checked and looked up.

    Attributes:
        config: the choices.
        control: whether the control is trained too.
        truth_terms, teacher_terms: losses and weights.
        taps: places whose features are compared.
        tap_channels: pair → channels of the student and of the teacher there.
        ready: the teachers of finished runs; none where phase 1 trains the teacher.
        teachers: facts of the networks that teach.
        student: facts of the student.
    """

    config: DistillConfig
    control: bool
    truth_terms: dict[str, float]
    teacher_terms: dict[str, float]
    taps: tuple[TapPair, ...]
    tap_channels: dict[str, tuple[int, int]]
    ready: tuple[ReadyTeacher, ...]
    teachers: tuple[ModelSpec, ...]
    student: ModelSpec

    @property
    def taught_terms(self) -> dict[str, float]:
        """Losses and weights of the student in phase 2."""
        weight = self.config.truth_weight
        kept = {name: weight * value for name, value in self.truth_terms.items()} if weight > 0 else {}
        return {**kept, **self.teacher_terms}

    @property
    def mirrors_teacher(self) -> bool:
        """Whether the teacher is asked about each view's mirror image too."""
        config = self.config
        return config.teacher_mirror and config.augment.flip and compares_logits(self.teacher_terms)

    def check_inputs(self, inputs: Inputs) -> None:
        """Raise UsageError where a ready teacher has learned from what judges the student.

        Raises:
            UsageError: a step holds one image, and a network cannot learn from one.
            InputError: the best epoch of a network is wanted, and the validation split cannot tell it.
        """
        for one in self.ready:
            one.check_not_leaked(inputs)
        trained = (self.student,) if self.ready else (self.student, *self.teachers)
        check_share_of_one(trained, self.config, inputs)
        if not self.ready or self.config.select == "best":
            check_can_choose(inputs.splits["val"])


def make_plan(
    config: DistillConfig, control: bool, cache: Path | None = None, kept: Sequence[ReadyTeacher] = ()
) -> Plan:
    """Return the plan of a run, without reading its data.

    Args:
        config: the choices.
        control: whether the control is trained too.
        cache: folder for stored answers, where one was named.
        kept: ready teachers that the run to be continued has kept, wherever their own runs are now.

    Raises:
        InputError, IntegrityError: a ready teacher cannot be used.
        UsageError: unknown networks, losses or taps, choices that do not go together, or one that would do
            nothing.
    """
    ready = tuple(kept) or find_ready_teachers(config)
    teachers = tuple(one.fact.model for one in ready) or (
        describe_network(config.list_teachers()[0], config.teacher_options, config),
    )
    terms, taps = parse_terms(config.losses, needs_teacher=True), parse_taps(config.taps)
    check_terms(terms, num_classes=config.classes.count, num_taps=len(taps), num_teachers=len(teachers))
    refuse_idle_options(config, terms, has_ready_teacher=bool(ready), cache=cache)
    _check_views(config)
    _check_quantization(config)
    student = describe_network(config.student, config.student_options, config)
    return Plan(
        config=config,
        control=control,
        truth_terms=parse_terms(config.truth_losses, needs_teacher=False),
        teacher_terms=terms,
        taps=taps,
        tap_channels=_measure_taps(taps, student, teachers[0], config),
        ready=ready,
        teachers=teachers,
        student=student,
    )


def _check_quantization(config: DistillConfig) -> None:
    second = config.count_epochs() - config.epochs
    if config.quantize != "none" and config.count_quantize_epochs() > second:
        raise UsageError(
            "phase 2 is shorter than its epochs with rounding",
            received=f"quantize_epochs {config.quantize_epochs} of {second}",
            expected=f"at most {second}",
            action="lower quantize_epochs, or raise distill_epochs",
        )


def _check_views(config: DistillConfig) -> None:
    if config.store_answers and config.views == 0:
        raise UsageError(
            "answers can be kept only for a fixed number of views",
            received="store_answers with views 0, an endless number",
            action="set views, for example to 8, or leave store_answers out",
        )


def _measure_taps(
    taps: Sequence[TapPair], student: ModelSpec, teacher: ModelSpec, config: DistillConfig
) -> dict[str, tuple[int, int]]:
    """Return the channels of both networks at each pair; refuses taps that give no feature map."""
    if not taps:
        return {}
    spec = config.build_preprocess()
    image = (spec.channels, spec.height, spec.width)
    sides = ({pair.name: pair.student for pair in taps}, {pair.name: pair.teacher for pair in taps})
    ours, theirs = (
        measure_channels(
            build_model(model.name, model.in_channels, model.num_classes, model.options),
            model.name,
            side,
            image,
        )
        for model, side in zip((student, teacher), sides, strict=True)
    )
    return {key: (ours[key], theirs[key]) for key in sides[0]}
