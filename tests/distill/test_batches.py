"""What a step learns from: mixtures of two frames, and how many frames of each kind."""

from __future__ import annotations

from pathlib import Path

import torch
from disc_runs import build_distill_config
from lightning_fabric import Fabric

from edgekd.distill.answers import AnswerStore
from edgekd.distill.batches import SMALLEST_PART, BatchBuilder, MixedPool, Pool
from edgekd.distill.losses import IGNORE

COUNT = 6
KEYS = range(100)


def build_pool(count: int = COUNT) -> Pool:
    """Frames with their own number, from 1 on, in the left half and 0 in the right."""
    images = torch.zeros(count, 1, 32, 32)
    images[..., :16] = torch.arange(1.0, count + 1).view(-1, 1, 1, 1)
    return Pool(images, torch.zeros(count, 32, 32, dtype=torch.uint8), [str(index) for index in range(count)])


def test_a_key_decides_a_mixture() -> None:
    mixed = MixedPool(build_pool(), mirror=True)
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


def test_no_frame_is_mirrored_where_that_is_off() -> None:
    images, _ = MixedPool(build_pool(), mirror=False).take([2] * len(KEYS), KEYS)
    assert not bool(images[..., 16:].any())


def test_a_stored_answer_is_found_for_the_same_mixture_alone(tmp_path: Path) -> None:
    pool, store = build_pool(), AnswerStore(tmp_path, {})
    mixed = MixedPool(pool, mirror=True)
    for key in KEYS:
        store.write((mixed.name(2, key), key), {"logits": torch.zeros(2, 2, 2)})
    assert all(store.read((mixed.name(2, key), key)) for key in KEYS)
    # One frame more, and other frames beside the first one of the mixture.
    replaced = Pool(
        pool.images + 10, pool.truths, ["2" if name == "2" else f"new {name}" for name in pool.hashes]
    )
    replaced.images[2] = pool.images[2]
    for changed in (build_pool(COUNT + 1), replaced):
        others = MixedPool(changed, mirror=True)
        same = [torch.equal(others.take([2], [key])[0], mixed.take([2], [key])[0]) for key in KEYS]
        found = [store.read((others.name(2, key), key)) is not None for key in KEYS]
        assert found == same
        assert 0 < sum(same) < len(KEYS)


def test_a_step_takes_as_many_frames_from_every_source() -> None:
    pool = build_pool()
    unlabelled = Pool(pool.images, torch.full_like(pool.truths, IGNORE), pool.hashes, offset=2**32)
    config, fabric = build_distill_config(batch_size=4, views=2), Fabric(accelerator="cpu", devices=1)
    builder = BatchBuilder(fabric, config, pool, [unlabelled, MixedPool(pool, mirror=True)])
    whole, labelled = (builder.build(3, with_free=flag) for flag in (True, False))
    assert (len(whole.names), whole.num_labelled) == (12, 4)
    assert (len(labelled.names), labelled.num_labelled) == (4, 4)
    assert whole.take_labelled().names == labelled.names
    assert torch.equal(whole.take_labelled().views.images, labelled.views.images)
    assert bool((whole.views.truths[4:] == IGNORE).all())
    assert not bool((labelled.views.truths == IGNORE).all())
    assert len({key for _, key in whole.names}) == 12
