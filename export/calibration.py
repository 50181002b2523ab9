"""The real frames that reduced precisions are made and judged with: calibration and validation tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.bundle import Bundle
from edgekd.data import Case, assign_splits, find_cases, hash_cases, load_cases
from edgekd.errors import InputError

NUM_CALIBRATION = 128
NUM_VALIDATION = 256
OTHER_DATA = "judged on other data than the student was distilled on"


@dataclass(frozen=True)
class Calibration:
    """Frames of the split the student learned from, and of the one it was chosen by.

    Attributes:
        tensors: (N, C, h, w) float32, preprocessed; the ranges of activations are measured on them.
        val_tensors: (M, C, h, w) float32; a reduced precision is judged on them.
        val_truths: (M, h, w) uint8 class ids.
        is_own: whether the cases are those the student was distilled on; None where its record does not say.
    """

    tensors: NDArray[np.float32]
    val_tensors: NDArray[np.float32]
    val_truths: NDArray[np.uint8]
    is_own: bool | None = None

    @property
    def remark(self) -> str:
        """What belongs behind a judgement on other data than the student's; empty for its own."""
        return f"; {OTHER_DATA}" if self.is_own is False else ""

    def describe(self) -> dict[str, Any]:
        """Return numbers and sha256 of what was used, for a build's facts."""
        return {
            "data_of_the_student": self.is_own,
            "images": len(self.tensors),
            "sha256": hashlib.sha256(np.ascontiguousarray(self.tensors).tobytes()).hexdigest(),
            "validation_images": len(self.val_tensors),
            "validation_sha256": hashlib.sha256(
                np.ascontiguousarray(self.val_tensors).tobytes() + self.val_truths.tobytes()
            ).hexdigest(),
        }


def load_calibration(bundle: Bundle, data: Path, *, quiet: bool = False) -> Calibration:
    """Read a data set through the preprocessing truth, divided as the student's own run divided it.

    At most NUM_CALIBRATION training and NUM_VALIDATION validation cases are taken, spread evenly over their
    names' hashes, so that the choice depends on no order of files.

    Raises:
        InputError: the data cannot be read, one of the two splits is empty, or nothing is marked in the
            validation split.
    """
    division = _read_division(bundle)
    parts = assign_splits(find_cases(data), allow_empty=True, **division)
    for name in ("train", "val"):
        if not parts[name]:
            raise InputError(
                f"no case of {data} falls into the {name} split of the student's run",
                expected="cases to calibrate with (train) and to judge by (val)",
                action="name the data set that the student was distilled on",
            )
    spec, classes = bundle.manifest.preprocess, bundle.manifest.classes
    train = load_cases(_choose(parts["train"], NUM_CALIBRATION), spec, classes, quiet=quiet)
    val = load_cases(_choose(parts["val"], NUM_VALIDATION), spec, classes, quiet=quiet)
    if not val.truths.any():
        raise InputError(
            f"nothing is marked in the validation split of {data}, so that no Dice can be judged by it",
            received=f"{len(val.truths)} masks of background alone",
            expected="at least one with something to find",
            action="name the data set that the student was distilled on",
        )
    return Calibration(train.images, val.images, val.truths, _compare_data(bundle, parts))


def _compare_data(bundle: Bundle, parts: Mapping[str, Sequence[Case]]) -> bool | None:
    recorded = bundle.manifest.training.get("data_sha256", {})
    if "val" not in recorded:
        return None
    # The training part may have been cut down; what judges was not.
    return hash_cases(parts["val"]) == recorded["val"]


def _read_division(bundle: Bundle) -> Mapping[str, Any]:
    """Return how the student's run divided its cases; the default where its record does not say."""
    split = bundle.manifest.training.get("config", {}).get("split", {})
    return {key: split[key] for key in ("fractions", "salt") if key in split}


def _choose(cases: Sequence[Case], number: int) -> list[Case]:
    ranked = sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).digest())
    chosen = {case.name for case in ranked[:number]}
    return [case for case in cases if case.name in chosen]
