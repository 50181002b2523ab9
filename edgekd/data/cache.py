"""Prepared cases on disk, named by the content they were made from, so that they can never be stale."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.atomic import write_bytes_atomic
from edgekd.data.cases import Case
from edgekd.errors import InputError
from edgekd.specs import ClassSpec, PreprocessSpec

# Raise it whenever the arithmetic of preprocessing or the content of an entry changes.
CACHE_VERSION = 1
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCase:
    """A case after preprocessing: image (C, h, w) float32, truth (h, w) uint8, frame size (H, W)."""

    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    frame_shape: tuple[int, int]


class CaseCache:
    """A folder of prepared cases for one spec and one set of classes."""

    def __init__(self, folder: Path, spec: PreprocessSpec, classes: ClassSpec) -> None:
        """Use ``folder``, which need not exist yet, for cases prepared by ``spec``."""
        self._folder = Path(folder)
        self._image_shape = (spec.channels, spec.height, spec.width)
        self._recipe = f"{CACHE_VERSION}:{spec.compute_hash()}:{classes.count}"

    def read(self, content_hash: str) -> PreparedCase | None:
        """Return the entry made from these contents; None where there is none or it is damaged."""
        path = self._locate(content_hash)
        if not path.exists():
            return None
        try:
            return self._decode(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            _logger.warning("the cache entry %s is damaged (%s) and is made again", path, error)
            return None

    def write(self, content_hash: str, prepared: PreparedCase) -> None:
        """Store an entry, atomically.

        Raises:
            MachineError: the disk is full.
        """
        buffer = io.BytesIO()
        np.savez(
            buffer,
            image=prepared.image,
            truth=prepared.truth,
            frame_shape=np.asarray(prepared.frame_shape, np.int64),
        )
        write_bytes_atomic(self._locate(content_hash), buffer.getvalue())

    def _locate(self, content_hash: str) -> Path:
        name = hashlib.sha256(f"{self._recipe}:{content_hash}".encode()).hexdigest()
        return self._folder / f"{name}.npz"

    def _decode(self, path: Path) -> PreparedCase:
        # np.load leaves a file open that it opened itself and could not read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
            image, truth, frame_shape = entry["image"], entry["truth"], entry["frame_shape"]
        if (
            image.shape != self._image_shape
            or truth.shape != self._image_shape[1:]
            or frame_shape.shape != (2,)
        ):
            raise ValueError(f"unexpected shapes {image.shape}, {truth.shape}, {frame_shape.shape}")
        if image.dtype != np.float32 or truth.dtype != np.uint8:
            raise ValueError(f"unexpected dtypes {image.dtype}, {truth.dtype}")
        return PreparedCase(image, truth, (int(frame_shape[0]), int(frame_shape[1])))


def hash_contents(case: Case) -> str:
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
