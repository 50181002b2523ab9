"""The pictures of a report: golden frames and the worst cases, each with layers to flip between.

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
from edgekd.metrics import count_confusion, score_cases
from edgekd.preprocess import restore_mask
from edgekd.specs import ClassSpec, PreprocessSpec

MAX_PICTURES = 6
MAX_SIDE = 768
"""Larger frames are shown reduced: a report of many pictures must open on a phone."""
DIFFERENCE_COLOR: Color = (255, 64, 64)
JPEG_QUALITY = 88

Mask = npt.NDArray[np.uint8]


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


def draw_golden(bundle: Bundle, golden: JudgedFrames) -> list[Overlay]:
    """Draw the student's masks and the truths over the first golden frames."""
    manifest = bundle.manifest
    spec, classes = manifest.preprocess, manifest.classes
    pictures: list[Overlay] = []
    for index, frame in enumerate(golden.frames[:MAX_PICTURES]):
        truth = restore_mask(golden.truths[index], frame.shape, spec)
        masks = {"student": restore_mask(golden.masks[index], frame.shape, spec)}
        pictures.append(_draw(f"golden frame {index}", frame, masks, truth, spec, classes))
    return pictures


def draw_cases(
    cases: Sequence[Case],
    recordings: Sequence[Recording],
    results: Sequence[ParityResult],
    bundle: Bundle,
    reference: Recording | None = None,
) -> list[Overlay]:
    """Draw the cases on which each build differs most, and the first ones of the data where none differs.

    Args:
        cases: those of the recordings, in their order.
        recordings: one a build.
        results: one a build, in the same order.
        bundle: says how frames are read and masks enlarged.
        reference: the student's recording; with it a picture shows the student and the difference too.

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
            masks = {"engine": restore_mask(recording.masks[index], frame.shape, spec)}
            if reference is not None:
                masks["student"] = restore_mask(reference.masks[index], frame.shape, spec)
            pictures.append(
                _draw(f"{cases[index].name}, {recording.source}", frame, masks, truth, spec, classes)
            )
    return pictures[:MAX_PICTURES]


def _draw(
    name: str,
    frame: npt.NDArray[Any],
    masks: dict[str, Mask],
    truth: Mask,
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
    if len(masks) > 1:
        first, second = masks.values()
        caption = (
            f"{name}: {float((first != second).mean()):.3%} of the pixels differ between engine and student"
        )
        differing = (first != second).astype(np.uint8)
        layers.append(
            Layer("difference", caption, _draw_layer(differing, base.size, DIFFERENCE_COLOR, solid=True))
        )
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


def _describe_mask(name: str, view: str, mask: Mask, truth: Mask, classes: ClassSpec) -> str:
    dice = score_cases(count_confusion(truth, mask, classes.count)[None]).dice
    shown = "no Dice, the truth is empty" if np.isnan(dice) else f"Dice {dice:.3f}"
    return f"{name}: the {view}'s mask covers {float((mask > 0).mean()):.1%} of the frame; {shown}"


def _draw_layer(
    mask: Mask, size: tuple[int, int], color: Color | None = None, *, solid: bool = False
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
