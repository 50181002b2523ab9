"""What a network makes of images: logits, masks, scores and recordings, always in float32 and eval mode."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd.bundle import Recording
from edgekd.data import LoadedCases
from edgekd.metrics import Scores, count_confusions, score_cases

BATCH_SIZE = 8


def predict_logits(network: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits (N, K, h, w) float32 of images (N, C, h, w) float32, on the network's device.

    The mode of every module is put back afterwards.
    """
    device = next(network.parameters()).device
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            parts = [
                network(_to_device(images[start : start + BATCH_SIZE], device)).float().cpu().numpy()
                for start in range(0, len(images), BATCH_SIZE)
            ]
    finally:
        for module, training in modes:
            module.training = training
    return np.concatenate(parts)


def pick_masks(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (N, h, w) uint8: the class of the largest logit, the lower id where two are equal."""
    return logits.argmax(axis=1).astype(np.uint8)


def score_network(network: nn.Module, cases: LoadedCases, num_classes: int) -> Scores:
    """Return the scores of a network's masks at tensor size."""
    masks = pick_masks(predict_logits(network, cases.images))
    return score_cases(count_confusions(cases.truths, masks, num_classes))


def predict_recording(
    network: nn.Module, cases: LoadedCases, *, manifest_sha256: str, data_sha256: str
) -> Recording:
    """Return the network's masks and logits on ``cases`` as the reference of parity.

    Args:
        network: the student.
        cases: tensors and truths.
        manifest_sha256: the bundle whose weights the network has.
        data_sha256: ``hash_cases`` of the cases.
    """
    logits = predict_logits(network, cases.images)
    return Recording(
        source="pytorch",
        manifest_sha256=manifest_sha256,
        data_sha256=data_sha256,
        names=cases.names,
        groups=cases.groups,
        truths=cases.truths,
        masks=pick_masks(logits),
        logits=logits,
    )


def _to_device(images: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(images).to(device, memory_format=torch.channels_last)
