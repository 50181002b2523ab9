"""Recordings: the masks that one engine made of a data set, so that two engines compare without meeting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.atomic import write_bytes_atomic
from edgekd.bundle.arrays import Array, pack_arrays, unpack_arrays
from edgekd.errors import InputError

_TEXTS = ("source", "manifest_sha256", "data_sha256")
_LISTS = ("names", "groups")


@dataclass(frozen=True)
class Recording:
    """The masks of N cases.

    Attributes:
        source: ``pytorch`` or the name of the build that made the masks.
        manifest_sha256: sha256 of the bundle's manifest.
        data_sha256: sha256 of the cases' names and files.
        names, groups: (N,) one name and one group (a patient) a case.
        truths: (N, h, w) uint8 class ids.
        masks: (N, h, w) uint8 class ids.
        logits: (N, K, h, w) float32, or None where the source gives only masks.

    Raises:
        InputError: lengths or shapes do not fit together, or a dtype is another.
    """

    source: str
    manifest_sha256: str
    data_sha256: str
    names: tuple[str, ...]
    groups: tuple[str, ...]
    truths: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        count = len(self.names)
        if len(self.groups) != count or self.masks.shape[:1] != (count,):
            raise InputError(
                "a recording does not fit together",
                received=f"{count} names, {len(self.groups)} groups, masks {self.masks.shape}",
            )
        if self.masks.ndim != 3 or self.truths.shape != self.masks.shape:
            raise InputError(
                "truths and masks differ", received=f"{self.truths.shape} and {self.masks.shape}"
            )
        for array, dtype in ((self.masks, np.uint8), (self.truths, np.uint8), (self.logits, np.float32)):
            if array is not None and array.dtype != dtype:
                raise InputError(
                    "a recording has a wrong dtype", received=array.dtype, expected=dtype.__name__
                )
        self._check_logits()

    def _check_logits(self) -> None:
        if self.logits is None:
            return
        count, height, width = self.masks.shape
        shape = self.logits.shape
        if len(shape) != 4 or (shape[0], *shape[2:]) != (count, height, width):
            raise InputError("logits do not fit the masks", received=f"{shape} beside {self.masks.shape}")


def save_recording(path: Path, recording: Recording) -> None:
    """Write a recording as ``.npz``, atomically.

    Raises:
        MachineError: the disk is full.
    """
    arrays: dict[str, Array] = {name: np.array(getattr(recording, name)) for name in _TEXTS}
    # An empty list has no text dtype of its own.
    arrays |= {name: np.array(getattr(recording, name), dtype=np.str_) for name in _LISTS}
    arrays |= {"truths": recording.truths, "masks": recording.masks}
    if recording.logits is not None:
        arrays["logits"] = recording.logits
    write_bytes_atomic(path, pack_arrays(arrays))


def load_recording(path: Path) -> Recording:
    """Return the recording in an ``.npz`` file.

    Raises:
        InputError: it is missing, damaged, or no recording.
    """
    if not path.is_file():
        raise InputError(f"there is no recording {path}", action="write one with `edgekd evaluate --record`")
    arrays = unpack_arrays(path, InputError)
    wanted = {*_TEXTS, *_LISTS, "truths", "masks"}
    if not wanted <= set(arrays) <= {*wanted, "logits"}:
        raise InputError(f"{path} is no recording", received=", ".join(sorted(arrays)) or "no array")
    return Recording(
        source=str(arrays["source"]),
        manifest_sha256=str(arrays["manifest_sha256"]),
        data_sha256=str(arrays["data_sha256"]),
        names=tuple(str(name) for name in arrays["names"]),
        groups=tuple(str(group) for group in arrays["groups"]),
        truths=arrays["truths"],
        masks=arrays["masks"],
        logits=arrays.get("logits"),
    )
