"""Masks drawn over their frames: tint, contour, truth and a legend; the one home of these pictures."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from edgekd.specs import ClassSpec

Color = tuple[int, int, int]

CLASS_COLORS: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
    (240, 228, 66),
)
"""Colours of the foreground classes in turn: the colour-blind safe set of Okabe and Ito (2008)."""
TRUTH_COLOR: Color = (0, 230, 140)
TINT = 0.28
MIN_SIDE = 384
"""Smaller frames are enlarged by a whole factor, so that a contour is thin beside what it surrounds."""


@dataclasses.dataclass(frozen=True)
class Overlay:
    """A picture for a report.

    Attributes:
        name: of the case.
        caption: what is seen, for people who cannot.
        png: the picture.
    """

    name: str
    caption: str
    png: bytes


def draw_overlay(
    frame: npt.NDArray[Any],
    mask: npt.NDArray[np.uint8],
    *,
    truth: npt.NDArray[np.uint8] | None = None,
    frame_order: Literal["rgb", "bgr"] = "rgb",
) -> Image.Image:
    """Draw a mask as tint and contour over its frame, and the truth as a contour where given.

    Args:
        frame: (H, W) or (H, W, 3), uint8, or uint16 (shown from 0 to its brightest pixel).
        mask: (H, W) uint8 class ids; 0 is not drawn.
        truth: (H, W) uint8 class ids.
        frame_order: order of the channels of a colour frame.

    Returns:
        RGB, enlarged by a whole factor where the frame is small.
    """
    factor = max(1, -(-MIN_SIDE // max(frame.shape[:2])))
    size = (frame.shape[1] * factor, frame.shape[0] * factor)
    shown = _convert_to_rgb(frame, frame_order).resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(shown, np.float64).copy()
    large_mask = mask.repeat(factor, 0).repeat(factor, 1)
    for class_id in np.unique(large_mask[large_mask > 0]):
        color, region = get_class_color(int(class_id)), large_mask == class_id
        pixels[region] = (1 - TINT) * pixels[region] + TINT * np.array(color)
    for class_id in np.unique(large_mask[large_mask > 0]):
        pixels[find_contour(large_mask == class_id)] = get_class_color(int(class_id))
    if truth is not None:
        large_truth = truth.repeat(factor, 0).repeat(factor, 1)
        for class_id in np.unique(large_truth[large_truth > 0]):
            pixels[find_contour(large_truth == class_id)] = TRUTH_COLOR
    return Image.fromarray(pixels.round().astype(np.uint8))


def find_contour(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of a region (H, W) that touch what is not in it; beyond the frame is outside."""
    padded = np.pad(region, 1, constant_values=False)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inside


def get_class_color(class_id: int) -> Color:
    """Return the colour of a foreground class; ids above the palette take its colours again."""
    return CLASS_COLORS[(class_id - 1) % len(CLASS_COLORS)]


def list_legend(classes: ClassSpec, *, has_truth: bool) -> list[tuple[str, Color]]:
    """Return name and colour of everything that ``draw_overlay`` draws."""
    entries = [
        (name, get_class_color(class_id)) for class_id, name in enumerate(classes.names) if class_id > 0
    ]
    return [*entries, ("truth (contour)", TRUTH_COLOR)] if has_truth else entries


def add_legend(picture: Image.Image, entries: Sequence[tuple[str, Color]]) -> Image.Image:
    """Return the picture with a strip below it that names the colours, in as many lines as needed."""
    font = ImageFont.load_default()
    line_height, margin, patch = 18, 6, 10
    places: list[tuple[int, int]] = []
    x, y = margin, 0
    for name, _ in entries:
        width = patch + margin + round(font.getlength(name)) + 2 * margin
        if x > margin and x + width > picture.width:
            x, y = margin, y + line_height
        places.append((x, y))
        x += width
    canvas = Image.new("RGB", (picture.width, picture.height + y + line_height), (24, 24, 27))
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for (name, color), (left, line) in zip(entries, places, strict=True):
        top = picture.height + line + (line_height - patch) // 2
        draw.rectangle((left, top, left + patch, top + patch), fill=color)
        draw.text((left + patch + margin, top - 1), name, fill=(228, 228, 231), font=font)
    return canvas


def encode_png(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _convert_to_rgb(frame: npt.NDArray[Any], order: Literal["rgb", "bgr"]) -> Image.Image:
    if frame.dtype != np.uint8:
        brightest = max(int(frame.max()), 1)
        frame = (frame.astype(np.float64) * (255.0 / brightest)).round().astype(np.uint8)
    if frame.ndim == 2:
        frame = np.stack([frame] * 3, axis=-1)
    elif order == "bgr":
        frame = frame[..., ::-1]
    return Image.fromarray(np.ascontiguousarray(frame))
