"""Golden frames: a few frames with everything the student made of them, to prove agreement without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.bundle.arrays import Array, pack_arrays, unpack_arrays
from edgekd.bundle.builds import Build
from edgekd.bundle.store import Bundle
from edgekd.errors import IntegrityError

GOLDEN_FILE = "golden.npz"
MIN_AGREEMENT: Mapping[str, float] = {"fp32": 0.9995, "fp16": 0.999, "bf16": 0.99, "int8": 0.98}
"""Part of the pixels that must be equal, by precision.

In float32 two correct engines differ by rounding alone, about 1e-5 in the logits, which turns only pixels
whose two best classes are as near as that; they lie on borders and stay below one in 2000. A swapped
mean, another resize or a lost channel order moves whole borders and turns more. Reduced precision moves
borders by its nature: there the floor finds gross faults only; a data set says whether accuracy suffered."""
MIN_FOREGROUND_OVERLAP = 0.5
"""Dice of all foreground pixels together, in every precision: where lesions are small, an engine that marks
nothing at all has more equal pixels than MIN_AGREEMENT asks for, and here it has 0."""
_KEYS = ("frame", "tensor", "logits", "mask", "truth")


@dataclass(frozen=True)
class GoldenFrames:
    """N frames, by index; the frames may differ in size.

    Attributes:
        frames: (H, W) or (H, W, 3) uint8 or uint16, as they arrive.
        tensors: (N, C, h, w) float32, preprocessed by the NumPy truth.
        logits: (N, K, h, w) float32, by the PyTorch student.
        masks: (N, h, w) uint8 class ids, the argmax of the logits.
        truths: (N, h, w) uint8 class ids, the annotation.
    """

    frames: tuple[Array, ...]
    tensors: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    masks: npt.NDArray[np.uint8]
    truths: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of frames, N."""
        return len(self.frames)

    def to_bytes(self) -> bytes:
        """Return the content of ``golden.npz``."""
        parts = (self.frames, self.tensors, self.logits, self.masks, self.truths)
        arrays = {
            f"{key}_{index}": part[index]
            for key, part in zip(_KEYS, parts, strict=True)
            for index in range(len(self))
        }
        return pack_arrays(arrays)


@dataclass(frozen=True)
class JudgedFrames:
    """N frames and what a build is to make of them, by index.

    Attributes:
        frames: (H, W) or (H, W, 3) uint8 or uint16, as they arrive.
        masks: (N, h, w) uint8 class ids, by the student in float32.
        truths: (N, h, w) uint8 class ids, the annotation.
    """

    frames: tuple[Array, ...]
    masks: npt.NDArray[np.uint8]
    truths: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of frames, N."""
        return len(self.frames)


def read_judged_frames(bundle: Bundle, build: Build | None = None) -> JudgedFrames:
    """Return the golden frames of a bundle, as ``build`` takes them.

    A build for one size of frame that the golden ones do not have holds them in that size, with the masks
    that the float32 graph gave when the build was made.

    Raises:
        IntegrityError: a file is changed, damaged, or its arrays do not fit the manifest.
    """
    golden = read_golden(bundle)
    if build is None or GOLDEN_FILE not in build.record.files:
        return JudgedFrames(golden.frames, golden.masks, golden.truths)
    path = build.resolve_file(GOLDEN_FILE)
    arrays = unpack_arrays(path, IntegrityError)
    names = [f"{key}_{index}" for key in ("frame", "mask") for index in range(len(golden))]
    found = {name: array for name, array in arrays.items() if name.startswith("mask_")}
    if sorted(arrays) != sorted(names) or any(
        (mask.shape, mask.dtype) != (golden.truths.shape[1:], np.uint8) for mask in found.values()
    ):
        raise IntegrityError(
            f"{path} does not fit the golden frames of the bundle", received=", ".join(sorted(arrays))
        )
    frames, masks = ([arrays[f"{key}_{index}"] for index in range(len(golden))] for key in ("frame", "mask"))
    return JudgedFrames(tuple(frames), np.stack(masks), golden.truths)


def pack_judged_frames(frames: Sequence[Array], masks: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """Return the content of a build's own ``golden.npz``: frames and masks as in ``JudgedFrames``."""
    parts = {"frame": frames, "mask": masks}
    return pack_arrays(
        {f"{key}_{index}": array for key, part in parts.items() for index, array in enumerate(part)}
    )


def read_golden(bundle: Bundle) -> GoldenFrames:
    """Return the golden frames of a bundle.

    Raises:
        IntegrityError: the file is changed, damaged, or its arrays do not fit the manifest.
    """
    path = bundle.resolve_file(GOLDEN_FILE)
    golden = load_golden(path)
    spec, num_classes = bundle.manifest.preprocess, bundle.manifest.classes.count
    size = (spec.height, spec.width)
    expected = [(spec.channels, *size), (num_classes, *size), size, size]
    arrays = (golden.tensors, golden.logits, golden.masks, golden.truths)
    found = [array.shape[1:] for array in arrays]
    if found != expected or any(frame.dtype != spec.frame_dtype for frame in golden.frames):
        raise IntegrityError(
            f"{path} does not fit the manifest",
            received=f"{found}, frames {sorted({str(frame.dtype) for frame in golden.frames})}",
            expected=f"{expected}, frames {spec.frame_dtype}",
        )
    return golden


def load_golden(path: Path) -> GoldenFrames:
    """Return the golden frames in an ``.npz`` file.

    Raises:
        IntegrityError: it is damaged, empty, or its arrays do not fit together.
    """
    arrays = unpack_arrays(path, IntegrityError)
    count = sum(name.startswith("frame_") for name in arrays)
    wanted = {f"{key}_{index}" for key in _KEYS for index in range(count)}
    if count == 0 or wanted != set(arrays):
        raise IntegrityError(
            f"{path} holds no complete golden frames", received=", ".join(sorted(arrays)) or "none"
        )
    columns = {key: [arrays[f"{key}_{index}"] for index in range(count)] for key in _KEYS}
    try:
        return GoldenFrames(
            tuple(columns["frame"]),
            np.stack(columns["tensor"]).astype(np.float32, casting="no"),
            np.stack(columns["logits"]).astype(np.float32, casting="no"),
            np.stack(columns["mask"]).astype(np.uint8, casting="no"),
            np.stack(columns["truth"]).astype(np.uint8, casting="no"),
        )
    except (TypeError, ValueError) as error:
        raise IntegrityError(
            f"{path} holds golden frames that do not fit together", received=error
        ) from error
