"""The narrow U-Net: a student made only of Conv-BN-ReLU, nearest upsampling and concatenation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEPTH_FACTORS = (1, 2, 4, 8, 8)


class ConvBlock(nn.Sequential):
    """A 3×3 convolution, batch norm and ReLU: one plain convolution after folding."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class DoubleConv(nn.Sequential):
    """Two ConvBlocks, as at every level of a U-Net."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(ConvBlock(in_channels, out_channels), ConvBlock(out_channels, out_channels))


class NarrowUNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015) with few channels and a capped bottleneck.

    Two changes for small engines: the up-convolution is a 1×1 convolution before nearest upsampling
    (a copy in every engine) instead of a transposed one, and the deepest level keeps 8 × width channels,
    where doubling again would put most of the parameters into the level with the fewest pixels.

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits, background included.
        width: channels of the first level; parameters grow with its square.

    Input (N, in_channels, h, w) float32 with h and w multiples of 16; output logits (N, num_classes, h, w).
    """

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        channels = [width * factor for factor in DEPTH_FACTORS]
        self.down = nn.ModuleList(
            DoubleConv(before, after)
            for before, after in zip([in_channels, *channels[:-1]], channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.expand = nn.Upsample(scale_factor=2, mode="nearest")
        steps = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.reduce = nn.ModuleList(nn.Conv2d(deep, skip, kernel_size=1) for deep, skip in steps)
        self.up = nn.ModuleList(DoubleConv(2 * skip, skip) for _, skip in steps)
        self.head = nn.Conv2d(channels[0], num_classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of ``image``."""
        skips: list[Tensor] = []
        features = image
        for level, block in enumerate(self.down):
            features = block(self.pool(features) if level else features)
            skips.append(features)
        skips.pop()
        for reduce, block in zip(self.reduce, self.up, strict=True):
            features = block(torch.cat((self.expand(reduce(features)), skips.pop()), dim=1))
        return self.head(features)


def build_unet_narrow(in_channels: int, num_classes: int, *, width: int = 8) -> nn.Module:
    """Return a NarrowUNet of ``width`` channels at full size."""
    return NarrowUNet(in_channels, num_classes, width)
