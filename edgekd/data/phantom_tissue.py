"""Painting an anatomy onto the grid of scan lines: echo level, attenuation, and the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.data.phantom_anatomy import Anatomy, Region, Shadow, Wave
from edgekd.data.phantom_shapes import FloatArray, fade_border, find_neighbourhood, measure_radius

TEXTURE_SIZE = 64
# Fibres are this much longer than thick, as in breast and muscle.
STREAK_LENGTH_MM, STREAK_THICKNESS_MM = 5.0, 0.7
BLOTCH_SIZE_MM = 5.0
FASCIA_DB, FASCIA_THICKNESS_MM = 9.0, 0.35
RIM_WIDTH = 0.07
REFLECTOR_THICKNESS_MM = 0.5


def paint_echo(anatomy: Anatomy, x_mm: FloatArray, z_mm: FloatArray) -> FloatArray:
    """Return the echo level in dB at the given points.

    Args:
        anatomy: what lies there.
        x_mm, z_mm: coordinates of the points, (rows, beams) float32 each.
    """
    echo_db = _paint_layers(anatomy, x_mm, z_mm)
    for region in (*anatomy.lookalikes, *anatomy.lesions):
        _paint_region(echo_db, region, x_mm, z_mm)
    for shadow in anatomy.shadows:
        near = np.exp(-(((z_mm - shadow.z_mm) / REFLECTOR_THICKNESS_MM) ** 2))
        echo_db += np.float32(shadow.reflector_db) * near * _profile_strip(shadow, x_mm)
    return echo_db


def paint_attenuation(anatomy: Anatomy, x_mm: FloatArray, z_mm: FloatArray) -> FloatArray:
    """Return the attenuation in dB/mm beyond the compensated one at the given points; see `paint_echo`."""
    attenuation = np.zeros_like(x_mm)
    for region in (*anatomy.lookalikes, *anatomy.lesions):
        if region.attenuation_db_mm != 0:
            near = find_neighbourhood(region.shape, x_mm, z_mm, 1 + region.softness)
            radius = measure_radius(region.shape, x_mm[near], z_mm[near])
            attenuation[near] += np.float32(region.attenuation_db_mm) * fade_border(radius, region.softness)
    return attenuation


def paint_shadows(shadows: Sequence[Shadow], x_mm: FloatArray, z_mm: FloatArray) -> FloatArray:
    """Return the signal in dB (zero or negative) that remains below the reflectors at the given points."""
    loss_db = np.zeros_like(x_mm)
    for shadow in shadows:
        below = np.clip((z_mm - np.float32(shadow.z_mm)) / np.float32(REFLECTOR_THICKNESS_MM), 0, 1)
        loss_db -= np.float32(shadow.loss_db) * below * _profile_strip(shadow, x_mm)
    return loss_db


def paint_truth(regions: Sequence[Region], x_mm: FloatArray, z_mm: FloatArray) -> NDArray[np.uint8]:
    """Return 1 inside the outline of any region and 0 elsewhere, uint8."""
    truth = np.zeros(x_mm.shape, np.uint8)
    for region in regions:
        near = find_neighbourhood(region.shape, x_mm, z_mm, 1.0)
        truth[near] |= measure_radius(region.shape, x_mm[near], z_mm[near]) < 1
    return truth


def _paint_layers(anatomy: Anatomy, x_mm: FloatArray, z_mm: FloatArray) -> FloatArray:
    levels = anatomy.layer_echo_db
    echo_db = np.full_like(x_mm, levels[0])
    for depth_mm, waves, above_db, below_db in zip(
        anatomy.layer_depths_mm, anatomy.layer_waves, levels[:-1], levels[1:], strict=True
    ):
        offset = (z_mm - np.float32(depth_mm) - sum_waves(waves, x_mm)) / np.float32(FASCIA_THICKNESS_MM)
        echo_db += np.float32(below_db - above_db) * np.clip(offset + 0.5, 0, 1)
        echo_db += np.float32(FASCIA_DB) * np.exp(-(offset**2))
    return echo_db + _paint_texture(anatomy, x_mm, z_mm)


def sum_waves(waves: Sequence[Wave], x_mm: FloatArray) -> FloatArray:
    """Return the displacement in mm of a wavy border at lateral positions ``x_mm``."""
    total = np.zeros_like(x_mm)
    for wavelength_mm, amplitude_mm, phase in waves:
        total += np.float32(amplitude_mm) * np.sin(
            np.float32(2 * np.pi / wavelength_mm) * x_mm + np.float32(phase)
        )
    return total


def _paint_texture(anatomy: Anatomy, x_mm: FloatArray, z_mm: FloatArray) -> FloatArray:
    rng = np.random.default_rng(anatomy.texture_seed)
    streaks, blotches = rng.standard_normal((2, TEXTURE_SIZE, TEXTURE_SIZE), dtype=np.float32)
    # Fibres follow the layers.
    level_mm = z_mm - 2 * sum_waves(anatomy.layer_waves[1], x_mm)
    return np.float32(anatomy.streak_db) * _sample_noise(
        streaks, level_mm / np.float32(STREAK_THICKNESS_MM), x_mm / np.float32(STREAK_LENGTH_MM)
    ) + np.float32(anatomy.blotch_db) * _sample_noise(
        blotches, z_mm / np.float32(BLOTCH_SIZE_MM), x_mm / np.float32(BLOTCH_SIZE_MM)
    )


def _sample_noise(table: FloatArray, row: FloatArray, column: FloatArray) -> FloatArray:
    """Return a periodic table at fractional places, interpolated smoothly (value noise)."""
    row_floor, column_floor = np.floor(row), np.floor(column)
    v, u = row - row_floor, column - column_floor
    v, u = v * v * (3 - 2 * v), u * u * (3 - 2 * u)
    top, left = row_floor.astype(np.int32) % TEXTURE_SIZE, column_floor.astype(np.int32) % TEXTURE_SIZE
    bottom, right = (top + 1) % TEXTURE_SIZE, (left + 1) % TEXTURE_SIZE
    upper = table[top, left] * (1 - u) + table[top, right] * u
    lower = table[bottom, left] * (1 - u) + table[bottom, right] * u
    return upper * (1 - v) + lower * v


def _paint_region(echo_db: FloatArray, region: Region, x_mm: FloatArray, z_mm: FloatArray) -> None:
    near = find_neighbourhood(region.shape, x_mm, z_mm, 1 + max(region.softness, 3 * RIM_WIDTH))
    radius = measure_radius(region.shape, x_mm[near], z_mm[near])
    inside = fade_border(radius, region.softness)
    # The layers' own lines and fibres do not run on through a region.
    tissue_db = echo_db[near]
    level_db = np.median(tissue_db) if tissue_db.size else np.float32(0)
    rim = np.float32(region.rim_db) * np.exp(-(((radius - 1) / np.float32(RIM_WIDTH)) ** 2))
    smooth_db = level_db + np.float32(0.3) * (tissue_db - level_db) + np.float32(region.echo_db)
    echo_db[near] = tissue_db + inside * (smooth_db - tissue_db) + rim


def _profile_strip(shadow: Shadow, x_mm: FloatArray) -> FloatArray:
    distance = np.abs(x_mm - np.float32(shadow.x_mm)) / np.float32(shadow.half_width_mm)
    return np.clip(np.float32(1.5) - distance, 0, 1)
