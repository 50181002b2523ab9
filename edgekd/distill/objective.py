"""The catalogue of losses by name, and how a few of them with weights make an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from edgekd.distill.feature_losses import attention_transfer, feature_channel_kl, hint_distance
from edgekd.distill.logit_losses import (
    channel_kl,
    find_boundary,
    pixel_kl,
    relation_distance,
    standardised_kl,
    teacher_dice,
)
from edgekd.distill.losses import cross_entropy, soft_dice
from edgekd.errors import UsageError, build_unknown_name_error

Terms = Mapping[str, float]
Kind = Literal["truth", "logits", "features"]
CHANNEL_TEMPERATURE = 4.0  # of channel-wise losses: Shu et al., ICCV 2021


class TeacherAnswer(NamedTuple):
    """What the teacher says: logits (N, K, h, w) and features (tap → (N, D, h', w')), float32."""

    logits: Tensor
    features: Mapping[str, Tensor]


@dataclass(frozen=True)
class LossInputs:
    """What a loss may look at.

    Attributes:
        logits: (N, K, h, w) of the network that learns.
        truth: (N, h, w) int64 class ids, or IGNORE.
        answer: the teacher's; None for a network that nobody teaches.
        weight: (N, h, w) float32, how much each pixel counts in the losses on the teacher's logits.
        features: tap → (N, C, h', w') of the network that learns.
        projected: the same after the projectors, with the teacher's channels.
        temperature: of ``kl`` and ``zkl``.
        boundary_weight: added to the weight of pixels at the teacher's boundary, in ``kl``, ``zkl`` and
            ``tdice``.
    """

    logits: Tensor
    truth: Tensor
    answer: TeacherAnswer | None = None
    weight: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    projected: Mapping[str, Tensor] = field(default_factory=dict)
    temperature: float = 1.0
    boundary_weight: float = 0.0

    @property
    def teacher_logits(self) -> Tensor:
        """The teacher's logits, for a loss that needs them."""
        if self.answer is None:
            raise ValueError("this loss needs the teacher's answer")
        return self.answer.logits

    @property
    def pixel_weight(self) -> Tensor:
        """``weight``, 1 everywhere where none was given."""
        return torch.ones_like(self.logits[:, 0]) if self.weight is None else self.weight

    @property
    def edge_weight(self) -> Tensor:
        """``pixel_weight``, raised at the teacher's boundary."""
        if self.boundary_weight == 0:
            return self.pixel_weight
        return self.pixel_weight * (1 + self.boundary_weight * find_boundary(self.teacher_logits))


class Loss(NamedTuple):
    """A loss of the catalogue.

    Attributes:
        function: the loss of the inputs, a float32 scalar.
        kind: whether it compares with the truth, the teacher's logits or the teacher's features; the last
            two are used in phase 2 by the student alone.
        projects: it compares the student's features after a projector to the teacher's channels.
        min_classes: fewer leave it without a gradient.
        options: keys of the configuration that only such losses use.
    """

    function: Callable[[LossInputs], Tensor]
    kind: Kind
    projects: bool = False
    min_classes: int = 2
    options: tuple[str, ...] = ()


def _compute_kl(inputs: LossInputs) -> Tensor:
    return pixel_kl(inputs.logits, inputs.teacher_logits, inputs.edge_weight, inputs.temperature)


def _compute_zkl(inputs: LossInputs) -> Tensor:
    return standardised_kl(inputs.logits, inputs.teacher_logits, inputs.edge_weight, inputs.temperature)


def _compute_cwd(inputs: LossInputs) -> Tensor:
    # A number added to all classes of a pixel changes no answer, but it would change the channels' maps; and
    # of answers that were averaged the logarithm of the probabilities is all there is.
    student, teacher = (logits.log_softmax(dim=1) for logits in (inputs.logits, inputs.teacher_logits))
    return channel_kl(student, teacher, inputs.pixel_weight, CHANNEL_TEMPERATURE)


def _average_taps(
    inputs: LossInputs, compare: Callable[[Tensor, Tensor], Tensor], *, project: bool
) -> Tensor:
    if inputs.answer is None:
        raise ValueError("this loss needs the teacher's answer")
    ours, theirs = inputs.projected if project else inputs.features, inputs.answer.features
    return torch.stack([compare(value, theirs[tap]) for tap, value in ours.items()]).mean()


LOSSES: dict[str, Loss] = {
    "ce": Loss(lambda inputs: cross_entropy(inputs.logits, inputs.truth), "truth"),
    "dice": Loss(lambda inputs: soft_dice(inputs.logits, inputs.truth), "truth"),
    "kl": Loss(_compute_kl, "logits", options=("temperature", "boundary_weight")),
    "zkl": Loss(_compute_zkl, "logits", min_classes=3, options=("temperature", "boundary_weight")),
    "tdice": Loss(
        lambda inputs: teacher_dice(inputs.logits, inputs.teacher_logits, inputs.edge_weight),
        "logits",
        options=("boundary_weight",),
    ),
    "cwd": Loss(_compute_cwd, "logits"),
    "dist": Loss(
        lambda inputs: relation_distance(inputs.logits, inputs.teacher_logits, inputs.pixel_weight),
        "logits",
        min_classes=3,
    ),
    "at": Loss(lambda inputs: _average_taps(inputs, attention_transfer, project=False), "features"),
    "fitnet": Loss(
        lambda inputs: _average_taps(inputs, hint_distance, project=True), "features", projects=True
    ),
    "fcwd": Loss(
        lambda inputs: _average_taps(
            inputs, lambda ours, theirs: feature_channel_kl(ours, theirs, CHANNEL_TEMPERATURE), project=True
        ),
        "features",
        projects=True,
    ),
}

_DEGENERATE = {
    "zkl": "standardised logits of two classes are always (-1, 1) or (1, -1), whatever the network says",
    "dist": "the correlation of two class probabilities with two others is always -1 or 1",
}


def parse_terms(text: str, *, needs_teacher: bool) -> dict[str, float]:
    """Return name → weight for a text such as ``ce:1,dice:0.5``.

    Args:
        text: names and weights.
        needs_teacher: whether these compare with the teacher (``losses``) or the truth (``truth_losses``).

    Raises:
        UsageError: an unknown loss, one of the other kind, one named twice, or a weight that is no
            positive number.
    """
    known = [name for name, loss in LOSSES.items() if (loss.kind != "truth") is needs_teacher]
    kind = "loss to the teacher (losses)" if needs_teacher else "loss to the truth (truth_losses)"
    terms: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight_text = part.strip().partition(":")
        if name not in known:
            raise build_unknown_name_error(kind, name, known)
        if name in terms:
            raise UsageError(f"the loss {name!r} is named twice", received=text)
        terms[name] = _parse_weight(name, weight_text)
    return terms


def compares_logits(terms: Iterable[str]) -> bool:
    """Return whether any of the losses looks at the teacher's logits."""
    return any(LOSSES[name].kind == "logits" for name in terms)


def check_terms(terms: Terms, *, num_classes: int, num_taps: int, num_teachers: int) -> None:
    """Raise UsageError where a loss has no gradient or nothing to compare in this run.

    Args:
        terms: losses to the teacher.
        num_classes: K, background included.
        num_taps: taps named for features.
        num_teachers: teachers whose answers are averaged.
    """
    for name in terms:
        if num_classes < LOSSES[name].min_classes:
            raise UsageError(
                f"the loss {name!r} is degenerate for {num_classes} classes: {_DEGENERATE[name]}",
                received=f"{num_classes} classes",
                expected=f"at least {LOSSES[name].min_classes}",
                action="use kl, cwd or tdice",
            )
    uses_features = any(LOSSES[name].kind == "features" for name in terms)
    if uses_features and num_teachers > 1:
        raise UsageError(
            "losses on features need one teacher",
            received=f"{num_teachers} teachers, whose features have no common meaning to average",
            action="name one teacher, or losses on logits alone",
        )
    if uses_features and num_taps == 0:
        raise UsageError("losses on features need taps", action="name some, for example --taps enc16")
    if num_taps > 0 and not uses_features:
        raise UsageError(
            "taps without a loss on features",
            received=f"losses {', '.join(terms)}",
            expected="one of " + ", ".join(name for name, loss in LOSSES.items() if loss.kind == "features"),
            action="leave the taps out, or add such a loss",
        )


def compute_losses(terms: Terms, inputs: LossInputs) -> dict[str, Tensor]:
    """Return each term (unweighted) and, under ``total``, their weighted sum, as float32 scalars."""
    with torch.autocast(inputs.logits.device.type, enabled=False):
        values = {name: LOSSES[name].function(inputs) for name in terms}
        weighted = [terms[name] * value for name, value in values.items()]
        if all(LOSSES[name].kind == "features" for name in terms):
            # Layers behind the taps get a gradient of zero: with several processes each waits for one.
            weighted.append(0 * inputs.logits.float().sum())
        total = torch.stack(weighted).sum()
    return {**values, "total": total}


def _parse_weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UsageError(
            f"the loss {name!r} has no weight that it can have",
            received=repr(text),
            expected="a positive number after a colon",
            action=f"write {name}:1",
        )
    return weight
