"""What one step learns from: frames with a mask, frames without, mixtures of frames, and the views of all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekd.config import FitConfig
from edgekd.data import LoadedCases, LoadedFrames
from edgekd.distill.augment import Views, augment_batch, derive_seed
from edgekd.distill.losses import IGNORE
from edgekd.distill.schedule import MIX_KEY, count_steps, derive_sample_key, draw_endlessly

# Each of two frames is at least this part of a mixture: below it the mixture is one frame with a shadow.
SMALLEST_PART = 0.3


class Source(Protocol):
    """What batches are drawn from: ``len`` frames, before augmentation.

    Attributes:
        offset: added to the run's seed for order and augmentation, so that two sources draw differently.
    """

    @property
    def offset(self) -> int:
        """See the class."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int], keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return (n, C, h, w) float32 images and (n, h, w) uint8 truths of frames; a key for each view."""
        ...

    def name(self, index: int, key: int) -> str:
        """Return what names a frame, for answers that are kept."""
        ...


@dataclass(frozen=True)
class Pool:
    """Frames as they are.

    Attributes:
        images: (N, C, h, w) float32.
        truths: (N, h, w) uint8 class ids, or IGNORE.
        hashes: what names each frame; with its mask, where it has one.
        offset: see `Source`.
    """

    images: Tensor
    truths: Tensor
    hashes: Sequence[str]
    offset: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int], keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See `Source`."""
        return self.images[list(indices)], self.truths[list(indices)]

    def name(self, index: int, key: int) -> str:
        """See `Source`."""
        return self.hashes[index]


@dataclass(frozen=True)
class MixedPool:
    """Mixtures of two frames each, without a truth: the teacher alone says what they show.

    They teach what the teacher computes beyond the few frames there are (Beyer et al., CVPR 2022; mixtures as
    in Zhang et al., ICLR 2018). A view's key decides the second frame, whether it is mirrored, and its part.

    Attributes:
        pool: the frames that are mixed; now and then one with itself.
        mirror: whether the second frame may be mirrored.
        offset: see `Source`.
    """

    pool: Pool
    mirror: bool
    offset: int = 2**33

    def __len__(self) -> int:
        return len(self.pool)

    def take(self, indices: Sequence[int], keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See `Source`; every truth is IGNORE."""
        images = self.pool.images
        mixed: list[Tensor] = []
        for index, key in zip(indices, keys, strict=True):
            partner, mirrored, part = self._draw(key)
            other = images[partner].flip(-1) if mirrored else images[partner]
            mixed.append(torch.lerp(images[index], other, part))
        truths = torch.full((len(indices), *images.shape[2:]), IGNORE, dtype=torch.uint8)
        return torch.stack(mixed), truths

    def name(self, index: int, key: int) -> str:
        """See `Source`."""
        partner, mirrored, part = self._draw(key)
        whole = f"{self.pool.hashes[index]} {self.pool.hashes[partner]} {mirrored} {part}"
        return hashlib.sha256(whole.encode()).hexdigest()

    def _draw(self, key: int) -> tuple[int, bool, float]:
        """Return the second frame, whether it is mirrored, and its part in the mixture."""
        generator = torch.Generator().manual_seed(derive_seed(key, MIX_KEY))
        partner = int(torch.randint(len(self.pool), (), generator=generator))
        mirrored, part = torch.rand(2, generator=generator).tolist()
        return partner, self.mirror and mirrored < 0.5, SMALLEST_PART + part * (1 - 2 * SMALLEST_PART)


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
        free: sources of frames without; phase 2 takes as many from each of them.
    """

    def __init__(
        self, fabric: Fabric, config: FitConfig, labelled: Source, free: Sequence[Source] = ()
    ) -> None:
        self._fabric, self._config = fabric, config
        self._labelled, self._free = labelled, tuple(free)
        self._spec = config.build_preprocess()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return count_steps(len(self._labelled), self._config.batch_size, self._config.min_epoch_steps)

    def build(self, run_step: int, *, with_free: bool) -> Batch:
        """Return the batch of a step.

        Args:
            run_step: counted from 0 through the whole run.
            with_free: add as many frames without masks from each source of such.
        """
        shares = [
            self._take(source, run_step) for source in (self._labelled, *(self._free if with_free else ()))
        ]
        device = self._fabric.device
        views = augment_batch(
            torch.cat([share.images for share in shares]).to(device),
            torch.cat([share.truths for share in shares]).to(device),
            [key for share in shares for _, key in share.names],
            self._config.augment,
            self._spec,
        )
        names = tuple(name for share in shares for name in share.names)
        return Batch(Views(*map(_lay_out, views)), len(shares[0].names), names)

    def _take(self, source: Source, run_step: int) -> _Share:
        size = min(self._config.batch_size, len(self._labelled))
        views, seed = self._config.views, self._config.seed + source.offset
        draws = draw_endlessly(len(source), seed, run_step * size, size)
        draws = draws[self._fabric.global_rank :: self._fabric.world_size]
        indices = [index for index, _ in draws]
        keys = [
            derive_sample_key(seed, index, number % views if views else number) for index, number in draws
        ]
        images, truths = source.take(indices, keys)
        names = [(source.name(index, key), key) for index, key in zip(indices, keys, strict=True)]
        return _Share(images, truths, names)


class _Share(NamedTuple):
    """What one source gives to a step: images, truths, and (name, key of its view) a frame."""

    images: Tensor
    truths: Tensor
    names: list[tuple[str, int]]


def _lay_out(view: Tensor) -> Tensor:
    return view.contiguous(memory_format=torch.channels_last) if view.ndim == 4 else view
