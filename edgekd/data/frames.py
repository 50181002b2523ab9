"""Frames without masks: finding them in a folder and reading them through the preprocessing truth."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.console import print_notice
from edgekd.data.layouts import leave_masks_out
from edgekd.data.loading import hash_pixels, read_frame
from edgekd.data.readers import IMAGE_SUFFIXES
from edgekd.errors import InputError
from edgekd.preprocess.reference import preprocess_frame
from edgekd.progress import track
from edgekd.specs import PreprocessSpec


@dataclass(frozen=True)
class LoadedFrames:
    """Frames as a network sees them.

    Attributes:
        images: (N, C, h, w) float32, normalised.
        sha256: of each image file.
        pixels_sha256: of each frame, see ``hash_pixels``.
    """

    images: NDArray[np.float32]
    sha256: tuple[str, ...]
    pixels_sha256: tuple[str, ...]


def list_images(source: Path, *, quiet: bool = False) -> list[Path]:
    """Return an image, or the images of a folder by name.

    Hidden files are left out, and masks that lie beside their images as in BUSI; what else is, is said.

    Args:
        source: image file or folder.
        quiet: do not say what was left out.

    Raises:
        InputError: nothing there, or no image in the folder.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"there is no image or folder {source}", action="check the path")
    entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    images = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    known = set(images)
    others = [path.name for path in entries if path not in known]
    if not images:
        raise InputError(
            f"the folder {source} holds no image",
            expected=", ".join(sorted(IMAGE_SUFFIXES)),
            action=f"name {source}/images"
            if (source / "images").is_dir()
            else "name a folder with images in it",
        )
    if others:
        named = f"{', '.join(others[:3])}{' …' if len(others) > 3 else ''}"
        print_notice(f"{source}: left out, as no image files: {named}", quiet=quiet)
    frames = leave_masks_out(images)
    if len(frames) < len(images):
        masks = f"{len(images) - len(frames)} masks beside their images (NAME_mask)"
        print_notice(f"{source}: {masks} are no frames and are left out", quiet=quiet)
    return frames


def load_frames(paths: Sequence[Path], spec: PreprocessSpec, *, quiet: bool = False) -> LoadedFrames:
    """Return the tensors of image files, each read and resized once.

    Args:
        paths: at least one image file.
        spec: how a frame becomes a tensor.
        quiet: show no progress bar.

    Raises:
        InputError: a file that cannot be used; it is named.
    """
    images = np.empty((len(paths), spec.channels, spec.height, spec.width), np.float32)
    hashes: list[str] = []
    for index, path in enumerate(track(paths, "reading frames without masks", quiet=quiet)):
        frame = read_frame(path, spec)
        images[index] = preprocess_frame(frame, spec)
        hashes.append(hash_pixels(frame, spec))
    return LoadedFrames(images, tuple(hash_image(path) for path in paths), tuple(hashes))


def hash_image(path: Path) -> str:
    """Return the sha256 (hex) of an image file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
