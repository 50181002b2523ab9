"""The student's side of losses on features: its taps, and the projectors to the teacher's channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.config import DistillConfig
from edgekd.distill.feature_losses import Projectors
from edgekd.distill.schedule import build_optimizer
from edgekd.distill.taps import FeatureTaps, TapPair, measure_channels
from edgekd.specs import ModelSpec


@dataclass
class Hints:
    """What a student needs beside its network to learn features; thrown away after training.

    Attributes:
        taps: on the student.
        projectors: the bare module, for saving; None where no loss projects.
        module: the same as Fabric runs it.
        optimizer: of the projectors.
    """

    taps: FeatureTaps
    projectors: Projectors | None
    module: Any
    optimizer: Any

    def read(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Return the features of the last forward pass, and the same after the projectors."""
        features = self.taps.take()
        return features, features if self.module is None else self.module(features)


def build_hints(
    fabric: Fabric,
    *,
    student: tuple[nn.Module, ModelSpec],
    teacher: tuple[nn.Module, ModelSpec],
    taps: Sequence[TapPair],
    projects: bool,
    config: DistillConfig,
) -> Hints:
    """Put taps on the student and, where a loss ``projects``, make its projectors, seeded by the run.

    Args:
        fabric: device and processes.
        student: the network in training and its facts.
        teacher: a network built as the teacher, on the CPU, and its facts; used to count channels.
        taps: pairs of places.
        projects: whether any loss needs projectors.
        config: image size, seed and weight decay.

    Raises:
        UsageError: an unknown tap, or one that gives no feature map.
    """
    ours, theirs = (
        {pair.name: side for pair, side in zip(taps, sides, strict=True)} for sides in zip(*taps, strict=True)
    )
    features = FeatureTaps(student[0], student[1].name, ours)
    if not projects:
        return Hints(features, None, None, None)
    shape = config.build_preprocess()
    image = (shape.channels, shape.height, shape.width)
    counts = [
        measure_channels(network, model.name, side, image)
        for (network, model), side in ((student, ours), (teacher, theirs))
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        projectors = Projectors({key: (counts[0][key], counts[1][key]) for key in ours})
    module, optimizer = fabric.setup(projectors, build_optimizer(projectors, config.weight_decay))
    return Hints(features, projectors, module, optimizer)
