"""The losses that compare features of student and teacher, taken at taps of the same resolution order.

Where the sizes differ, both are averaged to the smaller one. Each is exactly 0 for equal features. Whole maps
are compared, without the weights of pixels that losses on logits take: a feature sums up a neighbourhood of
many pixels, so none is of the outside alone, and both networks see the same view with the same outside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill.logit_losses import channel_kl


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the squared distance of the normalised attention maps, mean over images.

    ``1/2 || Q_s / ||Q_s|| - Q_t / ||Q_t|| ||²`` with Q the sum over channels of the squared features,
    flattened (Zagoruyko and Komodakis, ICLR 2017, eq. 2 with p = 2). Channel counts may differ.

    Args:
        student: (N, C, h, w).
        teacher: (N, D, h', w'), without gradient.
    """
    student, teacher = match_size(student.float(), teacher.float())
    maps = [functional.normalize(x.square().sum(dim=1).flatten(1), dim=1) for x in (student, teacher)]
    return 0.5 * (maps[0] - maps[1]).square().sum(dim=1).mean()


def hint_distance(projected: Tensor, teacher: Tensor) -> Tensor:
    """Return half the mean squared difference to the teacher's features (FitNets, Romero et al., ICLR 2015).

    The mean over channels and pixels, where the paper sums, so that the weight does not depend on the tap.

    Args:
        projected: (N, D, h, w), the student's features after its projector.
        teacher: (N, D, h', w'), without gradient.
    """
    projected, teacher = match_size(projected.float(), teacher.float())
    return 0.5 * (projected - teacher).square().mean()


def feature_channel_kl(projected: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``channel_kl`` of features, every pixel counted.

    Args:
        projected, teacher: see ``hint_distance``.
        temperature: T > 0.
    """
    projected, teacher = match_size(projected.float(), teacher.float())
    everywhere = torch.ones_like(projected[:, 0])
    return channel_kl(projected, teacher, everywhere, temperature)


def match_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both at the smaller of the two sizes, by averaging over areas."""
    height = min(student.shape[-2], teacher.shape[-2])
    width = min(student.shape[-1], teacher.shape[-1])
    return _pool(student, height, width), _pool(teacher, height, width)


def _pool(features: Tensor, height: int, width: int) -> Tensor:
    if features.shape[-2:] == (height, width):
        return features
    return functional.adaptive_avg_pool2d(features, (height, width))


class Projectors(nn.ModuleDict):
    """One 1×1 convolution a tap, from the student's channels to the teacher's; thrown away after training.

    Args:
        channels: tap → (channels of the student, channels of the teacher).
    """

    def __init__(self, channels: dict[str, tuple[int, int]]) -> None:
        super().__init__(
            {
                _escape(tap): nn.Conv2d(student, teacher, kernel_size=1, bias=False)
                for tap, (student, teacher) in channels.items()
            }
        )

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tap → (N, D, h, w) for the student's tap → (N, C, h, w)."""
        return {tap: self[_escape(tap)](value) for tap, value in features.items()}


def _escape(tap: str) -> str:
    # A module's name may hold no dot, a tap of a foreign network is a path of dots.
    return tap.replace(".", "/")
