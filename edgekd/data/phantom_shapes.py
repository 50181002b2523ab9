"""Star-shaped outlines for the phantom: ovals, lobulated and spiculated regions, in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
Outline = Literal["oval", "lobulated", "spiculated"]
# Harmonics (of the angle) and their amplitudes relative to the radius.
_HARMONICS: dict[Outline, tuple[range, float]] = {
    "oval": (range(2, 4), 0.03),
    "lobulated": (range(2, 6), 0.10),
    "spiculated": (range(2, 15), 0.055),
}


@dataclass(frozen=True)
class Shape:
    """An ellipse whose radius varies with the angle.

    Attributes:
        x_mm, z_mm: centre, lateral and in depth.
        a_mm, b_mm: semi-axes before the variation.
        tilt: rotation in radians.
        harmonics: rows of (order, amplitude, phase); the radius is multiplied by
            1 + sum of amplitude·cos(order·angle + phase).
    """

    x_mm: float
    z_mm: float
    a_mm: float
    b_mm: float
    tilt: float
    harmonics: tuple[tuple[int, float, float], ...] = ()

    @property
    def reach_mm(self) -> float:
        """An upper bound of the radius."""
        return max(self.a_mm, self.b_mm) * (1 + sum(abs(amplitude) for _, amplitude, _ in self.harmonics))


def draw_shape(
    rng: np.random.Generator, x_mm: float, z_mm: float, a_mm: float, b_mm: float, outline: Outline
) -> Shape:
    """Return a shape of the given kind at a place, with random tilt and harmonics."""
    orders, amplitude = _HARMONICS[outline]
    harmonics = tuple(
        (order, float(amplitude * rng.uniform(0.1, 1.0)), float(rng.uniform(0, 2 * np.pi)))
        for order in orders
    )
    return Shape(x_mm, z_mm, a_mm, b_mm, float(rng.uniform(-0.4, 0.4)), harmonics)


def measure_radius(shape: Shape, x_mm: FloatArray, z_mm: FloatArray) -> FloatArray:
    """Return the radius of points relative to the outline: below 1 inside, 1 on it.

    Args:
        shape: the region.
        x_mm, z_mm: coordinates of the points, of equal shape.
    """
    cosine, sine = np.float32(np.cos(shape.tilt)), np.float32(np.sin(shape.tilt))
    dx, dz = x_mm - np.float32(shape.x_mm), z_mm - np.float32(shape.z_mm)
    u = (cosine * dx + sine * dz) / np.float32(shape.a_mm)
    v = (cosine * dz - sine * dx) / np.float32(shape.b_mm)
    angle = np.arctan2(v, u)
    factor = np.ones_like(angle)
    for order, amplitude, phase in shape.harmonics:
        factor += np.float32(amplitude) * np.cos(np.float32(order) * angle + np.float32(phase))
    return np.hypot(u, v) / factor


def find_neighbourhood(
    shape: Shape, x_mm: FloatArray, z_mm: FloatArray, stretch: float
) -> tuple[NDArray[np.intp], ...]:
    """Return the indices of the points within ``stretch`` times the shape's reach, as a box."""
    limit = np.float32(shape.reach_mm * stretch)
    return np.nonzero(
        (np.abs(x_mm - np.float32(shape.x_mm)) < limit) & (np.abs(z_mm - np.float32(shape.z_mm)) < limit)
    )


def fade_border(radius: FloatArray, softness: float) -> FloatArray:
    """Return 1 inside, 0 outside, and a smooth step of full width ``2·softness`` around radius 1."""
    position = np.clip((np.float32(1 + softness) - radius) / np.float32(2 * softness), 0, 1)
    return position * position * (3 - 2 * position)
