"""From echo levels to what a scanner shows of them: speckle, beam width, noise, gain and log compression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.data.phantom_shapes import FloatArray

# Side lobes: a share of the field seen through a wider beam, which fills cysts with haze.
SIDE_LOBE_SHARE, SIDE_LOBE_WIDTH = 0.05, 6.0
MARGIN_SAMPLES = 32


@dataclass(frozen=True)
class Scanner:
    """One machine with one setting.

    Attributes:
        axial_mm: standard deviation of the pulse in depth.
        lateral_mm: standard deviation of the beam at the focus.
        focus_mm: depth of the focus.
        focal_zone_mm: distance from the focus at which the beam is wider by the square root of 2.
        noise_db: electronic noise at the surface, relative to glandular tissue.
        compensation_db_mm: the time-gain curve; it lifts the noise with depth.
        gain_db, gain_slope_db: error of the gain at the middle of the depth, and from there to the bottom.
        dynamic_range_db: range shown.
        level: grey of glandular tissue at no gain error, in 0 … 1.
        smoothing: persistence and speckle filter of the machine, 0 (none) … 1.
    """

    axial_mm: float
    lateral_mm: float
    focus_mm: float
    focal_zone_mm: float
    noise_db: float
    compensation_db_mm: float
    gain_db: float
    gain_slope_db: float
    dynamic_range_db: float
    level: float
    smoothing: float


def draw_scanner(rng: np.random.Generator, depth_mm: float) -> Scanner:
    """Return a random machine and setting for a field of view of the given depth."""
    return Scanner(
        axial_mm=float(rng.uniform(0.10, 0.22)),
        lateral_mm=float(rng.uniform(0.16, 0.34)),
        focus_mm=float(rng.uniform(0.3, 0.6) * depth_mm),
        focal_zone_mm=float(rng.uniform(0.35, 0.8) * depth_mm),
        noise_db=float(rng.uniform(-60, -46)),
        compensation_db_mm=float(rng.uniform(0.5, 0.9)),
        gain_db=float(rng.normal(0, 3)),
        gain_slope_db=float(rng.normal(-2, 4)),
        dynamic_range_db=float(rng.uniform(45, 65)),
        level=float(rng.uniform(0.38, 0.52)),
        smoothing=float(rng.uniform(0.2, 1.0)),
    )


def form_envelope(
    echo_db: FloatArray,
    scanner: Scanner,
    depths_mm: FloatArray,
    beam_steps_mm: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the envelope of the echoes of dense random scatterers seen through the machine's pulse and beam.

    The scatterers are complex Gaussian, so where ``echo_db`` is constant the envelope has a Rayleigh
    distribution (fully developed speckle) with a mean square of ``10 ** (echo_db / 10)``; its mean over its
    standard deviation is sqrt(pi / (4 - pi)) = 1.91 (Wagner et al., IEEE Trans. Sonics Ultrason. 30, 1983).

    Args:
        echo_db: (rows, beams) float32, signal level including what depth and shadows have taken.
        scanner: the machine.
        depths_mm: (rows,) depth of each row, equally spaced.
        beam_steps_mm: (rows,) distance between neighbouring beams at each row.
        rng: source of the scatterers and the noise.

    Returns:
        (rows, beams) float32, at least 0.
    """
    field = np.power(np.float32(10), echo_db / np.float32(20)) * _draw_complex(rng, echo_db.shape)
    row_step_mm = float(depths_mm[1] - depths_mm[0])
    field = _blur_lines(field, np.full(echo_db.shape[1], scanner.axial_mm / row_step_mm, np.float32), axis=0)
    distance = (depths_mm - scanner.focus_mm) / scanner.focal_zone_mm
    beam_mm = scanner.lateral_mm * np.sqrt(1 + distance**2)
    field = _blur_lines(field, (beam_mm / beam_steps_mm).astype(np.float32), axis=1)
    noise_db = scanner.noise_db + scanner.compensation_db_mm * depths_mm
    noise = np.power(np.float32(10), noise_db / np.float32(20)).astype(np.float32)
    return np.abs(field + noise[:, None] * _draw_complex(rng, echo_db.shape))


def compress_envelope(envelope: FloatArray, scanner: Scanner, depths_mm: FloatArray) -> FloatArray:
    """Return grey values 0 … 1 (float32) of an envelope: gain error, logarithm, dynamic range, smoothing."""
    position = depths_mm / depths_mm[-1]
    gain_db = scanner.gain_db + scanner.gain_slope_db * (2 * position - 1)
    level_db = np.float32(20) * np.log10(envelope + np.float32(1e-6)) + gain_db[:, None].astype(np.float32)
    smooth_db = _smooth(level_db, scanner.smoothing)
    return np.clip(scanner.level + smooth_db / np.float32(scanner.dynamic_range_db), 0, 1).astype(np.float32)


def _draw_complex(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    parts = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
    return parts.view(np.complex64)[..., 0]


def _blur_lines(field: NDArray[np.complex64], sigma: FloatArray, axis: int) -> NDArray[np.complex64]:
    """Return the field blurred along an axis, with a width in samples for each line, mean power kept."""
    count = field.shape[axis]
    # Without the margin the bright skin would reappear at the bottom, as the transform is periodic.
    padded = count + MARGIN_SAMPLES
    cycles = np.fft.fftfreq(padded).astype(np.float32)[None, :] * sigma[:, None]
    response = np.float32(1 - SIDE_LOBE_SHARE) * _respond(cycles)
    response += np.float32(SIDE_LOBE_SHARE) * _respond(cycles * np.float32(SIDE_LOBE_WIDTH))
    response /= np.sqrt(np.mean(response**2, axis=1, keepdims=True))
    spectrum = np.fft.fft(field, n=padded, axis=axis)
    spectrum *= response if axis == 1 else response.T
    blurred = np.fft.ifft(spectrum, axis=axis).astype(np.complex64)
    return blurred[:, :count] if axis == 1 else blurred[:count]


def _respond(cycles: FloatArray) -> FloatArray:
    """Return the Fourier transform of a Gaussian of standard deviation 1."""
    return np.exp(np.float32(-2 * np.pi**2) * cycles**2)


def _smooth(values: FloatArray, strength: float) -> FloatArray:
    """Return a 3x3 binomial filter's result, mixed with the input by strength."""
    padded = np.pad(values, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) * np.float32(0.25)
    both = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) * np.float32(0.25)
    return values + np.float32(strength) * (both - values)
