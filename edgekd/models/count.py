"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgekd.errors import UsageError
from edgekd.models.catalogue import (
    CATALOGUE,
    DEFAULT_STUDENT,
    DEFAULT_TEACHER,
    build_model,
    describe_error,
    find_size_multiple,
)


class NetworkFacts(NamedTuple):
    """A network of the catalogue and its cost for one grey image and two classes; see `count_model`.

    MACs are None where the network cannot take images of the size.
    """

    name: str
    role: str
    parameters: int
    macs: int | None
    is_default: bool
    note: str


def describe_catalogue(image_size: int) -> list[NetworkFacts]:
    """Return the facts of every network for square images of ``image_size`` pixels."""
    facts: list[NetworkFacts] = []
    for name, entry in CATALOGUE.items():
        network, multiple = build_model(name, 1, 2), find_size_multiple(name)
        # A network has its parameters at any size.
        size = image_size if image_size % multiple == 0 else multiple
        parameters, macs = count_model(network, 1, size, size)
        is_default = name in (DEFAULT_TEACHER, DEFAULT_STUDENT)
        counted = macs if size == image_size else None
        facts.append(NetworkFacts(name, entry.role, parameters, counted, is_default, entry.note))
    return facts


def count_model(model: nn.Module, in_channels: int, height: int, width: int) -> tuple[int, int]:
    """Return (parameters, MACs) of ``model`` for one (1, in_channels, height, width) float32 image.

    Parameters include those of the norms; MACs are those of convolutions and matrix products (half the
    operations that ``torch.utils.flop_counter`` counts, which leaves out norms and activations).
    Mode, weights and buffers of the model are left as they were.
    """
    with FlopCounterMode(display=False) as counter:
        probe_logits(model, in_channels, height, width)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, counter.get_total_flops() // 2


def check_network(
    name: str, model: nn.Module, in_channels: int, num_classes: int, height: int, width: int
) -> None:
    """Raise UsageError unless ``model`` can learn and maps one image to (1, num_classes, height, width)."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(
            f"the network {name!r} has nothing to train",
            received=f"{type(model).__name__} without parameters that need a gradient",
            expected="at least one",
        )
    try:
        logits = probe_logits(model, in_channels, height, width)
    except Exception as error:  # the network may be anyone's code
        raise UsageError(
            f"the network {name!r} failed on an image of {height}×{width}",
            received=describe_error(error),
            action="try another --image-size",
        ) from error
    expected = (1, num_classes, height, width)
    received = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if received != expected:
        raise UsageError(
            f"the network {name!r} gives no logits of the expected shape",
            received=received,
            expected=expected,
        )


def check_learns_from_one(name: str, model: nn.Module, in_channels: int, height: int, width: int) -> None:
    """Raise UsageError where ``model`` cannot train on a single image; its buffers are changed.

    Batch normalisation has no variance where one image leaves one value a channel.
    """
    try:
        with torch.no_grad():
            model.train()(torch.zeros(1, in_channels, height, width))
    except Exception as error:  # the network may be anyone's code
        raise UsageError(
            f"the network {name!r} cannot learn from one image of {height}×{width} a step",
            received=describe_error(error),
            expected="at least two images a step and process",
            action="use a larger --batch-size, or --image-size",
        ) from error


def probe_logits(model: nn.Module, in_channels: int, height: int, width: int) -> torch.Tensor:
    """Return the logits of one black image in eval mode; the model's mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad():
            return model(torch.zeros(1, in_channels, height, width, device=device))
    finally:
        for module, training in modes:
            module.training = training
