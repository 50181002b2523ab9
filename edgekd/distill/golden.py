"""The golden frames of a bundle: phantom frames, or real ones where a data set is named for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgekd.bundle import GoldenFrames
from edgekd.data import find_cases, hash_image, read_case
from edgekd.data.phantom import render_phantom
from edgekd.distill.predict import pick_masks, predict_logits
from edgekd.errors import UsageError
from edgekd.preprocess import prepare_truth, preprocess_frames
from edgekd.specs import ClassSpec, PreprocessSpec

NUM_GOLDEN_FRAMES = 8
# Far from the seeds 0, 1, 2 … that people give, so that no golden frame was learned from.
GOLDEN_SEED = 900_000_000
PHANTOM_SIZE = 256

FramesWithTruths = Sequence[tuple[NDArray[Any], NDArray[np.uint8]]]
"""Frames (H, W) or (H, W, 3) in the spec's dtype, each with its truth (H, W) uint8."""


def build_golden(
    network: nn.Module, spec: PreprocessSpec, classes: ClassSpec, real: FramesWithTruths | None = None
) -> GoldenFrames:
    """Return golden frames with everything the student makes of them.

    Args:
        network: the student, on the processor.
        spec: its preprocessing.
        classes: of the masks.
        real: frames to take; None renders phantom frames of fixed seeds.
    """
    pairs = render_golden(spec) if real is None else real
    frames = tuple(frame for frame, _ in pairs)
    tensors = preprocess_frames(frames, spec)
    logits = predict_logits(network, tensors)
    truths = np.stack([prepare_truth(mask, spec) for _, mask in pairs])
    return GoldenFrames(frames, tensors, logits, pick_masks(logits), truths)


def read_golden_cases(
    data: Path, spec: PreprocessSpec, classes: ClassSpec, trained: Collection[str]
) -> FramesWithTruths:
    """Return up to NUM_GOLDEN_FRAMES frames of a data set, spread over it, that were not trained on.

    Args:
        data: the data set.
        spec: the preprocessing of the student.
        classes: of the masks.
        trained: `hash_image` of each image that the student learns from, with or without a mask.

    Raises:
        InputError: as `find_cases` and `read_case`.
        UsageError: the student learns from every case.
    """
    cases = [case for case in find_cases(data).cases if hash_image(case.image) not in trained]
    if not cases:
        raise UsageError(
            f"no golden frame can be taken from {data}",
            received="only images that the student learns from (the training split, frames without masks)",
            expected="at least one other",
            action="name the whole data set, or one of other images",
        )
    places = np.linspace(0, len(cases) - 1, min(NUM_GOLDEN_FRAMES, len(cases))).round().astype(int)
    return [read_case(cases[place], spec, classes) for place in places]


def render_golden(spec: PreprocessSpec) -> FramesWithTruths:
    """Return NUM_GOLDEN_FRAMES phantom frames, large enough for the crop box."""
    height, width = PHANTOM_SIZE, PHANTOM_SIZE
    if spec.crop is not None:
        height = max(height, spec.crop.top + spec.crop.height)
        width = max(width, spec.crop.left + spec.crop.width)
    pairs = [
        render_phantom(GOLDEN_SEED + index, height=height, width=width) for index in range(NUM_GOLDEN_FRAMES)
    ]
    return [
        ((image.astype(np.uint32) * spec.white // 255).astype(spec.frame_dtype), mask)
        for image, mask in pairs
    ]
