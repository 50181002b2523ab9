"""Finding images that show the same thing: equal thumbnails up to brightness and contrast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekd.preprocess.reference import convert_to_gray

THUMBNAIL_SIZE = 32
NEAR_DUPLICATE_CORRELATION = 0.95
_BLOCK_ROWS = 1024


def make_thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return an image's signature: (1024,) float32 with mean 0 and norm 1, or all 0 for a flat image.

    The dot product of two signatures is the correlation of the two 32x32 thumbnails.

    Args:
        image: (H, W) or (H, W, 3), uint8 or uint16.
    """
    grey = convert_to_gray(image) if image.ndim == 3 else image
    picture = Image.fromarray(grey.astype(np.float32))
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float64).ravel()
    pixels = pixels - pixels.mean()
    norm = float(np.linalg.norm(pixels))
    if norm == 0:
        return np.zeros(pixels.size, np.float32)
    return (pixels / norm).astype(np.float32)


def find_near_duplicates(
    thumbnails: NDArray[np.float32], threshold: float = NEAR_DUPLICATE_CORRELATION
) -> list[tuple[int, int, float]]:
    """Return the pairs (i, j, correlation) with i < j that correlate above ``threshold``, in order of i, j.

    Args:
        thumbnails: (N, D) float32, rows as `make_thumbnail` gives them.
        threshold: correlation in -1 … 1.
    """
    pairs: list[tuple[int, int, float]] = []
    for start in range(0, len(thumbnails), _BLOCK_ROWS):
        # In blocks, so that the memory grows with N and not with its square.
        correlation = thumbnails[start : start + _BLOCK_ROWS] @ thumbnails.T
        rows, columns = np.nonzero(correlation > threshold)
        later = columns > rows + start
        for row, column in zip(rows[later].tolist(), columns[later].tolist(), strict=True):
            pairs.append((row + start, column, float(correlation[row, column])))
    return pairs
