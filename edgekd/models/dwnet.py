"""The depthwise-separable student: large kernels at half resolution for a wide view at few MACs."""

from __future__ import annotations

from torch import Tensor, nn

STAGE_FACTORS = (1, 2, 4, 8)
STAGE_BLOCKS = (1, 1, 2, 2)
EXPANSION = 2


class SeparableBlock(nn.Module):
    """A residual block: k×k depthwise convolution, batch norm, then two 1×1 convolutions with ReLU between.

    The shape of ConvNeXt's block (Liu et al., CVPR 2022) with batch norm for layer norm and ReLU for
    GELU, so that the norms fold away and only convolutions, ReLU and an addition are left.
    """

    def __init__(self, channels: int, kernel_size: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, hidden, kernel_size=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` plus what the block adds, same shape."""
        return features + self.layers(features)


class HalvingBlock(nn.Sequential):
    """Halve the size: 3×3 depthwise of stride 2 (a full one for the image), then 1×1, each with norm."""

    def __init__(self, in_channels: int, out_channels: int, *, first: bool) -> None:
        middle = out_channels if first else in_channels
        groups = 1 if first else in_channels
        super().__init__(
            nn.Conv2d(in_channels, middle, kernel_size=3, stride=2, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(middle),
            nn.Conv2d(middle, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class DepthwiseNet(nn.Module):
    """Encoder of SeparableBlocks at 1/2 to 1/16 of the size; the decoder adds to the skips.

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits, background included.
        width: channels at half size; parameters grow with its square.
        kernel_size: side of the depthwise kernels, odd.

    Input (N, in_channels, h, w) float32 with h and w multiples of 16; output logits (N, num_classes, h, w).
    """

    def __init__(self, in_channels: int, num_classes: int, width: int, kernel_size: int) -> None:
        super().__init__()
        channels = [width * factor for factor in STAGE_FACTORS]
        self.down = nn.ModuleList(
            nn.Sequential(
                HalvingBlock(before, after, first=level == 0),
                *(SeparableBlock(after, kernel_size, EXPANSION) for _ in range(blocks)),
            )
            for level, (before, after, blocks) in enumerate(
                zip([in_channels, *channels[:-1]], channels, STAGE_BLOCKS, strict=True)
            )
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(deep, skip, kernel_size=1)
            for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.merge = nn.ModuleList(SeparableBlock(skip, kernel_size, EXPANSION) for skip in channels[-2::-1])
        self.expand = nn.Upsample(scale_factor=2, mode="nearest")
        self.smooth = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of ``image``: the head works at half size, and its logits are resized."""
        skips: list[Tensor] = []
        features = image
        for stage in self.down:
            features = stage(features)
            skips.append(features)
        skips.pop()
        for lateral, merge in zip(self.lateral, self.merge, strict=True):
            features = merge(self.expand(lateral(features)) + skips.pop())
        return self.smooth(self.head(features))


def build_dwnet(in_channels: int, num_classes: int, *, width: int = 24, kernel_size: int = 7) -> nn.Module:
    """Return a DepthwiseNet of ``width`` channels at half size."""
    return DepthwiseNet(in_channels, num_classes, width, kernel_size)
