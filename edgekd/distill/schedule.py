"""The optimiser, its learning-rate curve, and which samples make which batch."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgekd.distill.augment import derive_seed
from edgekd.errors import UsageError

ORDER_KEY = 1
AUGMENT_KEY = 2
STEP_KEY = 3
MIX_KEY = 4


def compute_lr(step: int, total_steps: int, peak: float, warmup_fraction: float) -> float:
    """Return the learning rate of a step: linear warm-up to ``peak``, then half a cosine to 0.

    The cosine without restarts of Loshchilov and Hutter (ICLR 2017); steps run from 0 to
    total_steps - 1, and the last is one short of 0.
    """
    warmup_steps = round(total_steps * warmup_fraction)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter, ICLR 2019); norms and biases (one axis or none) do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.0,
        fused=True,  # one call for all parameters: for a small student a fifth of the loop's time
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def count_steps(num_samples: int, batch_size: int, min_steps: int) -> int:
    """Return the steps of an epoch: a pass in whole batches, but at least ``min_steps``."""
    return max(1, min_steps, num_samples // batch_size)


def check_shares(num_samples: int, batch_size: int, world_size: int) -> None:
    """Raise UsageError where a batch cannot be divided evenly among the processes."""
    batch = min(batch_size, num_samples)
    if batch < world_size:
        raise UsageError(
            "there is no image for each process",
            received=f"{batch} image{'s' if batch > 1 else ''} a step, {world_size} processes",
            action=f"start at most {num_samples} processes"
            if num_samples < world_size
            else f"use --batch-size {world_size}",
        )
    if batch % world_size:
        raise UsageError(
            "a batch cannot be divided evenly among the processes",
            received=f"{batch} images, {world_size} processes",
            expected="a multiple",
            action=f"use --batch-size {batch // world_size * world_size}",
        )


def draw_endlessly(num_samples: int, seed: int, begin: int, count: int) -> list[tuple[int, int]]:
    """Return ``count`` draws from the ``begin``-th on, pass after pass: (sample, pass), both from 0.

    Each pass holds every sample once, in its own random order, so that the draws of a step depend on its
    number alone.
    """
    draws: list[tuple[int, int]] = []
    while len(draws) < count:
        number, offset = divmod(begin + len(draws), num_samples)
        order = order_pass(num_samples, seed, number)[offset : offset + count - len(draws)]
        draws += [(index, number) for index in order.tolist()]
    return draws


def order_pass(num_samples: int, seed: int, number: int) -> torch.Tensor:
    """Return the sample indices of a pass over the data in its random order, (num_samples,) int64."""
    generator = torch.Generator().manual_seed(derive_seed(seed, ORDER_KEY, number))
    return torch.randperm(num_samples, generator=generator)


def derive_sample_key(seed: int, index: int, view: int) -> int:
    """Return the augmentation key of a sample's view."""
    return derive_seed(seed, AUGMENT_KEY, view, index)


def derive_step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Return what torch's own generator is set to before a step, for networks with dropout."""
    return derive_seed(seed, STEP_KEY, epoch, step, rank)
