"""Losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distill.logit_losses import pixel_kl
from edgekd.distill.losses import IGNORE, cross_entropy, soft_dice
from edgekd.distill.objective import (
    LOSSES,
    Loss,
    LossInputs,
    TeacherAnswer,
    compute_losses,
    parse_terms,
)
from edgekd.distill.teaching import average_logits
from edgekd.errors import UsageError


def as_logits(*probabilities: tuple[float, float]) -> torch.Tensor:
    """Return logits (1, 2, 1, n) whose softmax is the given pairs, one a pixel."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T.reshape(1, 2, 1, -1).float()


def all_valid(pixels: int) -> torch.Tensor:
    return torch.ones(1, 1, pixels)


def test_kl_of_equal_logits_is_zero() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 4, 5)
    assert pixel_kl(logits, logits.clone(), valid, 3.0).item() == pytest.approx(0.0, abs=1e-7)


def test_kl_of_two_pixels_by_hand() -> None:
    student, teacher = as_logits((0.5, 0.5), (0.25, 0.75)), as_logits((0.8, 0.2), (0.25, 0.75))
    by_hand = (0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)) / 2
    assert pixel_kl(student, teacher, all_valid(2), 1.0).item() == pytest.approx(by_hand, rel=1e-6)


def test_kl_is_from_teacher_to_student() -> None:
    one, other = as_logits((0.9, 0.1)), as_logits((0.5, 0.5))
    forward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert pixel_kl(one, other, all_valid(1), 1.0).item() == pytest.approx(forward, rel=1e-6)


def test_kl_at_a_temperature_by_hand() -> None:
    # Logits (2, 0) over T = 2 are (1, 0): the softmax is e / (e + 1).
    student, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    p = math.e / (math.e + 1)
    by_hand = 4 * (p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5))
    assert pixel_kl(student, teacher, all_valid(1), 2.0).item() == pytest.approx(by_hand, rel=1e-6)


def test_kl_gradient_is_nearly_independent_of_temperature() -> None:
    generator = torch.Generator().manual_seed(1)
    student = (0.1 * torch.randn(1, 2, 8, 8, generator=generator)).requires_grad_()
    teacher = 0.1 * torch.randn(1, 2, 8, 8, generator=generator)
    valid = torch.ones(1, 8, 8)
    norms = [
        torch.autograd.grad(pixel_kl(student, teacher, valid, t), student)[0].norm() for t in (1.0, 4.0, 16.0)
    ]
    assert norms[1] / norms[0] == pytest.approx(1.0, abs=0.05)
    assert norms[2] / norms[0] == pytest.approx(1.0, abs=0.05)


def test_cross_entropy_by_hand() -> None:
    logits = as_logits((0.8, 0.2), (0.4, 0.6))
    truth = torch.tensor([[[0, 1]]])
    assert cross_entropy(logits, truth).item() == pytest.approx(
        -(math.log(0.8) + math.log(0.6)) / 2, rel=1e-6
    )


def test_soft_dice_by_hand() -> None:
    logits = as_logits((0.8, 0.2), (0.4, 0.6))
    truth = torch.tensor([[[0, 1]]])
    by_hand = 1 - (2 * 0.6 + 1) / ((0.2 + 0.6) + 1 + 1)
    assert soft_dice(logits, truth).item() == pytest.approx(by_hand, rel=1e-6)


def test_soft_dice_of_an_empty_truth_is_finite_and_falls_with_the_prediction() -> None:
    truth = torch.zeros(1, 1, 2, dtype=torch.int64)
    much, little = as_logits((0.1, 0.9), (0.1, 0.9)), as_logits((0.999, 0.001), (0.999, 0.001))
    assert soft_dice(little, truth) < 0.01 < soft_dice(much, truth) < 1


def build_inputs(logits: torch.Tensor, truth: torch.Tensor, teacher: torch.Tensor) -> LossInputs:
    weight = (truth != IGNORE).float()
    return LossInputs(logits, truth, TeacherAnswer(teacher, {}), weight, temperature=2.0, boundary_weight=1.5)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.kind != "features"])
def test_ignored_pixels_count_nowhere(name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    truth = torch.randint(0, 3, (2, 4, 5), generator=generator)
    truth[:, :, 3:] = IGNORE
    teacher = torch.randn(2, 3, 4, 5, generator=generator)
    # The teacher is as flat where pixels count as beside them, so that no boundary reaches inside.
    teacher[:, 0, :, 2:] += 50
    values = []
    for shift in (0.0, 3.0):
        logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(5))
        logits[..., 3:] *= 1 + shift
        logits.requires_grad_()
        loss = compute_losses({name: 1.0}, build_inputs(logits, truth, teacher))["total"]
        gradient = torch.autograd.grad(loss, logits)[0]
        assert gradient[..., 3:].abs().max() == 0
        assert gradient[..., :3].abs().max() > 0
        values.append(loss.item())
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.kind != "features"])
def test_a_batch_without_valid_pixels_gives_zero_and_no_nan(name: str) -> None:
    truth = torch.full((1, 4, 4), IGNORE)
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    losses = compute_losses({name: 1.0}, build_inputs(logits, truth, logits.flip(1)))
    assert losses["total"].item() == 0


def test_the_total_is_the_weighted_sum() -> None:
    logits, truth = as_logits((0.7, 0.3)), torch.tensor([[[1]]])
    losses = compute_losses({"ce": 2.0, "dice": 0.5}, LossInputs(logits, truth))
    expected = 2 * losses["ce"] + 0.5 * losses["dice"]
    assert losses["total"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_losses_are_float32_inside_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    def multiply(inputs: LossInputs) -> torch.Tensor:
        rows = inputs.logits.flatten(1)
        return (rows @ rows.T).sum()

    monkeypatch.setitem(LOSSES, "product", Loss(multiply, "truth"))
    logits = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    inputs = LossInputs(logits, torch.zeros(2, 4, 4, dtype=torch.int64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert multiply(inputs).dtype == torch.bfloat16
        losses = compute_losses({"product": 1.0, "ce": 1.0}, inputs)
    assert {value.dtype for value in losses.values()} == {torch.float32}


def test_terms_are_parsed() -> None:
    assert parse_terms("ce:1, dice:0.5", needs_teacher=False) == {"ce": 1.0, "dice": 0.5}
    assert parse_terms("kl:2", needs_teacher=True) == {"kl": 2.0}


@pytest.mark.parametrize(
    ("text", "needs_teacher", "message"),
    [
        ("kll:1", True, "did you mean 'kl'"),
        ("kl:1", False, "unknown loss to the truth"),
        ("ce:1", True, "unknown loss to the teacher"),
        ("ce", False, "write ce:1"),
        ("ce:-1", False, "has no weight"),
        ("ce:nan", False, "has no weight"),
        ("ce:1,ce:2", False, "named twice"),
        ("", True, "unknown loss"),
    ],
)
def test_bad_terms_are_refused(text: str, needs_teacher: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_terms(text, needs_teacher=needs_teacher)


def test_cwd_sees_answers_not_the_numbers_behind_them() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    shifted = logits + torch.randn(2, 1, 5, 7, generator=generator)
    truth = torch.zeros(2, 5, 7, dtype=torch.int64)
    # Beside a mirror or a second teacher the logarithm of the mean probability is all that is known.
    for teacher in (logits, shifted, average_logits([logits, shifted])):
        same = LossInputs(logits, truth, TeacherAnswer(teacher, {}))
        assert LOSSES["cwd"].function(same).item() == pytest.approx(0, abs=1e-6)
    other = LossInputs(logits, truth, TeacherAnswer(logits.flip(1), {}))
    assert LOSSES["cwd"].function(other).item() > 0.1
