"""A synthetic ultrasound data set: simulated patients, their frames, and the exact outline of every lesion.

One frame: tissue is painted onto the grid of scan lines, attenuation is summed along them, scatterers are
seen through the machine's pulse and beam, the envelope is compressed, and the lines are converted to a
picture. The truth is evaluated at the picture's pixels, so it does not suffer from any of this.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekd.atomic import staged_folder, write_text_atomic
from edgekd.data.manifest import MANIFEST_NAME
from edgekd.data.phantom_acoustics import Scanner, compress_envelope, draw_scanner, form_envelope
from edgekd.data.phantom_anatomy import Anatomy, draw_anatomy, move_probe
from edgekd.data.phantom_display import (
    Probe,
    burn_in,
    convert_scan,
    draw_probe,
    locate_pixels,
    locate_samples,
)
from edgekd.data.phantom_shapes import FloatArray
from edgekd.data.phantom_tissue import paint_attenuation, paint_echo, paint_shadows, paint_truth
from edgekd.errors import UsageError
from edgekd.progress import Progress

DEFAULT_SIZE = 256
SMALLEST_SIZE = 64
MOST_FRAMES_A_PATIENT = 3


@dataclass(frozen=True)
class Patient:
    """What all frames of one simulated patient share."""

    seed: int
    probe: Probe
    scanner: Scanner
    anatomy: Anatomy
    num_frames: int


def draw_patient(seed: int, *, height: int = DEFAULT_SIZE, width: int = DEFAULT_SIZE) -> Patient:
    """Return the simulated patient of a seed, for frames of the given size in pixels.

    Raises:
        UsageError: a negative seed, or a size below 64 pixels.
    """
    if seed < 0:
        raise UsageError("a phantom seed is negative", received=seed, expected="0 or more")
    if min(height, width) < SMALLEST_SIZE:
        raise UsageError(
            "the phantom frame is too small",
            received=f"height {height}, width {width}",
            expected=f"at least {SMALLEST_SIZE} each",
        )
    rng = np.random.default_rng(seed)
    probe = draw_probe(rng, height / width)
    scanner = draw_scanner(rng, probe.depth_mm)
    anatomy = draw_anatomy(rng, _measure_usable_width(probe), probe.depth_mm)
    return Patient(seed, probe, scanner, anatomy, int(rng.integers(1, MOST_FRAMES_A_PATIENT + 1)))


def render_phantom(
    seed: int, *, height: int = DEFAULT_SIZE, width: int = DEFAULT_SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the first frame of the patient of a seed and its truth.

    The same seed and size give the same bytes wherever NumPy computes alike; another processor may
    round single pixels differently.

    Returns:
        image (height, width) uint8; mask (height, width) uint8, 0 background and 1 lesion.

    Raises:
        UsageError: see `draw_patient`.
    """
    return render_frame(draw_patient(seed, height=height, width=width), 0, height=height, width=width)


def render_frame(
    patient: Patient, index: int, *, height: int = DEFAULT_SIZE, width: int = DEFAULT_SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return frame ``index`` of a patient and its truth, as `render_phantom` does."""
    rng = np.random.default_rng((patient.seed, index + 1))
    probe = patient.probe
    anatomy = move_probe(patient.anatomy, rng)
    lines = _scan(anatomy, patient.scanner, probe, height, width, rng)
    x_mm, z_mm = locate_pixels(probe, height, width)
    picture, visible = convert_scan(lines, probe, x_mm, z_mm)
    image = burn_in(np.round(picture * 255).astype(np.uint8), probe, rng)
    truth = paint_truth(anatomy.lesions, x_mm, z_mm) * visible
    return image, truth.astype(np.uint8)


def write_phantom(
    out: Path,
    count: int,
    seed: int = 0,
    *,
    height: int = DEFAULT_SIZE,
    width: int = DEFAULT_SIZE,
    quiet: bool = False,
) -> None:
    """Write a data set of ``count`` frames: ``images/``, ``masks/`` (0 and 255) and ``manifest.csv``.

    The manifest's group is the simulated patient, who has one to three frames.

    Args:
        out: the folder to make.
        count: number of frames, at least 1.
        seed: another seed gives other patients.
        height, width: frame size in pixels.
        quiet: show no progress bar.

    Raises:
        UsageError: ``out`` exists, or a number cannot be meant.
        MachineError: the disk is full.
    """
    if count < 1:
        raise UsageError("a phantom without frames", received=count, expected="at least 1")
    with staged_folder(Path(out)) as staging, Progress(quiet=quiet) as progress:
        (staging / "images").mkdir()
        (staging / "masks").mkdir()
        bar = progress.add("rendering frames", count)
        rows: list[tuple[str, str, str]] = []
        for number, patient in enumerate(_draw_patients(seed, height, width)):
            for index in range(min(patient.num_frames, count - len(rows))):
                image, mask = render_frame(patient, index, height=height, width=width)
                rows.append(_write_pair(staging, f"p{number:04d}_{index}", f"p{number:04d}", image, mask))
                progress.advance(bar)
            if len(rows) == count:
                break
        _write_manifest(staging / MANIFEST_NAME, rows)


def _draw_patients(seed: int, height: int, width: int) -> Iterator[Patient]:
    """Yield patients without end; those of different data set seeds share nothing."""
    if seed < 0:
        raise UsageError("a phantom seed is negative", received=seed, expected="0 or more")
    for state in itertools.count():
        (patient_seed,) = np.random.SeedSequence((seed, state)).generate_state(1, np.uint64)
        yield draw_patient(int(patient_seed), height=height, width=width)


def _write_pair(
    folder: Path, name: str, group: str, image: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> tuple[str, str, str]:
    image_name, mask_name = f"images/{name}.png", f"masks/{name}.png"
    Image.fromarray(image).save(folder / image_name)
    Image.fromarray(mask * np.uint8(255)).save(folder / mask_name)
    return image_name, mask_name, group


def _write_manifest(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "mask", "group"))
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())


def _measure_usable_width(probe: Probe) -> float:
    """Return the width in mm in which lesions are placed: of a sector, that at half depth."""
    if probe.geometry == "linear":
        return probe.width_mm
    return (
        probe.width_mm * (probe.face_radius_mm + probe.depth_mm / 2) / (probe.face_radius_mm + probe.depth_mm)
    )


def _scan(
    anatomy: Anatomy, scanner: Scanner, probe: Probe, height: int, width: int, rng: np.random.Generator
) -> FloatArray:
    x_mm, z_mm, depths_mm, steps_mm = locate_samples(probe, height, width * 3 // 4)
    echo_db = paint_echo(anatomy, x_mm, z_mm)
    row_step_mm = depths_mm[1] - depths_mm[0]
    echo_db -= np.cumsum(paint_attenuation(anatomy, x_mm, z_mm), axis=0) * row_step_mm
    echo_db += paint_shadows(anatomy.shadows, x_mm, z_mm)
    envelope = form_envelope(echo_db, scanner, depths_mm, steps_mm, rng)
    return compress_envelope(envelope, scanner, depths_mm)
