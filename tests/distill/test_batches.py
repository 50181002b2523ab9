"""What a step learns from: mixtures of two frames, and how many frames of each kind."""

from __future__ import annotations

import torch
from disc_runs import build_distill_config
from lightning_fabric import Fabric

from edgekd.distill.batches import SMALLEST_PART, BatchBuilder, MixedPool, Pool
from edgekd.distill.losses import IGNORE

COUNT = 6


def build_pool() -> Pool:
    """Six frames, each with its own number in the left half and 0 in the right."""
    images = torch.zeros(COUNT, 1, 32, 32)
    images[..., :16] = torch.arange(1.0, COUNT + 1).view(-1, 1, 1, 1)
    return Pool(images, torch.zeros(COUNT, 32, 32, dtype=torch.uint8), [str(index) for index in range(COUNT)])


def test_a_key_decides_a_mixture() -> None:
    mixed = MixedPool(build_pool())
    keys = list(range(400))
    images, truths = mixed.take([2] * 400, keys)
    assert torch.equal(images, mixed.take([2] * 400, keys)[0])
    assert truths.dtype == torch.uint8 and bool((truths == IGNORE).all())
    left, right = images[:, 0, 0, 0], images[:, 0, 0, -1]
    # Where a partner is mirrored its number stands on the right, where the first frame has 0.
    mirrored = right > 0
    assert 100 < int(mirrored.sum()) < 300
    part = torch.where(mirrored, 1 - left / 3, torch.nan)
    partner = (right / part)[mirrored]
    torch.testing.assert_close(partner, partner.round(), atol=1e-4, rtol=0)
    assert set(partner.round().int().tolist()) == set(range(1, COUNT + 1))
    part = part[mirrored]
    assert SMALLEST_PART <= float(part.min()) < 0.32 and 0.68 < float(part.max()) <= 1 - SMALLEST_PART


def test_a_mixtures_name_tells_all_it_is_made_of() -> None:
    pool = build_pool()
    mixed = MixedPool(pool)
    names = {mixed.name(2, key) for key in range(50)}
    assert len(names) == 50
    assert names == {mixed.name(2, key) for key in range(50)}
    other = MixedPool(Pool(pool.images, pool.truths, [f"new {name}" for name in pool.hashes]))
    assert not names & {other.name(2, key) for key in range(50)}


def test_a_step_takes_as_many_frames_from_every_source() -> None:
    pool = build_pool()
    free = [
        Pool(pool.images, torch.full_like(pool.truths, IGNORE), pool.hashes, offset=2**32),
        MixedPool(pool),
    ]
    config = build_distill_config(batch_size=4, views=2)
    builder = BatchBuilder(Fabric(accelerator="cpu", devices=1), config, pool, free)
    whole, labelled = (builder.build(3, with_unlabelled=flag) for flag in (True, False))
    assert (len(whole.names), whole.num_labelled) == (12, 4)
    assert (len(labelled.names), labelled.num_labelled) == (4, 4)
    assert whole.take_labelled().names == labelled.names
    assert torch.equal(whole.take_labelled().views.images, labelled.views.images)
    assert bool((whole.views.truths[4:] == IGNORE).all()) and not bool(
        (labelled.views.truths == IGNORE).all()
    )
    assert len({key for _, key in whole.names}) == 12
