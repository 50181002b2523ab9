"""The names of the catalogue's feature taps, read off the built network, whatever depth its options gave it.

Each function returns name → path of the module: ``enc4`` is the encoder at a quarter of the image's size,
``dec4`` the decoder there, so that one name means comparable places in networks of different depth.
"""

from __future__ import annotations

from torch import nn


def name_dynunet_taps(network: nn.Module) -> dict[str, str]:
    """Return the taps of MONAI's DynUNet, whose option ``levels`` sets the depth."""
    # The bottleneck halves too.
    halvings = _count_blocks(network, "downsamples") + 1
    return {
        "enc1": "input_block",
        **{f"enc{2 ** (level + 1)}": f"downsamples.{level}" for level in range(halvings - 1)},
        f"enc{2**halvings}": "bottleneck",
        **{f"dec{2 ** (halvings - 1 - level)}": f"upsamples.{level}" for level in range(halvings)},
    }


def name_unet_wide_taps(network: nn.Module) -> dict[str, str]:
    """Return the taps of MONAI's BasicUNet, which has one depth."""
    del network
    return {
        "enc1": "conv_0",
        **{f"enc{2**level}": f"down_{level}" for level in range(1, 5)},
        **{f"dec{2 ** (level - 1)}": f"upcat_{level}" for level in range(4, 0, -1)},
    }


def name_unet_taps(network: nn.Module) -> dict[str, str]:
    """Return the taps of a NarrowUNet."""
    levels = _count_blocks(network, "down")
    return {
        **{f"enc{2**level}": f"down.{level}" for level in range(levels)},
        **{f"dec{2 ** (levels - 2 - level)}": f"up.{level}" for level in range(levels - 1)},
    }


def name_dwnet_taps(network: nn.Module) -> dict[str, str]:
    """Return the taps of a DepthwiseNet."""
    halvings = _count_blocks(network, "down")
    return {
        **{f"enc{2 ** (level + 1)}": f"down.{level}" for level in range(halvings)},
        **{f"dec{2 ** (halvings - 1 - level)}": f"merge.{level}" for level in range(halvings - 1)},
    }


def _count_blocks(network: nn.Module, path: str) -> int:
    return len(list(network.get_submodule(path).children()))
