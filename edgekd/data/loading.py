"""Reading cases into arrays through the preprocessing truth, and hashes that name what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.cases import Case
from edgekd.data.readers import read_image, read_mask
from edgekd.errors import InputError
from edgekd.preprocess.reference import (
    check_frame,
    convert_to_gray,
    crop_frame,
    prepare_truth,
    preprocess_frame,
)
from edgekd.progress import track
from edgekd.specs import FRAME_BITS, ClassSpec, PreprocessSpec

HASH_DIGITS = 16


@dataclass(frozen=True)
class LoadedCases:
    """Cases as a network sees them.

    Attributes:
        images: (N, C, h, w) float32, normalised.
        truths: (N, h, w) uint8 class ids.
        names: the cases' names.
        groups: the cases' groups, the name where a case has none.
        frame_shapes: (H, W) of each frame as stored.
        pixels_sha256: of each frame, see ``hash_pixels``.
    """

    images: NDArray[np.float32]
    truths: NDArray[np.uint8]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    frame_shapes: tuple[tuple[int, int], ...]
    pixels_sha256: tuple[str, ...]


def load_cases(
    cases: Sequence[Case],
    spec: PreprocessSpec,
    classes: ClassSpec,
    *,
    quiet: bool = False,
) -> LoadedCases:
    """Return the tensors and truths of ``cases``, each frame read and resized once.

    Args:
        cases: at least one.
        spec: how a frame becomes a tensor.
        classes: the classes that masks may hold.
        quiet: show no progress bar.

    Raises:
        InputError: no case, or a file that cannot be used; it is named.
    """
    if not cases:
        raise InputError("there is no case to load", expected="at least one")
    images = np.empty((len(cases), spec.channels, spec.height, spec.width), np.float32)
    truths = np.empty((len(cases), spec.height, spec.width), np.uint8)
    shapes: list[tuple[int, int]] = []
    hashes: list[str] = []
    for index, case in enumerate(track(cases, "reading cases", quiet=quiet)):
        frame, truth = read_case(case, spec, classes)
        images[index], truths[index] = preprocess_frame(frame, spec), prepare_truth(truth, spec)
        shapes.append((frame.shape[0], frame.shape[1]))
        hashes.append(hash_pixels(frame, spec))
    return LoadedCases(
        images,
        truths,
        names=tuple(case.name for case in cases),
        groups=tuple(case.group_or_name for case in cases),
        frame_shapes=tuple(shapes),
        pixels_sha256=tuple(hashes),
    )


def read_frame(path: Path, spec: PreprocessSpec) -> NDArray[Any]:
    """Return the frame in an image file as ``spec`` promises it: dtype, channel order, size.

    Returns:
        (H, W) or (H, W, 3) in ``spec.frame_dtype``, colour in ``spec.frame_order``.

    Raises:
        InputError: unreadable, or not as promised; the message names the file and how to go on.
    """
    frame = read_image(path)
    if frame.dtype != np.dtype(spec.frame_dtype):
        raise _build_dtype_error(path, frame.dtype.name, spec.frame_dtype)
    # Files hold RGB; a spec for BGR frames describes what arrives on the device.
    if frame.ndim == 3 and spec.frame_order == "bgr":
        frame = np.ascontiguousarray(frame[..., ::-1])
    try:
        check_frame(frame, spec)
    except InputError as error:
        raise InputError(
            f"{path}: {error.what}", received=error.received, expected=error.expected, action=error.action
        ) from error
    _check_range(path, frame, spec)
    return frame


def _check_range(path: Path, frame: NDArray[Any], spec: PreprocessSpec) -> None:
    """Raise InputError where a frame is brighter than the bits that its dtype is said to hold."""
    brightest = int(crop_frame(frame, spec).max())
    if brightest > spec.white:
        raise InputError(
            f"{path} has pixels brighter than the configuration promises",
            received=f"values up to {brightest}",
            expected=f"at most {spec.white} (bits_stored)",
            action="train with the bits_stored that the device stores, which `edgekd data check` tells; or "
            "store these frames as those that the network learned from",
        )


def read_case(case: Case, spec: PreprocessSpec, classes: ClassSpec) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return a case's frame, as `read_frame` gives it, and its truth (H, W) uint8 at frame size.

    Raises:
        InputError: a file is unreadable, sizes differ, or a class is undeclared.
    """
    frame = read_frame(case.image, spec)
    return frame, read_mask(case.masks, classes.count, (frame.shape[0], frame.shape[1]))


def _build_dtype_error(path: Path, found: str, promised: str) -> InputError:
    return InputError(
        f"{path} holds {FRAME_BITS[found]}-bit pixels where {FRAME_BITS[promised]} bits were promised",
        received=found,
        expected=f"{promised} (frame_dtype)",
        action=f'convert all images to {FRAME_BITS[promised]} bit, or train with frame_dtype = "{found}"',
    )


def hash_cases(cases: Sequence[Case]) -> str:
    """Return the sha256 (hex) of the names and file contents of ``cases``, whatever their order and place."""
    lines = sorted(f"{case.name}\0{_hash_contents(case)}" for case in cases)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hash_contents(case: Case) -> str:
    """Return the sha256 (hex) over the image and mask files of a case, in order.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in (case.image, *case.masks):
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise InputError(f"{path} cannot be read", received=error.strerror) from error
    return digest.hexdigest()


def hash_pixels(frame: NDArray[Any], spec: PreprocessSpec) -> str:
    """Return the sha256 (hex) of the pixels that a network with ``spec`` can see, and of their size.

    Whatever the file is called, however it was packed, whichever masks lie beside it and whatever stands
    outside the crop box.

    Args:
        frame: (H, W) or (H, W, 3) as ``read_frame`` gives it.
        spec: a grey one sees the luma of colours, one for colours sees grey as three equal channels.
    """
    seen = crop_frame(frame, spec)
    is_color = seen.ndim == 3
    if is_color and spec.color == "gray":
        seen = convert_to_gray(seen, spec.frame_order)
    elif not is_color and spec.color == "rgb":
        seen = np.repeat(seen[..., None], 3, axis=2)
    return hash_array(seen)


def shorten_hashes(hashes: Iterable[str]) -> list[str]:
    """Return the first HASH_DIGITS of each, which tell the frames of any data set apart."""
    return [sha256[:HASH_DIGITS] for sha256 in hashes]


def count_learned(hashes: Iterable[str], learned: Iterable[str]) -> int:
    """Return how many frames, by ``hash_pixels``, are of those ``learned``, by ``shorten_hashes``."""
    known = frozenset(learned)
    return sum(sha256 in known for sha256 in shorten_hashes(hashes))


def hash_array(pixels: NDArray[Any]) -> str:
    """Return the sha256 (hex) of an array's shape, type and values."""
    digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
