"""What a network makes of images: logits, masks, scores and recordings, always in float32 and eval mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator

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

    The mode of every module is put back afterwards. Where masks are enough, ``predict_masks`` takes a part of
    the memory.
    """
    return np.concatenate(list(_predict_batches(network, images)))


def predict_masks(network: nn.Module, images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the masks (N, h, w) uint8 of images (N, C, h, w), holding the logits of one batch at a time."""
    return np.concatenate([pick_masks(logits) for logits in _predict_batches(network, images)])


def pick_masks(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (N, h, w) uint8: the class of the largest logit, the lower id where two are equal."""
    return logits.argmax(axis=1).astype(np.uint8)


def copy_to_cpu(network: nn.Module) -> nn.Module:
    """Return the network, or a copy where it is on another device.

    The processor's float32 is what exported engines are compared with; a GPU's convolutions differ.
    """
    is_there = next(network.parameters()).device.type == "cpu"
    return network if is_there else copy.deepcopy(network).cpu()


def score_network(network: nn.Module, cases: LoadedCases, num_classes: int) -> Scores:
    """Return the scores of a network's masks at tensor size."""
    return score_cases(count_network(network, cases, num_classes))


def count_network(network: nn.Module, cases: LoadedCases, num_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix (N, K, K) of a network's mask of each case, at tensor size."""
    return count_confusions(cases.truths, predict_masks(network, cases.images), num_classes)


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


def _predict_batches(network: nn.Module, images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield the logits (n, K, h, w) of batch after batch, in eval mode; modes are put back at the end."""
    device = next(network.parameters()).device
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        for start in range(0, len(images), BATCH_SIZE):
            # Left before each yield: the mode of a generator would hold for its caller too.
            with torch.inference_mode():
                logits = network(_to_device(images[start : start + BATCH_SIZE], device)).float().cpu().numpy()
            yield logits
    finally:
        for module, training in modes:
            module.training = training


def _to_device(images: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(images).to(device, memory_format=torch.channels_last)
