"""Random changes of a training batch, each drawn from the seed, the epoch and the sample alone.

No generator lives from step to step, so a resumed run, a branch and a process of many draw the same.
"""

from __future__ import annotations

import hashlib
import math
import struct
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.config import AugmentConfig
from edgekd.distill.losses import IGNORE
from edgekd.specs import PreprocessSpec

NUM_DRAWS = 8


def derive_seed(*keys: int) -> int:
    """Return 63 bits that depend on every key and their order (BLAKE2b)."""
    digest = hashlib.blake2b(struct.pack(f"<{len(keys)}q", *keys), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Views(NamedTuple):
    """A batch after augmentation.

    Attributes:
        images: (N, C, h, w) float32, moved and recoloured: what is learned from.
        truths: (N, h, w) int64 class ids, IGNORE where a pixel came from outside or had no truth.
        inside: (N, h, w) bool, False where a pixel came from outside the image.
        plain: (N, C, h, w) float32, moved as ``images``, neither recoloured nor noisy.
    """

    images: Tensor
    truths: Tensor
    inside: Tensor
    plain: Tensor


def augment_batch(
    images: Tensor, truths: Tensor, keys: list[int], config: AugmentConfig, spec: PreprocessSpec
) -> Views:
    """Return the batch, geometrically and photometrically changed.

    Args:
        images: (N, C, h, w) float32, normalised as ``spec`` says.
        truths: (N, h, w) uint8 or int64 class ids, or IGNORE.
        keys: (N,) one seed a sample; the change of a sample depends on its key alone.
        config: how far each change may go.
        spec: mean and standard deviation of the normalisation.
    """
    draws = torch.stack([_draw_uniform(key) for key in keys]).to(images.device)
    mean = torch.tensor(spec.mean, device=images.device).view(1, -1, 1, 1)
    std = torch.tensor(spec.std, device=images.device).view(1, -1, 1, 1)
    moved, truths, inside = _move(torch.addcmul(mean, images, std), truths, draws, config)
    pixels = _recolor(moved, draws, config)
    if config.noise > 0:
        level = draws[:, 7].view(-1, 1, 1, 1) * config.noise
        pixels.addcmul_(level, torch.stack([_draw_normal(key, pixels[0]) for key in keys]))
    return Views(_normalise(pixels.clamp_(0, 1), mean, std), truths, inside, _normalise(moved, mean, std))


def _normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return pixels.sub_(mean).div_(std)


def _draw_uniform(key: int) -> Tensor:
    return torch.rand(NUM_DRAWS, generator=torch.Generator().manual_seed(key))


def _draw_normal(key: int, like: Tensor) -> Tensor:
    # One plane for all channels: the noise of a colour copy of a grey image is grey.
    generator = torch.Generator(like.device).manual_seed(derive_seed(key))
    return torch.randn((1, *like.shape[1:]), generator=generator, device=like.device)


def _move(
    pixels: Tensor, truths: Tensor, draws: Tensor, config: AugmentConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Flip, turn, scale and shift; outside pixels are black and IGNORE. Also return which lie inside."""
    if not (config.flip or config.rotation_deg or config.scale or config.translation):
        return pixels, truths.long(), torch.ones_like(truths, dtype=torch.bool)
    grid = _build_grid(_build_affine(draws, config, *pixels.shape[-2:]), *pixels.shape[-2:])
    moved = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # One above the class id, so that the zeros of the padding are told from the background.
    shifted = truths.unsqueeze(1).float().add_(1)
    labels = functional.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    labels = labels.squeeze(1)
    inside = labels > 0
    return moved, labels.sub_(1).masked_fill_(~inside, IGNORE).long(), inside


def _build_grid(affine: Tensor, height: int, width: int) -> Tensor:
    """Return (N, h, w, 2) float32 input coordinates of the output's pixels.

    As ``functional.affine_grid``, whose batched product of matrices with two columns is many times slower.
    """
    x, y = (
        torch.arange(1, 2 * size, 2, device=affine.device, dtype=torch.float32) / size - 1
        for size in (width, height)
    )
    grid = affine.new_empty(len(affine), height, width, 2)
    of_x, of_y, shift = (affine[:, :, column, None] for column in range(3))
    for axis in range(2):
        rows = torch.addcmul(shift[:, axis], of_y[:, axis], y)
        torch.addcmul(rows[:, :, None], of_x[:, axis, :, None], x, out=grid[..., axis])
    return grid


def _build_affine(draws: Tensor, config: AugmentConfig, height: int, width: int) -> Tensor:
    """Return (N, 2, 3) float32 maps from output to input in grid coordinates (-1 to 1 over the image)."""
    angle = math.radians(config.rotation_deg) * _centre(draws[:, 0])
    zoom = 1 + config.scale * _centre(draws[:, 1])
    mirror = torch.where(draws[:, 2] < 0.5, -1.0, 1.0) if config.flip else torch.ones_like(zoom)
    shift_x, shift_y = (2 * config.translation * _centre(draws[:, column]) for column in (3, 4))
    # The aspect keeps a turn a turn in pixels where the image is not square.
    cosine, sine, aspect = angle.cos() * zoom, angle.sin() * zoom, height / width
    rows = (mirror * cosine, -sine * aspect * mirror, shift_x, sine / aspect, cosine, shift_y)
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def _recolor(pixels: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    gain = 1 + config.gain * _centre(draws[:, 5])
    gamma = torch.exp(math.log(config.gamma) * _centre(draws[:, 6]))
    # A floor above 0: the slope of a power below 1 is infinite there.
    brighter = (pixels * gain.view(-1, 1, 1, 1)).clamp_(1e-6, 1)
    if config.gamma == 1:
        return brighter
    # A power in half the time of `pow`.
    return brighter.log_().mul_(gamma.view(-1, 1, 1, 1)).exp_()


def _centre(uniform: Tensor) -> Tensor:
    return 2 * uniform - 1
