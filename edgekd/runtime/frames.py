"""From frames as they arrive to what a deploy graph takes, and its masks back in the frames' order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekd.preprocess import convert_to_gray
from edgekd.runtime.base import Frames, Masks
from edgekd.specs import PreprocessSpec


class Batch(NamedTuple):
    """Frames of one size: ``places`` of them in the call, ``pixels`` (n, H, W, C) uint8 or uint16."""

    places: tuple[int, ...]
    pixels: npt.NDArray[Any]


def pack_frames(frames: Frames, spec: PreprocessSpec) -> list[Batch]:
    """Return the frames as contiguous batches of one size each, with the channels that ``spec`` names.

    A colour frame for a grey model becomes its exact integer luma; a grey frame for a colour model
    becomes three equal channels.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        places.setdefault(frame.shape, []).append(index)
    return [_pack_batch([frames[index] for index in indices], indices, spec) for indices in places.values()]


def merge_masks(batches: Sequence[tuple[tuple[int, ...], Masks]]) -> Masks:
    """Return the masks (N, h, w) of all batches in the order of the frames."""
    if len(batches) == 1:
        return batches[0][1]
    order = np.argsort([place for places, _ in batches for place in places])
    return np.concatenate([masks for _, masks in batches])[order]


def _pack_batch(frames: list[npt.NDArray[Any]], places: list[int], spec: PreprocessSpec) -> Batch:
    pixels = frames[0][None] if len(frames) == 1 else np.stack(frames)
    return Batch(tuple(places), np.ascontiguousarray(_fit_channels(pixels, spec)))


def _fit_channels(pixels: npt.NDArray[Any], spec: PreprocessSpec) -> npt.NDArray[Any]:
    if pixels.ndim == 4 and spec.color == "gray":
        pixels = np.stack([convert_to_gray(frame, spec.frame_order) for frame in pixels])
    if pixels.ndim == 4:
        return pixels
    return np.repeat(pixels[..., None], 3, axis=-1) if spec.color == "rgb" else pixels[..., None]
