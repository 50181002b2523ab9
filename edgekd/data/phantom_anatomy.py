"""What lies under the phantom's probe: a simulated patient's layers, lesions and what resembles lesions.

Lengths are in millimetres, echo levels in decibels relative to glandular tissue, attenuation in decibels a
millimetre of depth (both ways) beyond what the time-gain curve compensates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgekd.data.phantom_shapes import Outline, Shape, draw_shape

Kind = Literal[
    "cyst", "solid", "infiltrating", "isoechoic", "hyperechoic", "fat lobule", "vessel", "dense island"
]
Wave = tuple[float, float, float]
Place = tuple[float, float, float]
EMPTY_FRAME_SHARE = 0.08
LESION_SIZES, LOOKALIKE_SIZES = (0.11, 0.27), (0.07, 0.17)
LESION_SHARES: dict[Kind, float] = {
    "cyst": 0.25,
    "solid": 0.31,
    "infiltrating": 0.26,
    "isoechoic": 0.10,
    "hyperechoic": 0.08,
}
LOOKALIKE_SHARES: dict[Kind, float] = {"fat lobule": 0.5, "vessel": 0.25, "dense island": 0.25}


@dataclass(frozen=True)
class _Recipe:
    """Ranges from which a region of one kind is drawn; see `Region` for the units."""

    outlines: tuple[Outline, ...]
    echo_db: tuple[float, float]
    attenuation_db_mm: tuple[float, float]
    softness: tuple[float, float]
    rim_db: tuple[float, float]
    flatness: tuple[float, float] = (0.5, 0.95)


# A lesion shows in what it does to the tissue below and in its border; a lookalike of the same grey
# level has a capsule or no border at all, and leaves the tissue below as it is.
_RECIPES: dict[Kind, _Recipe] = {
    "cyst": _Recipe(("oval",), (-30, -20), (-1.3, -0.8), (0.02, 0.07), (0, 2)),
    "solid": _Recipe(("oval", "lobulated"), (-18, -10), (-0.9, -0.5), (0.05, 0.14), (0, 1)),
    "infiltrating": _Recipe(("spiculated",), (-19, -10), (0.8, 1.6), (0.10, 0.25), (0, 1), (0.7, 1.3)),
    "isoechoic": _Recipe(("oval", "lobulated"), (-7, -4), (-0.9, -0.5), (0.04, 0.10), (2, 4)),
    "hyperechoic": _Recipe(("oval", "lobulated"), (8, 12), (0.15, 0.35), (0.04, 0.12), (0, 1)),
    "fat lobule": _Recipe(("oval", "lobulated"), (-15, -6), (0, 0), (0.02, 0.06), (7, 12)),
    "vessel": _Recipe(("oval",), (-28, -14), (0, 0), (0.05, 0.12), (1, 5), (0.14, 0.3)),
    "dense island": _Recipe(("lobulated",), (2, 6), (0, 0), (0.3, 0.6), (0, 0), (0.4, 0.8)),
}


@dataclass(frozen=True)
class Region:
    """A shape that differs from the tissue around it.

    Attributes:
        kind: what it stands for.
        shape: the outline.
        echo_db: echo level inside, relative to the tissue there.
        attenuation_db_mm: attenuation inside; negative brightens what lies below, positive shadows it.
        softness: half the width of the border, relative to the radius.
        rim_db: echo level of the border line, relative to the tissue there.
    """

    kind: Kind
    shape: Shape
    echo_db: float
    attenuation_db_mm: float
    softness: float
    rim_db: float


@dataclass(frozen=True)
class Shadow:
    """A strip of lost signal below a short reflector: a rib, a calcification, a bubble in the gel.

    Attributes:
        x_mm, z_mm: where the reflector lies.
        half_width_mm: half its length.
        loss_db: signal lost below it.
        reflector_db: its own echo level.
    """

    x_mm: float
    z_mm: float
    half_width_mm: float
    loss_db: float
    reflector_db: float


@dataclass(frozen=True)
class Anatomy:
    """Everything that the frames of one patient share.

    Attributes:
        layer_depths_mm: mean depth of the four borders below skin, fat, gland and deep fat.
        layer_waves: for each border its (wavelength in mm, amplitude in mm, phase in radians).
        layer_echo_db: echo level of skin, fat, gland, deep fat and muscle.
        streak_db, blotch_db: strength of the fibre texture and of the slow variation.
        texture_seed: seed of both textures.
        lesions: regions that belong to the truth, at most three.
        lookalikes: regions that do not.
        shadows: strips of lost signal.
    """

    layer_depths_mm: tuple[float, ...]
    layer_waves: tuple[tuple[Wave, ...], ...]
    layer_echo_db: tuple[float, ...]
    streak_db: float
    blotch_db: float
    texture_seed: int
    lesions: tuple[Region, ...]
    lookalikes: tuple[Region, ...]
    shadows: tuple[Shadow, ...]


def draw_anatomy(rng: np.random.Generator, width_mm: float, depth_mm: float) -> Anatomy:
    """Return a random anatomy for a field of view of the given size; lateral position 0 is its middle."""
    depths = depth_mm * np.cumsum(rng.uniform((0.03, 0.10, 0.26, 0.06), (0.06, 0.24, 0.46, 0.14)))
    num_lesions = int(rng.choice((1, 2, 3), p=(0.72, 0.20, 0.08)))
    field = (width_mm, depth_mm)
    places = _draw_places(rng, num_lesions, LESION_SIZES, field, ())
    others = _draw_places(rng, int(rng.integers(1, 5)), LOOKALIKE_SIZES, field, places)
    return Anatomy(
        layer_depths_mm=tuple(depths.tolist()),
        layer_waves=tuple(_draw_waves(rng, width_mm, depth_mm) for _ in depths),
        layer_echo_db=tuple(rng.uniform((4, -11, -2, -11, -13), (9, -4, 3, -4, -5)).tolist()),
        streak_db=float(rng.uniform(2.0, 5.5)),
        blotch_db=float(rng.uniform(1.0, 3.0)),
        texture_seed=int(rng.integers(2**32)),
        lesions=tuple(_draw_region(rng, LESION_SHARES, place) for place in places),
        lookalikes=tuple(_draw_region(rng, LOOKALIKE_SHARES, place) for place in others),
        shadows=_draw_shadows(rng, width_mm, depth_mm),
    )


def move_probe(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Return the anatomy as another frame of the same patient shows it: shifted and cut elsewhere.

    A share of `EMPTY_FRAME_SHARE` of the frames misses the lesions altogether.
    """
    shift_mm = float(rng.normal(0, 1.5))
    is_empty = rng.random() < EMPTY_FRAME_SHARE
    lesions = tuple(_cut_region(region, rng, shift_mm) for region in anatomy.lesions)
    lookalikes = tuple(_cut_region(region, rng, shift_mm) for region in anatomy.lookalikes)
    shadows = tuple(replace(shadow, x_mm=shadow.x_mm + shift_mm) for shadow in anatomy.shadows)
    return replace(anatomy, lesions=() if is_empty else lesions, lookalikes=lookalikes, shadows=shadows)


def _cut_region(region: Region, rng: np.random.Generator, shift_mm: float) -> Region:
    shape, size = region.shape, float(rng.uniform(0.8, 1.05))
    moved = replace(shape, x_mm=shape.x_mm + shift_mm, a_mm=shape.a_mm * size, b_mm=shape.b_mm * size)
    return replace(region, shape=moved)


def _draw_places(
    rng: np.random.Generator,
    count: int,
    sizes: tuple[float, float],
    field: tuple[float, float],
    taken: Sequence[Place],
) -> list[Place]:
    """Return up to ``count`` places that keep clear of each other and of those taken.

    Args:
        rng: source of chance.
        count: number wanted.
        sizes: smallest and largest radius as a share of the field's shorter side.
        field: width and depth of the field in mm.
        taken: places to keep clear of.
    """
    width_mm, depth_mm = field
    places: list[Place] = []
    for _ in range(20 * count):
        radius = float(np.exp(rng.uniform(*np.log(sizes)))) * min(field)
        x = float(rng.uniform(-0.36, 0.36)) * width_mm
        z = float(rng.uniform(0.2, 0.7)) * depth_mm
        if all(np.hypot(x - x0, z - z0) > 1.1 * (radius + r0) for x0, z0, r0 in (*taken, *places)):
            places.append((x, z, radius))
        if len(places) == count:
            break
    return places


def _draw_region(rng: np.random.Generator, shares: dict[Kind, float], place: Place) -> Region:
    kind = tuple(shares)[int(rng.choice(len(shares), p=tuple(shares.values())))]
    recipe = _RECIPES[kind]
    x_mm, z_mm, radius_mm = place
    flatness = float(rng.uniform(*recipe.flatness))
    outline = recipe.outlines[int(rng.integers(len(recipe.outlines)))]
    return Region(
        kind=kind,
        shape=draw_shape(rng, x_mm, z_mm, radius_mm, radius_mm * flatness, outline),
        echo_db=float(rng.uniform(*recipe.echo_db)),
        attenuation_db_mm=float(rng.uniform(*recipe.attenuation_db_mm)),
        softness=float(rng.uniform(*recipe.softness)),
        rim_db=float(rng.uniform(*recipe.rim_db)),
    )


def _draw_waves(rng: np.random.Generator, width_mm: float, depth_mm: float) -> tuple[Wave, ...]:
    return tuple(
        (
            float(rng.uniform(0.3, 1.5) * width_mm),
            float(rng.uniform(0.0, 0.022) * depth_mm),
            float(rng.uniform(0, 2 * np.pi)),
        )
        for _ in range(3)
    )


def _draw_shadows(rng: np.random.Generator, width_mm: float, depth_mm: float) -> tuple[Shadow, ...]:
    shadows: list[Shadow] = []
    for _ in range(int(rng.integers(0, 3))):
        z_share = (0.0, 0.02) if rng.random() < 0.35 else (0.15, 0.85)
        shadows.append(
            Shadow(
                x_mm=float(rng.uniform(-0.5, 0.5) * width_mm),
                z_mm=float(rng.uniform(*z_share) * depth_mm),
                half_width_mm=float(rng.uniform(0.02, 0.09) * width_mm),
                loss_db=float(rng.uniform(5, 16)),
                reflector_db=float(rng.uniform(8, 18)),
            )
        )
    return tuple(shadows)
