"""The phantom's probe geometry, scan conversion, and what a machine burns into the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgekd.data.phantom_shapes import FloatArray

Geometry = Literal["linear", "sector"]
NOTES = (
    "RT 10:00",
    "LT UOQ",
    "RT LOQ",
    "LT 3 N+2",
    "TRV",
    "SAG",
    "RT AXILLA",
    "GEN",
    "B 12.0 MHz",
    "MI 0.9",
    "D 4.0",
)


@dataclass(frozen=True)
class Probe:
    """Where the scan lines run.

    Attributes:
        geometry: parallel lines, or lines from a curved face.
        depth_mm: length of the lines.
        width_mm: width of the face of a linear probe, or of the picture's widest part.
        face_radius_mm: radius of the curved face.
        half_angle: half the opening angle in radians.
    """

    geometry: Geometry
    depth_mm: float
    width_mm: float
    face_radius_mm: float
    half_angle: float

    @property
    def top_mm(self) -> float:
        """Depth of the picture's upper edge: above 0 where a curved face bulges."""
        return (
            0.0 if self.geometry == "linear" else -self.face_radius_mm * (1 - float(np.cos(self.half_angle)))
        )


def draw_probe(rng: np.random.Generator, aspect: float) -> Probe:
    """Return a random probe for pictures of height over width ``aspect``: linear in 7 of 10 cases."""
    if rng.random() < 0.7:
        width_mm = float(rng.uniform(33, 42))
        return Probe("linear", width_mm * aspect, width_mm, 0.0, 0.0)
    depth_mm, radius_mm = float(rng.uniform(32, 45)), float(rng.uniform(8, 35))
    angle = float(rng.uniform(0.42, 0.62))
    return Probe("sector", depth_mm, 2 * (radius_mm + depth_mm) * float(np.sin(angle)), radius_mm, angle)


def locate_samples(
    probe: Probe, rows: int, beams: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return where the samples of all scan lines lie.

    Returns:
        x and z in mm, (rows, beams) float32 each; the depth along the line of each row, (rows,); and the
        distance between neighbouring beams at each row, (rows,).
    """
    depths = np.linspace(0, probe.depth_mm, rows, dtype=np.float32)
    if probe.geometry == "linear":
        lateral = np.linspace(-probe.width_mm / 2, probe.width_mm / 2, beams, dtype=np.float32)
        x, z = np.broadcast_arrays(lateral[None, :], depths[:, None])
        steps = np.full(rows, probe.width_mm / (beams - 1), np.float32)
        return x.copy(), z.copy(), depths, steps
    angles = np.linspace(-probe.half_angle, probe.half_angle, beams, dtype=np.float32)
    radii = depths + np.float32(probe.face_radius_mm)
    x = radii[:, None] * np.sin(angles)[None, :]
    z = radii[:, None] * np.cos(angles)[None, :] - np.float32(probe.face_radius_mm)
    steps = radii * np.float32(2 * probe.half_angle / (beams - 1))
    return x, z, depths, steps


def locate_pixels(probe: Probe, height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Return x and z in mm of the picture's pixel centres, (height, width) float32 each.

    Pixels are square; a field that does not fill the picture lies in its middle.
    """
    span_mm = probe.depth_mm - probe.top_mm
    pixel_mm = max(probe.width_mm / width, span_mm / height)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * np.float32(pixel_mm)
    z = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) * np.float32(pixel_mm)
    z += np.float32(probe.top_mm + span_mm / 2)
    columns, rows = np.meshgrid(x, z)
    return columns, rows


def convert_scan(
    lines: FloatArray, probe: Probe, x_mm: FloatArray, z_mm: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the grey values of scan lines at the picture's pixels, bilinear, and where the field of view is.

    Args:
        lines: (rows, beams) float32.
        probe: where the lines run.
        x_mm, z_mm: the pixels, as `locate_pixels` gives them.

    Returns:
        (height, width) float32, 0 outside the field; (height, width) bool.
    """
    rows, beams = lines.shape
    depth, across = _locate_in_lines(probe, x_mm, z_mm)
    row, column = depth / np.float32(probe.depth_mm) * (rows - 1), (across + np.float32(0.5)) * (beams - 1)
    visible = (row >= 0) & (row <= rows - 1) & (column >= 0) & (column <= beams - 1)
    row, column = row[visible], column[visible]
    top = np.minimum(row.astype(np.int32), rows - 2)
    left = np.minimum(column.astype(np.int32), beams - 2)
    v, u = row - top, column - left
    upper = lines[top, left] * (1 - u) + lines[top, left + 1] * u
    lower = lines[top + 1, left] * (1 - u) + lines[top + 1, left + 1] * u
    picture = np.zeros(x_mm.shape, np.float32)
    picture[visible] = upper * (1 - v) + lower * v
    return picture, visible


def _locate_in_lines(probe: Probe, x_mm: FloatArray, z_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return each pixel's depth along its line in mm, and the line's place from -0.5 to 0.5."""
    if probe.geometry == "linear":
        return z_mm, x_mm / np.float32(probe.width_mm)
    from_apex = z_mm + np.float32(probe.face_radius_mm)
    depth = np.hypot(x_mm, from_apex) - np.float32(probe.face_radius_mm)
    return depth, np.arctan2(x_mm, from_apex) / np.float32(2 * probe.half_angle)


def burn_in(picture: NDArray[np.uint8], probe: Probe, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the picture with a depth scale, an orientation mark and, mostly, notes: (H, W) uint8.

    The font is the bitmap font inside Pillow, which looks the same everywhere.
    """
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default_imagefont()
    height, width = picture.shape
    brightness = int(rng.integers(150, 256))
    if rng.random() < 0.7:
        _draw_depth_scale(draw, probe, height, width, brightness)
    if rng.random() < 0.6:
        draw.rectangle((2, 2, 6, 6), outline=brightness)
    for _ in range(int(rng.integers(0, 3))):
        note = NOTES[int(rng.integers(len(NOTES)))]
        x = int(rng.uniform(0.02, 0.75) * width)
        y = int(rng.choice((rng.uniform(0.0, 0.08), rng.uniform(0.72, 0.94))) * height)
        draw.text((x, y), note, fill=brightness, font=font)
    return np.asarray(canvas)


def _draw_depth_scale(
    draw: ImageDraw.ImageDraw, probe: Probe, height: int, width: int, brightness: int
) -> None:
    span_mm = probe.depth_mm - probe.top_mm
    pixel_mm = max(probe.width_mm / width, span_mm / height)
    surface = height / 2 - (probe.top_mm + span_mm / 2) / pixel_mm
    for tick_mm in range(0, int(probe.depth_mm) + 1, 5):
        y = int(surface + tick_mm / pixel_mm)
        length = 5 if tick_mm % 10 == 0 else 2
        draw.line((width - 1 - length, y, width - 1, y), fill=brightness)
