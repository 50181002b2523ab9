"""Losses to the teacher's features against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from edgekd.distill.feature_losses import (
    Projectors,
    attention_transfer,
    feature_channel_kl,
    hint_distance,
    match_size,
)
from edgekd.distill.objective import LossInputs, TeacherAnswer, compute_losses


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_by_hand() -> None:
    # Squared sums over channels: (25, 0) and (0, 4); their unit vectors are at right angles.
    student = torch.tensor([3.0, 0.0, 4.0, 0.0]).view(1, 2, 1, 2)
    teacher = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2)
    assert attention_transfer(student, teacher).item() == pytest.approx(1.0)


def test_attention_squares_its_features() -> None:
    # Maps (1, 4) and (1, 1): the cosine of their unit vectors is 5 / sqrt(34).
    student = torch.tensor([1.0, -2.0]).view(1, 1, 1, 2)
    found = attention_transfer(student, torch.ones(1, 1, 1, 2)).item()
    assert found == pytest.approx(1 - 5 / 34**0.5, rel=1e-5)


def test_attention_does_not_see_size_or_number_of_channels() -> None:
    teacher = draw(2, 4, 5, 5)
    assert attention_transfer(7 * teacher.repeat(1, 3, 1, 1), teacher).item() == pytest.approx(0, abs=1e-6)


def test_hints_by_hand() -> None:
    student, teacher = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), torch.tensor([0.0, 4.0]).view(1, 2, 1, 1)
    assert hint_distance(student, teacher).item() == pytest.approx(0.5 * (1 + 4) / 2)


@pytest.mark.parametrize("name", ["at", "fitnet", "fcwd"])
def test_equal_features_give_exactly_zero_and_others_a_gradient(name: str) -> None:
    compare = {
        "at": attention_transfer,
        "fitnet": hint_distance,
        "fcwd": lambda one, other: feature_channel_kl(one, other, 4.0),
    }[name]
    teacher = draw(2, 4, 5, 6)
    assert compare(teacher.clone(), teacher).item() == 0.0
    student = draw(2, 4, 5, 6, seed=1).requires_grad_()
    loss = compare(student, teacher)
    gradient = torch.autograd.grad(loss, student)[0]
    assert compare(student - 0.1 * gradient / gradient.norm(), teacher) < loss


def test_sizes_meet_at_the_smaller_by_averaging() -> None:
    large = torch.arange(16.0).view(1, 1, 4, 4)
    ours, theirs = match_size(large, torch.zeros(1, 1, 2, 2))
    assert ours.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert theirs.shape == (1, 1, 2, 2)
    ours, theirs = match_size(torch.zeros(1, 3, 2, 4), large)
    assert ours.shape[-2:] == theirs.shape[-2:] == (2, 4)


def test_projectors_give_the_teachers_channels_for_paths_with_dots_too() -> None:
    projectors = Projectors({"enc8": (3, 5), "layers.2=enc4": (2, 7)})
    found = projectors({"enc8": draw(1, 3, 4, 4), "layers.2=enc4": draw(1, 2, 8, 8)})
    assert {tap: tuple(value.shape) for tap, value in found.items()} == {
        "enc8": (1, 5, 4, 4),
        "layers.2=enc4": (1, 7, 8, 8),
    }


def test_layers_behind_the_taps_get_a_gradient_of_zero_and_not_none() -> None:
    features, head = draw(2, 3, 4, 4).requires_grad_(), draw(2, 2, 4, 4, seed=1).requires_grad_()
    answer = TeacherAnswer(draw(2, 2, 4, 4), {"enc4": draw(2, 3, 4, 4, seed=2)})
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    losses = compute_losses({"at": 2.0}, LossInputs(head, truth, answer, features={"enc4": features}))
    assert losses["total"].item() == 2 * losses["at"].item()
    losses["total"].backward()
    assert head.grad is not None
    assert torch.equal(head.grad, torch.zeros_like(head))
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
