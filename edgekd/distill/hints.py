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
from edgekd.distill.taps import FeatureTaps, TapPair


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
    network: nn.Module,
    model: str,
    taps: Sequence[TapPair],
    channels: dict[str, tuple[int, int]] | None,
    config: DistillConfig,
) -> Hints:
    """Put taps on the student and, where losses project, make its projectors, seeded by the run.

    Args:
        fabric: device and processes.
        network: the student in training.
        model: its name.
        taps: pairs of places.
        channels: pair → channels of the student and of the teacher; None where no loss projects.
        config: seed and weight decay.
    """
    features = FeatureTaps(network, model, {pair.name: pair.student for pair in taps})
    if channels is None:
        return Hints(features, None, None, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        projectors = Projectors(channels)
    module, optimizer = fabric.setup(projectors, build_optimizer(projectors, config.weight_decay))
    return Hints(features, projectors, module, optimizer)
