"""Losses to the teacher's logits against values computed by hand, and their gradients against differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from edgekd.distill.logit_losses import (
    channel_kl,
    find_boundary,
    pixel_kl,
    relation_distance,
    standardised_kl,
    teacher_dice,
)

Compare = Callable[[Tensor, Tensor, Tensor], Tensor]
ALL: dict[str, Compare] = {
    "kl": lambda s, t, w: pixel_kl(s, t, w, 3.0),
    "zkl": lambda s, t, w: standardised_kl(s, t, w, 2.0),
    "cwd": lambda s, t, w: channel_kl(s, t, w, 4.0),
    "tdice": teacher_dice,
    "dist": relation_distance,
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_logits(*probabilities: tuple[float, ...]) -> Tensor:
    """Return logits (1, K, 1, n) whose softmax is the given values, one tuple a pixel."""
    return (
        torch.tensor(probabilities, dtype=torch.float64)
        .log()
        .T.reshape(1, len(probabilities[0]), 1, -1)
        .float()
    )


@pytest.mark.parametrize("name", list(ALL))
def test_equal_logits_give_exactly_zero(name: str) -> None:
    logits = draw(2, 3, 6, 5)
    assert ALL[name](logits, logits.clone(), torch.ones(2, 6, 5)).item() == 0.0


@pytest.mark.parametrize("name", list(ALL))
def test_the_gradient_is_that_of_differences(name: str) -> None:
    student, teacher = draw(2, 3, 3, 4, seed=1), draw(2, 3, 3, 4, seed=2)
    weight = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(3))
    weight[0, 0, 0] = 0
    student.requires_grad_()
    gradient = torch.autograd.grad(ALL[name](student, teacher, weight), student)[0]
    direction = draw(2, 3, 3, 4, seed=4)
    with torch.no_grad():
        step = 1e-2
        ahead, behind = (ALL[name](student + sign * step * direction, teacher, weight) for sign in (1, -1))
    assert ((ahead - behind) / (2 * step)).item() == pytest.approx(
        (gradient * direction).sum().item(), rel=2e-2
    )
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", list(ALL))
def test_a_step_against_the_gradient_brings_the_student_nearer(name: str) -> None:
    student, teacher, weight = draw(1, 3, 8, 8, seed=1), draw(1, 3, 8, 8, seed=2), torch.ones(1, 8, 8)
    student.requires_grad_()
    before = ALL[name](student, teacher, weight)
    gradient = torch.autograd.grad(before, student)[0]
    after = ALL[name](student - 0.1 * gradient / gradient.norm(), teacher, weight)
    assert after < before


def test_kl_weighs_its_pixels() -> None:
    student, teacher = as_logits((0.5, 0.5), (0.5, 0.5)), as_logits((0.8, 0.2), (0.6, 0.4))
    one = [
        0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5),
        0.6 * math.log(0.6 / 0.5) + 0.4 * math.log(0.8),
    ]
    found = pixel_kl(student, teacher, torch.tensor([[[3.0, 1.0]]]), 1.0)
    assert found.item() == pytest.approx((3 * one[0] + one[1]) / 4, rel=1e-5)


def test_cwd_of_two_pixels_by_hand() -> None:
    # Channel 0 of the student is flat, of the teacher (4, 0) at T = 4, that is (1, 0); channel 1 is equal.
    student, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[[[4.0, 0.0]], [[0.0, 0.0]]]])
    p = math.e / (math.e + 1)
    by_hand = 16 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))) / 2
    assert channel_kl(student, teacher, torch.ones(1, 1, 2), 4.0).item() == pytest.approx(by_hand, rel=1e-5)


def test_cwd_does_not_see_a_shift_of_a_channel() -> None:
    student, teacher, weight = draw(2, 3, 4, 4, seed=1), draw(2, 3, 4, 4, seed=2), torch.ones(2, 4, 4)
    shifted = student + torch.tensor([5.0, -3.0, 0.5]).view(1, 3, 1, 1)
    expected = channel_kl(student, teacher, weight, 4.0).item()
    assert channel_kl(shifted, teacher, weight, 4.0).item() == pytest.approx(expected, rel=1e-4)


def test_teacher_dice_by_hand() -> None:
    student, teacher = as_logits((0.8, 0.2), (0.4, 0.6)), as_logits((0.9, 0.1), (0.3, 0.7))
    overlap, total = 0.2 * 0.1 + 0.6 * 0.7, 0.2**2 + 0.6**2 + 0.1**2 + 0.7**2
    found = teacher_dice(student, teacher, torch.ones(1, 1, 2))
    assert found.item() == pytest.approx(1 - (2 * overlap + 1) / (total + 1), rel=1e-5)


def test_dist_of_opposed_classes_by_hand() -> None:
    # One pixel: the class probabilities are mirrored around the middle class, so their correlation is -1.
    student, teacher = (
        as_logits((0.6, 0.3, 0.1), (0.2, 0.3, 0.5)),
        as_logits((0.1, 0.3, 0.6), (0.5, 0.3, 0.2)),
    )
    found = relation_distance(student, teacher, torch.ones(1, 1, 2)).item()
    pixel = _correlate((0.6, 0.3, 0.1), (0.1, 0.3, 0.6)), _correlate((0.2, 0.3, 0.5), (0.5, 0.3, 0.2))
    # Within classes the two pixels are opposed in the first and the last, and constant in the middle one.
    by_hand = 1 - sum(pixel) / 2 + (2 + 0 + 2) / 3
    assert found == pytest.approx(by_hand, abs=1e-4)


def _correlate(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    stacked = torch.tensor([one, other], dtype=torch.float64)
    return torch.corrcoef(stacked)[0, 1].item()


def test_standardised_kl_does_not_see_the_size_of_logits() -> None:
    student, teacher, weight = draw(1, 3, 4, 4, seed=1), draw(1, 3, 4, 4, seed=2), torch.ones(1, 4, 4)
    expected = standardised_kl(student, teacher, weight, 2.0).item()
    assert standardised_kl(3 * student + 1, teacher, weight, 2.0).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", list(ALL))
def test_pixels_of_equal_logits_have_a_finite_gradient(name: str) -> None:
    student, teacher = draw(1, 3, 4, 4, seed=1), draw(1, 3, 4, 4, seed=2)
    student[..., :2], teacher[..., 1:3] = 0.7, 0.3  # in the student, in both, in the teacher
    student.requires_grad_()
    loss = ALL[name](student, teacher, torch.ones(1, 4, 4))
    assert loss.isfinite()
    assert torch.autograd.grad(loss, student)[0].isfinite().all()


@pytest.mark.parametrize("name", ["zkl", "dist"])
def test_two_classes_leave_no_gradient_where_they_are_refused(name: str) -> None:
    student, teacher = draw(1, 2, 6, 6, seed=1).requires_grad_(), draw(1, 2, 6, 6, seed=2)
    loss = ALL[name](student, teacher, torch.ones(1, 6, 6))
    if name == "dist":  # without its term within classes, which two classes do not hinder
        inside = [x.softmax(1)[0, 1].flatten() for x in (student, teacher)]
        loss = loss - (1 - torch.corrcoef(torch.stack(inside))[0, 1])
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-5


def test_the_boundary_is_both_sides_of_every_change() -> None:
    logits = torch.zeros(1, 2, 5, 6)
    logits[0, 1, :, 3:] = 1
    expected = torch.zeros(1, 5, 6, dtype=torch.bool)
    expected[:, :, 2:4] = True
    assert torch.equal(find_boundary(logits), expected)
    assert not find_boundary(torch.zeros(1, 2, 5, 6)).any()
