"""The losses that compare with the truth.

Pixels whose truth is IGNORE (outside the image after augmentation, or of a frame without a mask) count in
none of them. Every loss computes in float32 outside autocast, whatever the networks computed in.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = 255
DICE_SMOOTHING = 1.0


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean cross-entropy over valid pixels, in nats.

    Args:
        logits: (N, K, h, w).
        truth: (N, h, w) int64 class ids, or IGNORE.
    """
    one_hot, valid = _encode_truth(truth, logits.shape[1])
    log_probabilities = functional.log_softmax(logits.float(), dim=1)
    return -(one_hot * log_probabilities).sum() / valid.sum().clamp(min=1)


def soft_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Return 1 minus the soft Dice of the foreground classes, each counted over the whole batch.

    ``1 - mean_k (2 sum p g + s) / (sum p + sum g + s)``, s = DICE_SMOOTHING pixels; the form without
    squares of Drozdzal et al. (DLMIA 2016), summed over the batch as nnU-Net does in two dimensions
    (Isensee et al., 2021), so that images without a lesion leave the loss defined.

    Args:
        logits: (N, K, h, w).
        truth: (N, h, w) int64 class ids, or IGNORE.
    """
    one_hot, valid = _encode_truth(truth, logits.shape[1])
    probabilities = logits.float().softmax(dim=1) * valid.unsqueeze(1)
    overlap = (probabilities * one_hot).sum(dim=(0, 2, 3))[1:]
    total = (probabilities + one_hot).sum(dim=(0, 2, 3))[1:]
    return 1 - ((2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


def _encode_truth(truth: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the truth one-hot (N, K, h, w) float32, zero where invalid, and the valid pixels (N, h, w)."""
    valid = truth != IGNORE
    # A comparison and not `one_hot`: its scatter has no deterministic form on a GPU.
    classes = torch.arange(num_classes, device=truth.device).view(1, -1, 1, 1)
    return (truth.unsqueeze(1) == classes).float(), valid
