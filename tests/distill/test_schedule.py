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
    derive_sample_keys,
    order_epoch,
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


def test_an_epoch_holds_each_sample_once_in_an_order_of_its_own() -> None:
    first, second = order_epoch(20, 1, 0), order_epoch(20, 1, 1)
    assert sorted(first.tolist()) == list(range(20))
    assert not torch.equal(first, second)
    assert torch.equal(first, order_epoch(20, 1, 0))
    assert not torch.equal(first, order_epoch(20, 2, 0))


def test_sample_keys_do_not_depend_on_the_batch() -> None:
    keys = derive_sample_keys(torch.tensor([4, 9, 2]), 1, 5)
    assert derive_sample_keys(torch.tensor([9]), 1, 5) == [keys[1]]
    assert derive_sample_keys(torch.tensor([9]), 1, 6) != [keys[1]]


def test_steps() -> None:
    assert [count_steps(n, 4) for n in (1, 3, 4, 7, 8)] == [1, 1, 1, 1, 2]


def test_an_uneven_share_is_refused() -> None:
    check_shares(100, 8, 4)
    with pytest.raises(UsageError, match="--batch-size 6"):
        check_shares(100, 8, 3)
