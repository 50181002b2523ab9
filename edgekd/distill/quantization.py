"""Fake quantisation: in the last epochs the student learns to live with the rounding of int8.

Nothing is added to the network: while a context is open its convolutions round what they read and their
weights in training mode, and the gradient passes through as if nothing had been rounded (straight-through
estimator; Jacob et al., CVPR 2018). The ranges of a device are measured at export; here each batch brings its
own, so there is no state to be kept, saved or agreed on between processes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

# The narrower of the two forms that `edgekd.export.quantize` writes: a ReLU's results fill half of the signed
# numbers, and weights have 7 bits on processors.
LARGEST_ACTIVATION = 127
LARGEST_WEIGHT = 63
_SMALLEST_SCALE = 1e-8


@contextlib.contextmanager
def simulate_int8(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Let the 2-D convolutions of ``networks`` compute with rounded numbers while they are in training mode.

    A norm that export folds into the weights only scales their channels, and each channel has its own scale,
    so what is rounded here is what is rounded there. The head, and on processors a small first layer, are
    float32 there (`edgekd.export.quantize`): here they round all the same.
    """
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    try:
        for layer in layers:
            # An attribute of the object hides the method of its class; no hook, so nothing is ever exported.
            layer.__dict__["_conv_forward"] = functools.partial(_convolve, layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("_conv_forward", None)


def round_activations(values: Tensor) -> Tensor:
    """Return a tensor rounded to multiples of its largest magnitude / 127, float32."""
    values = values.float()
    scale = (values.detach().abs().amax() / LARGEST_ACTIVATION).clamp_min(_SMALLEST_SCALE)
    zero = torch.zeros((), dtype=torch.int32, device=values.device)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, -LARGEST_ACTIVATION, LARGEST_ACTIVATION)


def round_weights(weights: Tensor) -> Tensor:
    """Return (O, I, kh, kw) weights, each output channel in multiples of its largest magnitude / 63."""
    weights = weights.float()
    scales = (weights.detach().abs().amax(dim=(1, 2, 3)) / LARGEST_WEIGHT).clamp_min(_SMALLEST_SCALE)
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=weights.device)
    return torch.fake_quantize_per_channel_affine(weights, scales, zeros, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT)


def _convolve(layer: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if layer.training:
        images, weight = round_activations(images), round_weights(weight)
    return nn.Conv2d._conv_forward(layer, images, weight, bias)
