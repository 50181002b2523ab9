"""Augmentation: what it may change, what it may not, and that nothing but the keys decides."""

from __future__ import annotations

import pytest
import torch

from edgekd.config import AugmentConfig
from edgekd.distill.augment import _build_grid, augment_batch, derive_seed
from edgekd.distill.losses import IGNORE
from edgekd.specs import PreprocessSpec

SPEC = PreprocessSpec(height=24, width=32)
NONE = {"flip": False, "rotation_deg": 0, "scale": 0, "translation": 0, "gain": 0, "gamma": 1, "noise": 0}
BLACK = -0.5 / 0.25


def build_batch(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images between black and white, smooth, and truths: a box where the image is bright."""
    truths = torch.zeros(count, 24, 32, dtype=torch.int64)
    truths[:, 6:14, 4:12] = 1
    pixels = 0.2 + 0.6 * truths.unsqueeze(1).float()
    return (pixels - 0.5) / 0.25, truths


def augment(config: AugmentConfig, keys: list[int], count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    images, truths = build_batch(count)
    return augment_batch(images, truths, keys, config, SPEC)[:2]


def test_all_switched_off_changes_nothing() -> None:
    images, truths = build_batch()
    found_images, found_truths = augment(AugmentConfig.model_validate(NONE), [1, 2, 3])
    torch.testing.assert_close(found_images, images, atol=1e-5, rtol=0)
    assert torch.equal(found_truths, truths)


def test_the_key_alone_decides() -> None:
    together = augment(AugmentConfig(), [5, 6, 7])
    alone = augment(AugmentConfig(), [6], count=1)
    assert torch.equal(together[0][1:2], alone[0])
    assert torch.equal(together[1][1:2], alone[1])
    assert not torch.equal(together[0][0], together[0][1])


def test_torchs_own_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    augment(AugmentConfig(), [5, 6, 7])
    assert torch.equal(before, torch.get_rng_state())


def test_flips_are_exact_and_half_of_all() -> None:
    config = AugmentConfig.model_validate({**NONE, "flip": True})
    images, truths = build_batch(64)
    found, labels, _, _ = augment_batch(images, truths, list(range(64)), config, SPEC)
    flipped = [torch.equal(label, truth.flip(-1)) for label, truth in zip(labels, truths, strict=True)]
    for index, is_flipped in enumerate(flipped):
        expected = images[index].flip(-1) if is_flipped else images[index]
        torch.testing.assert_close(found[index], expected, atol=1e-4, rtol=0)
    assert 20 < sum(flipped) < 44


def test_image_and_truth_move_together_and_outside_is_black_and_ignored() -> None:
    config = AugmentConfig.model_validate({**NONE, "rotation_deg": 30, "scale": 0.2, "translation": 0.2})
    images, truths = build_batch(16)
    found, labels, _, _ = augment_batch(images, truths, list(range(16)), config, SPEC)
    outside = (labels == IGNORE).unsqueeze(1)
    assert 0 < outside.float().mean() < 0.6
    # A pixel whose nearest sample is outside holds less than half of the darkest value inside.
    assert found[outside].max() < BLACK + 0.5 * 0.2 / 0.25 + 1e-4
    bright = found > 0
    agreement = (bright.squeeze(1) == (labels == 1))[labels != IGNORE].float().mean()
    assert agreement > 0.985
    assert not torch.equal(labels, truths)


def test_a_turn_keeps_area_also_where_the_image_is_not_square() -> None:
    config = AugmentConfig.model_validate({**NONE, "rotation_deg": 90})
    truths = torch.zeros(8, 24, 32, dtype=torch.int64)
    truths[:, 8:16, 12:20] = 1
    images = truths.unsqueeze(1).float()
    _, labels, _, _ = augment_batch(images, truths, list(range(8)), config, SPEC)
    assert all(abs(int((label == 1).sum()) - 64) <= 8 for label in labels)


def test_intensities_stay_in_the_range_of_the_frame() -> None:
    config = AugmentConfig.model_validate({**NONE, "gain": 0.9, "gamma": 4, "noise": 0.5})
    found, labels = augment(config, [1, 2, 3])
    assert found.min() >= BLACK - 1e-6
    assert found.max() <= -BLACK + 1e-6
    assert torch.equal(labels, build_batch()[1])


@pytest.mark.parametrize("change", [{"gain": 0.2}, {"gamma": 1.5}, {"noise": 0.05}])
def test_each_photometric_change_changes_the_image(change: dict[str, float]) -> None:
    images, _ = build_batch()
    found, _ = augment(AugmentConfig.model_validate({**NONE, **change}), [1, 2, 3])
    assert 0.005 < (found - images).abs().mean() < 1.0


def test_seeds_depend_on_every_key_and_their_order() -> None:
    seeds = {
        derive_seed(1, 2, 3),
        derive_seed(1, 3, 2),
        derive_seed(2, 2, 3),
        derive_seed(1, 2),
        derive_seed(1, 2, 4),
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("size", [(5, 7), (24, 32)])
def test_the_grid_is_that_of_affine_grid(size: tuple[int, int]) -> None:
    affine = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.affine_grid(affine, [3, 1, *size], align_corners=False)
    torch.testing.assert_close(_build_grid(affine, *size), expected, atol=1e-6, rtol=0)
