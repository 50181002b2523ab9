"""Networks for ``package.module:factory``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Exploding(nn.Module):
    """Finite logits at the first training step, infinite ones from the second on."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(in_channels, num_classes, kernel_size=1)
        self.steps = 0

    def forward(self, image: Tensor) -> Tensor:
        self.steps += self.training
        return self.head(image) * (torch.inf if self.steps > 1 else 1.0)


def build_exploding(in_channels: int, num_classes: int) -> nn.Module:
    return Exploding(in_channels, num_classes)


def build_dropout(in_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.Conv2d(4, num_classes, 1),
    )


def build_halving(in_channels: int, num_classes: int) -> nn.Module:
    """A network whose logits have half the size of the image."""
    return nn.Conv2d(in_channels, num_classes, kernel_size=2, stride=2)
