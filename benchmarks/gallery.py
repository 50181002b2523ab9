"""The pictures of a report: golden frames or cases of a data set, each with layers to flip between.

A picture is the bare frame once, as JPEG, and a transparent layer a view: the student's mask, the engine's,
the truth, and the pixels in which engine and student differ. The page shows one layer at a time.
"""

from __future__ import annotations

import dataclasses
import io
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
    draw_overlay,
    find_contour,
    get_class_color,
)
from edgekd.benchmarks.parity import ParityResult
from edgekd.bundle import Bundle, JudgedFrames, Recording
from edgekd.data import Case, read_case
from edgekd.metrics import count_confusion, count_confusions, score_cases, summarise_cases
from edgekd.preprocess import restore_mask
from edgekd.specs import ClassSpec, PreprocessSpec

MAX_PICTURES = 6
MAX_SIDE = 768
"""Larger frames are shown reduced: a report of many pictures must open on a phone."""
DIFFERENCE_COLOR: Color = (255, 64, 64)
JPEG_QUALITY = 88
EVERY_BUILD = "every build that ran"

Masks = npt.NDArray[np.uint8]


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
    """A picture with views to flip between; ``png`` shows the first view over the frame.

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
        name = results[worst].candidate if results[worst].agreements[index] < 1 else EVERY_BUILD
        frame = golden.frames[index]
        masks = {"engine": found[index], "student": golden.masks[index]}
        restored = {view: restore_mask(mask, frame.shape, spec) for view, mask in masks.items()}
        truth = restore_mask(golden.truths[index], frame.shape, spec)
        pictures.append(_draw(f"golden frame {index}, {name}", frame, restored, truth, spec, classes))
    return pictures


def draw_cases(
    cases: Sequence[Case],
    recordings: Sequence[Recording],
    results: Sequence[ParityResult],
    bundle: Bundle,
    reference: Recording,
) -> list[Overlay]:
    """Draw the cases on which each build differs most from the student.

    Builds that differ nowhere share pictures: from the case with the lowest Dice to that with the highest.

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
    agreeing = [result.candidate for result in results if not result.worst_cases]
    each = max(1, MAX_PICTURES // (len(results) - len(agreeing) + bool(agreeing)))
    chosen: list[tuple[int, str, Recording]] = []
    for recording, result in zip(recordings, results, strict=True):
        worst = result.worst_cases[:each]
        chosen += [(places[case.name], result.candidate, recording) for case in worst]
    if agreeing:
        name = EVERY_BUILD if len(agreeing) == len(results) else ", ".join(agreeing)
        chosen += [(index, name, reference) for index in _spread_cases(reference, classes.count, each)]
    pictures: list[Overlay] = []
    for index, name, recording in chosen[:MAX_PICTURES]:
        frame, truth = read_case(cases[index], spec, classes)
        masks = {"engine": recording.masks[index], "student": reference.masks[index]}
        restored = {view: restore_mask(mask, frame.shape, spec) for view, mask in masks.items()}
        pictures.append(_draw(f"{cases[index].name}, {name}", frame, restored, truth, spec, classes))
    return pictures


def _spread_cases(recording: Recording, num_classes: int, count: int) -> list[int]:
    """Return up to ``count`` cases by rising Dice, evenly from the lowest to the highest one.

    Cases without anything to find are taken where there is no other.
    """
    sums = summarise_cases(count_confusions(recording.truths, recording.masks, num_classes))
    dice, has_truth = sums[:, -4], sums[:, -3] > 0
    order = [int(index) for index in np.argsort(dice, kind="stable") if has_truth[index]]
    order = order or list(range(len(sums)))
    steps = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[step] for step in steps]


def _draw(
    name: str,
    frame: npt.NDArray[Any],
    masks: dict[str, Masks],
    truth: Masks,
    spec: PreprocessSpec,
    classes: ClassSpec,
) -> LayeredOverlay:
    base = draw_overlay(frame, np.zeros(frame.shape[:2], np.uint8), frame_order=spec.frame_order)
    base.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    layers = [
        Layer(view, _describe_mask(name, view, mask, truth, classes), _draw_layer(mask, base.size))
        for view, mask in masks.items()
    ]
    layers.append(Layer("truth", f"{name}: the annotation", _draw_layer(truth, base.size, TRUTH_COLOR)))
    differing = masks["engine"] != masks["student"]
    caption = f"{name}: {float(differing.mean()):.3%} of the pixels differ between engine and student"
    layer = _draw_layer(differing.astype(np.uint8), base.size, DIFFERENCE_COLOR, solid=True)
    layers.append(Layer("difference", caption, layer))
    first_layer = Image.open(io.BytesIO(layers[0].png)).convert("RGBA")
    shown = Image.alpha_composite(base.convert("RGBA"), first_layer).convert("RGB")
    score = layers[0].caption.rpartition("; ")[2]
    return LayeredOverlay(
        name=f"{name}: {score}",
        caption=layers[0].caption,
        png=_encode(shown, "PNG"),
        frame_jpeg=_encode(base, "JPEG", quality=JPEG_QUALITY),
        layers=tuple(layers),
    )


def _describe_mask(name: str, view: str, mask: Masks, truth: Masks, classes: ClassSpec) -> str:
    dice = score_cases(count_confusion(truth, mask, classes.count)[None]).dice
    shown = "no Dice, the truth is empty" if np.isnan(dice) else f"Dice {dice:.3f} at frame size"
    return f"{name}: the {view}'s mask covers {float((mask > 0).mean()):.1%} of the frame; {shown}"


def _draw_layer(
    mask: Masks, size: tuple[int, int], color: Color | None = None, *, solid: bool = False
) -> bytes:
    """Return a transparent PNG of a mask: tint and contour of each class, or all in one colour."""
    enlarged = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    pixels = np.zeros((*enlarged.shape, 4), np.uint8)
    for class_id in np.unique(enlarged[enlarged > 0]):
        region, shade = enlarged == class_id, color or get_class_color(int(class_id))
        pixels[region] = (*shade, 200 if solid else round(255 * TINT))
        contour = find_contour(region)
        # Two pixels wide, so that it is seen on a small screen.
        contour |= find_contour(region & ~contour)
        pixels[contour] = (*shade, 255)
    return _encode(Image.fromarray(pixels, "RGBA"), "PNG", optimize=True)


def _encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
