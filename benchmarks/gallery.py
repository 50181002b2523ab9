"""The pictures of a report: golden frames or cases of a data set, each with layers to flip between.

A picture is the bare frame once, as JPEG, and a transparent layer a view: the student's mask, the engine's,
the truth, and the pixels in which engine and student differ. The page shows one layer at a time.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd.benchmarks.golden import GoldenResult
from edgekd.benchmarks.overlays import (
    TINT,
    TRUTH_COLOR,
    Color,
    Overlay,
    add_legend,
    draw_overlay,
    find_contour,
    get_class_color,
    list_legend,
)
from edgekd.benchmarks.parity import ParityResult
from edgekd.bundle import Bundle, JudgedFrames, Recording
from edgekd.data import Case, read_case
from edgekd.metrics import count_confusion, count_confusions, score_cases, summarise_cases
from edgekd.preprocess import restore_mask
from edgekd.specs import ClassSpec, PreprocessSpec

MAX_PICTURES = 6
MAX_DIFFERING = 4
"""Of them, where there is something else to show."""
MAX_SIDE = 768
"""Larger frames are shown reduced: a report of many pictures must open on a phone."""
DIFFERENCE_COLOR: Color = (255, 64, 64)
DIFFERENCE_TINT = 0.8
JPEG_QUALITY = 88
EVERY_BUILD = "every build that ran"

Mask = npt.NDArray[np.uint8]
"""Class ids of one frame."""
Masks = npt.NDArray[np.uint8]
"""Those of N frames."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One view of a picture.

    Attributes:
        name: of the view, such as ``engine``.
        caption: what is seen, for people who cannot.
        png: transparent, of the picture's size.
    """

    name: str
    caption: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class LayeredOverlay(Overlay):
    """A picture with views to flip between; ``png`` shows the first view and the truth, with a legend.

    Attributes:
        frame_jpeg: the bare frame.
        layers: the views, the one to show first at the front.
    """

    frame_jpeg: bytes = b""
    layers: tuple[Layer, ...] = ()


def draw_golden(
    bundle: Bundle, answers: Sequence[tuple[JudgedFrames, Masks]], results: Sequence[GoldenResult]
) -> list[Overlay]:
    """Draw the first golden frames, each with the answer that differs most from the student's.

    Args:
        bundle: says how masks are enlarged.
        answers: the frames and the engine's masks (N, h, w) of them, one pair a build.
        results: one a build, in the same order.
    """
    manifest = bundle.manifest
    spec, classes = manifest.preprocess, manifest.classes
    pictures: list[Overlay] = []
    for index in range(min(MAX_PICTURES, *(result.num_images for result in results))):
        worst = min(range(len(results)), key=lambda which: results[which].agreements[index])
        golden, found = answers[worst]
        frame = golden.frames[index]
        # A build for frames of one size has golden frames of its own.
        shared = all(other.frames[index].shape == frame.shape for other, _ in answers)
        name = EVERY_BUILD if shared and results[worst].agreements[index] == 1 else results[worst].candidate
        masks = {"engine": found[index], "student": golden.masks[index]}
        truth = restore_mask(golden.truths[index], frame.shape, spec)
        pictures.append(_draw(f"golden frame {index}, {name}", frame, masks, truth, spec, classes))
    return pictures


def draw_cases(
    cases: Sequence[Case],
    recordings: Sequence[Recording],
    results: Sequence[ParityResult],
    bundle: Bundle,
    reference: Recording,
) -> list[Overlay]:
    """Draw the cases on which builds differ most from the student, and some on which none does.

    The latter are spread from the lowest Dice to the highest, and are more where few cases differ.

    Args:
        cases: those of the recordings, in their order.
        recordings: one a build.
        results: one a build, in the same order.
        bundle: says how frames are read and masks enlarged.
        reference: the student's recording.

    Raises:
        InputError: a file cannot be read.
    """
    manifest = bundle.manifest
    spec, classes = manifest.preprocess, manifest.classes
    places = {case.name: index for index, case in enumerate(cases)}
    # The worst case of each build first, then the second of each, and so on.
    ranked = itertools.zip_longest(
        *(
            [(places[case.name], result.candidate, recording) for case in result.worst_cases]
            for recording, result in zip(recordings, results, strict=True)
        )
    )
    differing = [one for rank in ranked for one in rank if one is not None]
    equal = np.all([(one.masks == reference.masks).all(axis=(1, 2)) for one in recordings], axis=0)
    room = MAX_PICTURES - min(MAX_DIFFERING, len(differing))
    agreeing = _spread_cases(reference, equal, classes.count, room)
    chosen = sorted(differing[: MAX_PICTURES - len(agreeing)], key=lambda one: one[1])
    chosen += [(index, EVERY_BUILD, reference) for index in agreeing]
    pictures: list[Overlay] = []
    for index, name, recording in chosen:
        frame, truth = read_case(cases[index], spec, classes)
        masks = {"engine": recording.masks[index], "student": reference.masks[index]}
        title = f"{cases[index].name}, {name}"
        pictures.append(_draw(title, frame, masks, truth, spec, classes, "at frame size"))
    return pictures


def _spread_cases(
    recording: Recording, is_shown: npt.NDArray[np.bool_], num_classes: int, count: int
) -> list[int]:
    """Return up to ``count`` of the cases ``is_shown`` (N,), evenly from the lowest Dice to the highest.

    Cases without anything to find are taken where there is no other.
    """
    sums = summarise_cases(count_confusions(recording.truths, recording.masks, num_classes))
    dice, has_truth = sums[:, -4], sums[:, -3] > 0
    order = [int(index) for index in np.argsort(dice, kind="stable") if is_shown[index] and has_truth[index]]
    order = order or [int(index) for index in np.flatnonzero(is_shown)]
    steps = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[step] for step in steps]


def _draw(
    name: str,
    frame: npt.NDArray[Any],
    answers: dict[str, Mask],
    truth: Mask,
    spec: PreprocessSpec,
    classes: ClassSpec,
    size: str = "",
) -> LayeredOverlay:
    """Draw the engine's and the student's mask (h, w) over a frame, and its truth (H, W).

    ``size`` says at which size Dice is taken.
    """
    masks = {view: restore_mask(mask, frame.shape, spec) for view, mask in answers.items()}
    base = draw_overlay(frame, np.zeros(frame.shape[:2], np.uint8), frame_order=spec.frame_order)
    base.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    layers = [
        Layer(view, _describe_mask(name, view, mask, truth, classes, size), _draw_layer(mask, base.size))
        for view, mask in masks.items()
    ]
    layers.append(Layer("truth", f"{name}: the annotation", _draw_layer(truth, base.size, TRUTH_COLOR)))
    differing = masks["engine"] != masks["student"]
    count = np.count_nonzero(differing)
    caption = f"{name}: {count} of {differing.size} pixels differ between engine and student"
    layer = _draw_layer(differing.astype(np.uint8), base.size, DIFFERENCE_COLOR, tint=DIFFERENCE_TINT)
    layers.append(Layer("difference", caption, layer))
    shown = base.convert("RGBA")
    for png in (layers[0].png, _draw_layer(truth, base.size, TRUTH_COLOR, tint=0)):
        shown = Image.alpha_composite(shown, Image.open(io.BytesIO(png)).convert("RGBA"))
    shown = add_legend(shown.convert("RGB"), list_legend(classes, has_truth=True))
    score = layers[0].caption.rpartition("; ")[2]
    return LayeredOverlay(
        name=f"{name}: {score}",
        caption=layers[0].caption,
        png=_encode(shown, "PNG"),
        frame_jpeg=_encode(base, "JPEG", quality=JPEG_QUALITY),
        layers=tuple(layers),
    )


def _describe_mask(name: str, view: str, mask: Mask, truth: Mask, classes: ClassSpec, size: str) -> str:
    dice = score_cases(count_confusion(truth, mask, classes.count)[None]).dice
    shown = "no Dice, the truth is empty" if np.isnan(dice) else f"Dice {dice:.3f} {size}".rstrip()
    return f"{name}: the {view}'s mask covers {float((mask > 0).mean()):.1%} of the frame; {shown}"


def _draw_layer(
    mask: Mask, size: tuple[int, int], color: Color | None = None, *, tint: float = TINT
) -> bytes:
    """Return a transparent PNG of a mask: tint and contour of each class, or all in one colour."""
    enlarged = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    pixels = np.zeros((*enlarged.shape, 4), np.uint8)
    for class_id in np.unique(enlarged[enlarged > 0]):
        region, shade = enlarged == class_id, color or get_class_color(int(class_id))
        pixels[region] = (*shade, round(255 * tint))
        contour = find_contour(region)
        # Two pixels wide, so that it is seen on a small screen.
        contour |= find_contour(region & ~contour)
        pixels[contour] = (*shade, 255)
    return _encode(Image.fromarray(pixels, "RGBA"), "PNG", optimize=True)


def _encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
