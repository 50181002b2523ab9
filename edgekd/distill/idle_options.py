"""Refusing the options that would do nothing in a run, so that nobody believes that they did something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edgekd.config import DistillConfig
from edgekd.distill.objective import LOSSES, compares_logits
from edgekd.errors import UsageError


class _Need(NamedTuple):
    """What an option needs to have an effect, and whether the run has it."""

    option: str
    is_met: bool
    what: str


def refuse_idle_options(
    config: DistillConfig, terms: Iterable[str], *, has_ready_teacher: bool, cache: Path | None
) -> None:
    """Raise UsageError for the first option that nothing in the run would use.

    An option counts as given where it differs from its default: a run that is continued has them all.

    Args:
        config: the choices.
        terms: names of the losses to the teacher.
        has_ready_teacher: the teacher is a finished run.
        cache: folder for stored answers, as it was given; None where it was not.
    """
    for need in _list_needs(config, frozenset(terms), has_ready_teacher):
        value = getattr(config, need.option)
        default = DistillConfig.model_fields[need.option].get_default(call_default_factory=True)
        if not need.is_met and value != default:
            raise _build_error(need.option, value, need.what)
    if cache is not None and not config.store_answers:
        raise _build_error("cache", cache, "store_answers = true")


def _list_needs(config: DistillConfig, terms: frozenset[str], has_ready_teacher: bool) -> Iterator[_Need]:
    for option in ("teacher_options", "teacher_lr"):
        yield _Need(option, not has_ready_teacher, "a teacher that this run trains, not a finished run")
    has_free_frames = config.unlabeled is not None or config.mix
    yield _Need("confidence", has_free_frames, "frames without masks (unlabeled, or mix = true)")
    yield _Need("confidence", compares_logits(terms), "a loss on logits")
    yield _Need("quantize_epochs", config.quantize != "none", 'quantize = "int8"')
    for option in ("temperature", "boundary_weight"):
        users = {name for name, loss in LOSSES.items() if option in loss.options}
        yield _Need(option, bool(users & terms), "one of the losses " + ", ".join(sorted(users)))


def _build_error(option: str, value: object, needed: str) -> UsageError:
    return UsageError(
        f"the option {option} would do nothing in this run",
        received=f"{option} {value}",
        expected=f"{needed} beside it",
        action=f"leave {option} out, or add what it needs",
    )
