"""The losses, each with its source, and how a few of them make an objective.

Pixels whose truth is IGNORE (outside the image after augmentation) count in no loss. Every loss computes
in float32 outside autocast, whatever the networks computed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.errors import UsageError, build_unknown_name_error

IGNORE = 255
DICE_SMOOTHING = 1.0


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean cross-entropy over valid pixels, in nats.

    Args:
        logits: (N, K, h, w).
        truth: (N, h, w) int64 class ids, or IGNORE.
    """
    one_hot, valid = _encode_truth(truth, logits.shape[1])
    log_probabilities = functional.log_softmax(logits.float(), dim=1)
    return -(one_hot * log_probabilities).sum() / valid.sum().clamp(min=1)


def soft_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Return 1 minus the soft Dice of the foreground classes, each counted over the whole batch.

    ``1 - mean_k (2 sum p g + s) / (sum p + sum g + s)``, s = DICE_SMOOTHING pixels; the form without
    squares of Drozdzal et al. (DLMIA 2016), summed over the batch as nnU-Net does in two dimensions
    (Isensee et al., 2021), so that images without a lesion leave the loss defined.

    Args:
        logits: (N, K, h, w).
        truth: (N, h, w) int64 class ids, or IGNORE.
    """
    one_hot, valid = _encode_truth(truth, logits.shape[1])
    probabilities = logits.float().softmax(dim=1) * valid.unsqueeze(1)
    overlap = (probabilities * one_hot).sum(dim=(0, 2, 3))[1:]
    total = (probabilities + one_hot).sum(dim=(0, 2, 3))[1:]
    return 1 - ((2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


def pixel_kl(student_logits: Tensor, teacher_logits: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return T² KL(teacher || student) of the softened pixels: sum over classes, mean over valid pixels.

    ``T² mean_pixels sum_k t_k (log t_k - log s_k)``, t and s the softmax of the logits over T (Hinton et
    al., 2015, per pixel as Liu et al., CVPR 2019). T² keeps the gradient's size nearly independent of T.

    Args:
        student_logits: (N, K, h, w).
        teacher_logits: (N, K, h, w), without gradient.
        valid: (N, h, w) bool.
        temperature: T > 0.
    """
    student_log = functional.log_softmax(student_logits.float() / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher_logits.float() / temperature, dim=1)
    divergence = (teacher_log.exp() * (teacher_log - student_log)).sum(dim=1)
    return temperature**2 * (divergence * valid).sum() / valid.sum().clamp(min=1)


class LossInputs(NamedTuple):
    """What a loss may look at: logits (N, K, h, w), truth (N, h, w) int64, the teacher's logits, T."""

    logits: Tensor
    truth: Tensor
    teacher_logits: Tensor | None
    temperature: float


class Loss(NamedTuple):
    """A loss of the catalogue; ``needs_teacher`` ones are used in phase 2 by the student alone."""

    function: Callable[[LossInputs], Tensor]
    needs_teacher: bool


def _pixel_kl_of_inputs(inputs: LossInputs) -> Tensor:
    if inputs.teacher_logits is None:
        raise ValueError("kl needs the teacher's logits")
    valid = inputs.truth != IGNORE
    return pixel_kl(inputs.logits, inputs.teacher_logits, valid, inputs.temperature)


LOSSES: dict[str, Loss] = {
    "ce": Loss(lambda inputs: cross_entropy(inputs.logits, inputs.truth), needs_teacher=False),
    "dice": Loss(lambda inputs: soft_dice(inputs.logits, inputs.truth), needs_teacher=False),
    "kl": Loss(_pixel_kl_of_inputs, needs_teacher=True),
}

Terms = Mapping[str, float]


def parse_terms(text: str, *, needs_teacher: bool) -> dict[str, float]:
    """Return name → weight for a text such as ``ce:1,dice:0.5``.

    Args:
        text: names and weights.
        needs_teacher: whether these compare with the teacher (``losses``) or the truth (``truth_losses``).

    Raises:
        UsageError: an unknown loss, one of the other kind, one named twice, or a weight that is no
            positive number.
    """
    known = [name for name, loss in LOSSES.items() if loss.needs_teacher is needs_teacher]
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


def compute_losses(terms: Terms, inputs: LossInputs) -> dict[str, Tensor]:
    """Return each term (unweighted) and, under ``total``, their weighted sum, as float32 scalars."""
    with torch.autocast(inputs.logits.device.type, enabled=False):
        values = {name: LOSSES[name].function(inputs) for name in terms}
        total = torch.stack([terms[name] * value for name, value in values.items()]).sum()
    return {**values, "total": total}


def _encode_truth(truth: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the truth one-hot (N, K, h, w) float32, zero where invalid, and the valid pixels (N, h, w)."""
    valid = truth != IGNORE
    # A comparison and not `one_hot`: its scatter has no deterministic form on a GPU.
    classes = torch.arange(num_classes, device=truth.device).view(1, -1, 1, 1)
    return (truth.unsqueeze(1) == classes).float(), valid


def _parse_weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UsageError(
            f"the loss {name!r} has no weight",
            received=repr(text),
            expected="a positive number after a colon",
            action=f"write {name}:1",
        )
    return weight
