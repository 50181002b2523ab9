"""From images to logits, masks and scores."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.data import LoadedCases
from edgekd.distill import pick_masks, predict_logits, predict_masks, score_network

NUM_CLASSES = 20


@pytest.fixture
def network() -> nn.Module:
    """Logits of many classes, by a network whose mode matters."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, NUM_CLASSES, 3, padding=1), nn.Dropout(0.5)).train()


def draw_images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 1, side, side), dtype=np.float32)


def measure_peak(call: Callable[[], object]) -> int:
    """Return the most bytes that NumPy and Python held at a time during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_masks_are_those_of_the_logits_and_modes_are_put_back(network: nn.Module) -> None:
    images = draw_images(19, 12)
    masks = predict_masks(network, images)
    assert masks.shape == (19, 12, 12) and masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, pick_masks(predict_logits(network, images)))
    assert all(module.training for module in network.modules())
    assert not torch.is_inference_mode_enabled()


def test_modes_are_put_back_after_a_failure(network: nn.Module) -> None:
    with pytest.raises(RuntimeError):
        predict_masks(network, np.zeros((1, 2, 8, 8), np.float32))
    assert all(module.training for module in network.modules())


def test_scoring_never_holds_the_logits_of_a_split(network: nn.Module) -> None:
    images = draw_images(48, 64)
    names = tuple(str(index) for index in range(len(images)))
    cases = LoadedCases(images, np.zeros((48, 64, 64), np.uint8), names, names, ((64, 64),) * 48, names)
    logits_bytes = images.nbytes * NUM_CLASSES
    assert measure_peak(lambda: predict_logits(network, images)) > logits_bytes
    assert measure_peak(lambda: score_network(network, cases, NUM_CLASSES)) < logits_bytes / 4


def test_the_lower_class_wins_where_logits_are_equal() -> None:
    logits = np.array([[0.0, 1.0, 1.0, -1.0], [0.0, 1.0, 2.0, -1.0], [0.0, 0.0, 2.0, -1.0]], np.float32)
    masks = pick_masks(logits.reshape(1, 3, 2, 2))
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, [[[0, 0], [1, 0]]])
