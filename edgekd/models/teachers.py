"""The teachers: MONAI's networks, built two-dimensional with batch norm."""

from __future__ import annotations

from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from torch import nn


def build_unet_wide(in_channels: int, num_classes: int, *, width: int = 32) -> nn.Module:
    """Return MONAI's BasicUNet with ``width`` channels at full size, doubling at each of four levels.

    Batch norm for MONAI's default instance norm: an image's mean brightness tells tissue from shadow
    in ultrasound, and instance norm takes it away at every layer.
    """
    features = (width, width * 2, width * 4, width * 8, width * 16, width)
    return BasicUNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=num_classes,
        features=features,
        norm="batch",
    )


def build_dynunet(in_channels: int, num_classes: int, *, width: int = 32, levels: int = 6) -> nn.Module:
    """Return MONAI's DynUNet, the network of nnU-Net (Isensee et al., Nature Methods 2021).

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits, background included.
        width: channels at full size; doubled at each level up to 16 × width, as nnU-Net's 2-D cap of 512.
        levels: resolutions, full size included; the image's sides must be multiples of 2 ** (levels - 1).
    """
    kernels = [[3, 3]] * levels
    strides = [[1, 1]] + [[2, 2]] * (levels - 1)
    return DynUNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=num_classes,
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=[width * min(2**level, 16) for level in range(levels)],
        norm_name="batch",
    )
