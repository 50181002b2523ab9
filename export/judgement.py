"""What a reduced precision costs, on frames of the validation split: masks against those of float32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.bundle import MIN_AGREEMENT
from edgekd.metrics import count_confusions, score_cases
from edgekd.tables import format_agreement, format_floor

if TYPE_CHECKING:  # a device judges by OpenVINO without it
    import onnx

LARGEST_DICE_LOSS: Mapping[str, float] = {"fp16": 0.001, "bf16": 0.001, "int8": 0.005}
"""Dice (0 to 1) that a precision may lose on the validation split before a build is refused."""


@dataclass(frozen=True)
class JudgedGraph:
    """A core graph in a precision below float32 that passed.

    Attributes:
        core: ``image`` → ``logits``.
        facts: ``calibration``, ``validation`` (its figures), ``float_layers`` (those that stay float32); of
            int8 also ``fallback``: one record for each layer that was given back, with what that brought.
        notices: sentences for the user.
    """

    core: onnx.ModelProto
    facts: dict[str, Any]
    notices: list[str]


@dataclass(frozen=True)
class Judgement:
    """A candidate beside the float32 student.

    Attributes:
        precision: the candidate's.
        images: number of frames.
        dice_fp32, dice: mean Dice of both; NaN where no frame has a lesion.
        agreement: part of the pixels with the same class.
    """

    precision: str
    images: int
    dice_fp32: float
    dice: float
    agreement: float

    @property
    def passed(self) -> bool:
        """Whether Dice (undefined without any lesion) and agreement are within the precision's limits."""
        loss = self.dice_fp32 - self.dice
        is_good = math.isnan(self.dice_fp32) or loss <= LARGEST_DICE_LOSS[self.precision]
        return is_good and self.agreement >= MIN_AGREEMENT[self.precision]

    def describe(self) -> dict[str, Any]:
        """Return the figures for a build's facts."""
        return {**asdict(self), "passed": self.passed}

    def describe_limits(self) -> str:
        """Return what had to be reached, as part of a sentence."""
        loss, floor = LARGEST_DICE_LOSS[self.precision], MIN_AGREEMENT[self.precision]
        return f"a loss of Dice of at most {loss}, and at least {format_floor(floor)} of the pixels equal"

    def format(self) -> str:
        """Return the figures as part of a sentence."""
        return (
            f"Dice {self.dice:.4f} for {self.dice_fp32:.4f} in fp32, "
            f"{format_agreement(self.agreement)} of the pixels equal, {self.images} images"
        )


def judge_logits(
    precision: str,
    reference: NDArray[np.float32],
    candidate: NDArray[np.floating[Any]],
    truths: NDArray[np.uint8],
) -> Judgement:
    """Compare the masks of two sets of logits.

    Args:
        precision: the candidate's, a key of LARGEST_DICE_LOSS.
        reference, candidate: (N, K, h, w) logits.
        truths: (N, h, w) uint8 class ids.
    """
    masks = [logits.argmax(axis=1).astype(np.uint8) for logits in (reference, candidate)]
    dice = [score_cases(count_confusions(truths, mask, reference.shape[1])).dice for mask in masks]
    # Logits that are no numbers have an argmax all the same.
    finite = np.isfinite(candidate).all(axis=1)
    agreement = float(((masks[0] == masks[1]) & finite).mean())
    return Judgement(precision, len(truths), dice[0], dice[1], agreement)
