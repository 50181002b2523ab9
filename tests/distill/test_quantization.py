"""Fake quantisation rounds as an int8 device does, in training alone, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch trains the student")

import torch
from disc_runs import build_distill_config
from torch import nn

from edgekd.distill import distill
from edgekd.distill.quantization import round_activations, round_weights, simulate_int8
from edgekd.errors import UsageError


def test_activations_have_127_steps_and_let_the_gradient_pass() -> None:
    values = torch.linspace(0, 2, 1001, requires_grad=True)
    rounded = round_activations(values)
    steps = rounded * 127 / 2
    torch.testing.assert_close(steps, steps.round())
    assert len(rounded.detach().unique()) == 128
    rounded.sum().backward()
    assert values.grad is not None
    assert (values.grad == 1).all()


def test_each_output_channel_of_weights_has_a_scale_of_its_own() -> None:
    weights = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    weights[1] *= 1000
    rounded = round_weights(weights)
    largest = weights.abs().amax(dim=(1, 2, 3))
    steps = rounded * 63 / largest[:, None, None, None]
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert ((rounded - weights).abs().amax(dim=(1, 2, 3)) <= largest / 63 / 2 * 1.001).all()


def test_rounding_commutes_with_folding_a_norm() -> None:
    weights = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    factor = torch.tensor([0.1, -3.0, 1.0, 20.0])[:, None, None, None]
    torch.testing.assert_close(round_weights(weights) * factor, round_weights(weights * factor))


def test_zeros_stay_zeros() -> None:
    assert (round_activations(torch.zeros(4)) == 0).all()
    assert (round_weights(torch.zeros(2, 1, 3, 3)) == 0).all()


def test_only_training_rounds_and_the_network_is_as_before() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    images = torch.randn(2, 1, 8, 8)
    exact, names = network(images), list(network.state_dict())
    with simulate_int8([network]):
        assert not torch.equal(network(images), exact)
        torch.testing.assert_close(network(images), exact, atol=0.2, rtol=0)
        assert torch.equal(network.eval()(images), exact)
        assert list(network.state_dict()) == names
    assert torch.equal(network.train()(images), exact)


def test_a_run_rounds_in_its_last_epochs_alone(discs: Path, tmp_path: Path) -> None:
    plain = distill(build_distill_config(), discs, tmp_path / "plain", control=True, quiet=True)
    rounded = distill(
        # Half of phase 2, one epoch of two.
        build_distill_config(quantize="int8"),
        discs,
        tmp_path / "rounded",
        control=True,
        quiet=True,
    )
    assert rounded.record.networks["teacher"].sha256 == plain.record.networks["teacher"].sha256
    for name in ("student", "control"):
        assert rounded.record.networks[name].sha256 != plain.record.networks[name].sha256
    lines = [(out.out / "curves.jsonl").read_text().splitlines() for out in (plain, rounded)]
    same = [one == other for one, other in zip(*lines, strict=True)]
    assert same == [True] * (len(same) - 1) + [False]


def test_the_best_epoch_is_one_that_rounded(discs: Path, tmp_path: Path) -> None:
    choices = {"quantize": "int8", "quantize_epochs": 1, "select": "best", "distill_epochs": 3, "lr": 1e-4}
    for seed in range(3):
        result = distill(
            build_distill_config(**choices, seed=seed), discs, tmp_path / str(seed), control=True, quiet=True
        )
        assert {result.record.networks[name].epoch for name in ("student", "control")} == {5}


def test_more_epochs_than_phase_2_has_are_refused(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="quantize_epochs 3 of 2"):
        distill(build_distill_config(quantize="int8", quantize_epochs=3), discs, tmp_path / "out", quiet=True)
