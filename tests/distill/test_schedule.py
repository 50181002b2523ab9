"""The learning-rate curve, the optimiser's groups, batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.distill.schedule import (
    build_optimizer,
    check_shares,
    compute_lr,
    count_steps,
    derive_sample_key,
    draw_endlessly,
    order_pass,
)
from edgekd.errors import UsageError


def test_the_rate_rises_then_falls_as_a_cosine() -> None:
    curve = [compute_lr(step, 100, 2.0, 0.1) for step in range(100)]
    assert curve[:10] == pytest.approx([2 * (step + 1) / 11 for step in range(10)])
    assert curve[10] == 2.0
    assert curve[55] == pytest.approx(1.0)
    assert curve[32] == pytest.approx(2 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * 22 / 90)).item()))
    assert curve[10:] == sorted(curve[10:], reverse=True)
    assert 0 < curve[-1] < 0.001


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert compute_lr(0, 10, 0.5, 0.0) == 0.5


def test_norms_and_biases_do_not_decay_and_each_parameter_is_there_once() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    optimizer = build_optimizer(network, 0.3)
    groups = {group["weight_decay"]: [p.ndim for p in group["params"]] for group in optimizer.param_groups}
    assert groups == {0.3: [4, 4], 0.0: [1, 1, 1, 1]}


def test_frozen_parameters_are_not_optimised() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    assert sum(len(group["params"]) for group in build_optimizer(network, 0.1).param_groups) == 1


def test_a_pass_holds_each_sample_once_in_an_order_of_its_own() -> None:
    first, second = order_pass(20, 1, 0), order_pass(20, 1, 1)
    assert sorted(first.tolist()) == list(range(20))
    assert not torch.equal(first, second)
    assert torch.equal(first, order_pass(20, 1, 0))
    assert not torch.equal(first, order_pass(20, 2, 0))


@pytest.mark.parametrize("size", [1, 3, 7, 8, 20])
def test_draws_go_on_pass_after_pass_and_a_step_depends_on_its_number_alone(size: int) -> None:
    steps = [draw_endlessly(7, 1, step * size, size) for step in range(7)]
    drawn = [draw for step in steps for draw in step]
    for number in range(size):
        of_pass = [index for index, found in drawn if found == number]
        assert of_pass == order_pass(7, 1, number).tolist()
    assert draw_endlessly(7, 1, 3 * size, size) == steps[3]


def test_a_key_depends_on_seed_sample_and_view() -> None:
    keys = {derive_sample_key(*parts) for parts in ((1, 4, 5), (1, 5, 4), (2, 4, 5), (1, 4, 6))}
    assert len(keys) == 4


def test_steps() -> None:
    assert [count_steps(n, 4, 0) for n in (1, 3, 4, 7, 8)] == [1, 1, 1, 1, 2]
    assert [count_steps(n, 4, 2) for n in (1, 8, 12)] == [2, 2, 3]


def test_an_uneven_share_is_refused() -> None:
    check_shares(100, 8, 4)
    with pytest.raises(UsageError, match="--batch-size 6"):
        check_shares(100, 8, 3)
    with pytest.raises(UsageError, match="--batch-size 4"):
        check_shares(5, 8, 4)
    with pytest.raises(UsageError, match="at most 3 processes"):
        check_shares(3, 8, 4)
    with pytest.raises(UsageError, match="--batch-size 4"):
        check_shares(100, 2, 4)
