"""What one step learns from: frames with a mask, frames without, and the views of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekd.config import FitConfig
from edgekd.data import LoadedCases, LoadedFrames
from edgekd.distill.augment import Views, augment_batch
from edgekd.distill.losses import IGNORE
from edgekd.distill.schedule import count_steps, derive_sample_key, draw_endlessly


@dataclass(frozen=True)
class Pool:
    """Frames that batches are drawn from.

    Attributes:
        images: (N, C, h, w) float32.
        truths: (N, h, w) uint8 class ids, or IGNORE.
        hashes: what names each frame, for answers that are kept; with its mask, where it has one.
        offset: added to the run's seed for order and augmentation, so that two pools draw differently.
    """

    images: Tensor
    truths: Tensor
    hashes: Sequence[str]
    offset: int = 0

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Batch:
    """One process's share of a step.

    Attributes:
        views: the frames as they are learned from; those with a mask come first.
        num_labelled: how many have a mask.
        names: (frame's hash, key of its view) a frame.
    """

    views: Views
    num_labelled: int
    names: tuple[tuple[str, int], ...]

    def take_labelled(self) -> Batch:
        """Return the frames with a mask alone."""
        if self.num_labelled == len(self.names):
            return self
        count = self.num_labelled
        views = Views(*(view[:count] for view in self.views))
        return Batch(views, count, self.names[:count])


def build_labelled_pool(cases: LoadedCases, hashes: Sequence[str]) -> Pool:
    """Return the pool of cases with masks."""
    return Pool(torch.from_numpy(cases.images), torch.from_numpy(cases.truths), hashes)


def build_unlabelled_pool(frames: LoadedFrames) -> Pool:
    """Return the pool of frames without masks: every truth is IGNORE."""
    images = torch.from_numpy(frames.images)
    truths = torch.full((len(images), *images.shape[2:]), IGNORE, dtype=torch.uint8)
    return Pool(images, truths, frames.sha256, offset=2**32)


class BatchBuilder:
    """Builds this process's share of any step of a run, from the step's number alone.

    Args:
        fabric: device and processes.
        config: batch size, seed, augmentation, views.
        labelled: frames with masks.
        unlabelled: frames without; None where there are none.
    """

    def __init__(self, fabric: Fabric, config: FitConfig, labelled: Pool, unlabelled: Pool | None) -> None:
        self._fabric, self._config = fabric, config
        self._labelled, self._unlabelled = labelled, unlabelled
        self._spec = config.build_preprocess()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return count_steps(len(self._labelled), self._config.batch_size, self._config.min_epoch_steps)

    def build(self, run_step: int, *, with_unlabelled: bool) -> Batch:
        """Return the batch of a step.

        Args:
            run_step: counted from 0 through the whole run.
            with_unlabelled: add as many frames without masks, where there are any.
        """
        pools = [self._labelled]
        if with_unlabelled and self._unlabelled is not None:
            pools.append(self._unlabelled)
        shares = [self._draw(pool, run_step) for pool in pools]
        names = [name for pool, share in zip(pools, shares, strict=True) for name in self._name(pool, share)]
        images, truths = (
            torch.cat(
                [
                    tensors[[index for index, _ in share]]
                    for tensors, share in zip(columns, shares, strict=True)
                ]
            )
            for columns in ([pool.images for pool in pools], [pool.truths for pool in pools])
        )
        device = self._fabric.device
        views = augment_batch(
            images.to(device),
            truths.to(device),
            [key for _, key in names],
            self._config.augment,
            self._spec,
        )
        return Batch(Views(*map(_lay_out, views)), len(shares[0]), tuple(names))

    def _draw(self, pool: Pool, run_step: int) -> list[tuple[int, int]]:
        size = min(self._config.batch_size, len(self._labelled))
        draws = draw_endlessly(len(pool), self._config.seed + pool.offset, run_step * size, size)
        return draws[self._fabric.global_rank :: self._fabric.world_size]

    def _name(self, pool: Pool, share: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
        views, seed = self._config.views, self._config.seed + pool.offset
        return [
            (pool.hashes[index], derive_sample_key(seed, index, number % views if views else number))
            for index, number in share
        ]


def _lay_out(view: Tensor) -> Tensor:
    return view.contiguous(memory_format=torch.channels_last) if view.ndim == 4 else view
