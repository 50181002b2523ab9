"""The pictures of a report: golden frames, and the cases on which a build differs most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.overlays import Overlay, draw_overlay, encode_png
from edgekd.benchmarks.parity import ParityResult
from edgekd.bundle import Bundle, GoldenFrames, Recording
from edgekd.data import Case, read_case
from edgekd.metrics import count_confusion, score_cases
from edgekd.preprocess import restore_mask
from edgekd.specs import ClassSpec, PreprocessSpec

MAX_PICTURES = 6


def draw_golden(bundle: Bundle, golden: GoldenFrames) -> list[Overlay]:
    """Draw the student's masks and the truths over the first golden frames."""
    manifest = bundle.manifest
    spec, classes = manifest.preprocess, manifest.classes
    pictures: list[Overlay] = []
    for index, frame in enumerate(golden.frames[:MAX_PICTURES]):
        truth = restore_mask(golden.truths[index], frame.shape, spec)
        name = f"golden frame {index}, student"
        pictures.append(_draw(name, frame, golden.masks[index], truth, spec, classes))
    return pictures


def draw_cases(
    cases: Sequence[Case], recordings: Sequence[Recording], results: Sequence[ParityResult], bundle: Bundle
) -> list[Overlay]:
    """Draw the cases on which each build differs most, and the first ones of the data where none differs.

    Args:
        cases: those of the recordings, in their order.
        recordings: one a build.
        results: one a build, in the same order.
        bundle: says how frames are read and masks enlarged.

    Raises:
        InputError: a file cannot be read.
    """
    manifest = bundle.manifest
    spec, classes = manifest.preprocess, manifest.classes
    places = {case.name: index for index, case in enumerate(cases)}
    pictures: list[Overlay] = []
    each = max(1, MAX_PICTURES // max(len(results), 1))
    for recording, result in zip(recordings, results, strict=True):
        worst = [places[case.name] for case in result.worst_cases]
        chosen = (worst or list(range(len(cases))))[:each]
        for index in chosen:
            frame, truth = read_case(cases[index], spec, classes)
            name = f"{cases[index].name}, {recording.source}"
            pictures.append(_draw(name, frame, recording.masks[index], truth, spec, classes))
    return pictures[:MAX_PICTURES]


def _draw(
    name: str,
    frame: npt.NDArray[Any],
    mask: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    spec: PreprocessSpec,
    classes: ClassSpec,
) -> Overlay:
    restored = restore_mask(mask, frame.shape, spec)
    dice = score_cases(count_confusion(truth, restored, classes.count)[None]).dice
    shown = "no Dice, the truth is empty" if np.isnan(dice) else f"Dice {dice:.3f}"
    part = float((restored > 0).mean())
    caption = f"{name}: the mask covers {part:.1%} of the frame, drawn over it with the truth; {shown}"
    picture = draw_overlay(frame, restored, truth=truth, frame_order=spec.frame_order)
    return Overlay(f"{name}: {shown}", caption, encode_png(picture))
