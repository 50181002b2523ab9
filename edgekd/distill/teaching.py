"""Phase 2's other side: the teachers, what they are shown, what they answer and how far it is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.distill.answers import AnswerStore, split_answer, stack_answers
from edgekd.distill.batches import Batch
from edgekd.distill.objective import TeacherAnswer
from edgekd.distill.taps import FeatureTaps
from edgekd.distill.teacher import FrozenTeacher

PROBABILITY_FLOOR = 1e-7


@dataclass(frozen=True)
class Teaching:
    """How a student is taught.

    Attributes:
        fabric: device and precision.
        teachers: one, or several whose probabilities are averaged.
        taps: of the one teacher's features; None without losses on features.
        plain_view: show the teachers the moved frame before gain, gamma and noise.
        mirror: also show them its mirror image, and average both answers.
        temperature: see ``pixel_kl``.
        boundary_weight: see LossInputs.
        confidence: on frames without a mask, pixels whose largest class probability is lower do not count.
        store: where answers are kept; None keeps none.
    """

    fabric: Fabric
    teachers: Sequence[FrozenTeacher]
    taps: FeatureTaps | None
    plain_view: bool
    mirror: bool
    temperature: float
    boundary_weight: float
    confidence: float
    store: AnswerStore | None

    def answer(self, batch: Batch) -> TeacherAnswer:
        """Return what the teachers say of a batch, from the store as far as it knows."""
        images = batch.views.plain if self.plain_view else batch.views.images
        if self.store is None:
            return self._ask(images)
        known = [self.store.read(name) for name in batch.names]
        missing = [index for index, entry in enumerate(known) if entry is None]
        if missing:
            # All of the batch, also what is known: in another company a frame's last bits differ, and a run
            # that was interrupted here would not repeat itself.
            asked = split_answer(self._ask(images))
            for index in missing:
                self.store.write(batch.names[index], asked[index])
                known[index] = {key: value.cpu() for key, value in asked[index].items()}
        return stack_answers([entry for entry in known if entry is not None], images.device)

    def weigh_pixels(self, batch: Batch, answer: TeacherAnswer) -> Tensor:
        """Return (N, h, w) float32: 1 where a pixel counts beside the teacher, 0 where it does not."""
        weight = batch.views.inside.float()
        if self.confidence > 0:
            free = slice(batch.num_labelled, None)
            highest = answer.logits[free].softmax(dim=1).amax(dim=1)
            weight[free] *= highest >= self.confidence
        return weight

    def check_unchanged(self) -> None:
        """Raise IntegrityError where a teacher is not bit for bit what it was at the start."""
        for teacher in self.teachers:
            teacher.check_unchanged()

    def _ask(self, images: Tensor) -> TeacherAnswer:
        with self.fabric.autocast():
            logits = [teacher(images).float() for teacher in self.teachers]
            features = {} if self.taps is None else self.taps.take()
            if self.mirror:
                logits += [teacher(images.flip(-1)).float().flip(-1) for teacher in self.teachers]
        return TeacherAnswer(average_logits(logits), features)


class Ensemble(nn.Module):
    """Several networks that answer as one; see ``average_logits``."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K, h, w) of images (N, C, h, w)."""
        return average_logits([network(images).float() for network in self.networks])


def average_logits(logits: Sequence[Tensor]) -> Tensor:
    """Return logits whose softmax is the mean of the networks' probabilities, (N, K, h, w) float32.

    One network's logits are returned as they are; several give the logarithm of their mean probability
    (a mixture, as deep ensembles: Lakshminarayanan et al., NeurIPS 2017).
    """
    if len(logits) == 1:
        return logits[0]
    mean = torch.stack([one.softmax(dim=1) for one in logits]).mean(dim=0)
    return mean.clamp(min=PROBABILITY_FLOOR).log()
