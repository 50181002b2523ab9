"""What a run learns from and is judged by: the three splits in memory, and hashes that name them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.config import DistillConfig, FitConfig
from edgekd.console import print_notice
from edgekd.data import (
    Case,
    LoadedCases,
    LoadedFrames,
    assign_splits,
    find_cases,
    hash_cases,
    hash_image,
    list_images,
    load_cases,
    load_frames,
)
from edgekd.data.frame_check import UNUSED_BITS
from edgekd.distill.golden import FramesWithTruths, read_golden_cases
from edgekd.errors import InputError, UsageError
from edgekd.preprocess import preprocess_frames
from edgekd.specs import PreprocessSpec


@dataclass(frozen=True)
class Inputs:
    """The data of a run.

    Attributes:
        splits: ``train``, ``val`` and ``test`` as tensors.
        unlabelled: frames without masks; None where none were named.
        golden: the frames that the bundle shall carry, with their truths; None where none were named.
        sha256: hash of each split's names and files, and of the frames under ``unlabelled``.
        cases_sha256: hash of each single case of each split.
    """

    splits: Mapping[str, LoadedCases]
    unlabelled: LoadedFrames | None
    golden: FramesWithTruths | None
    sha256: Mapping[str, str]
    cases_sha256: Mapping[str, tuple[str, ...]]


def load_inputs(data: Path, config: FitConfig, *, quiet: bool = False) -> Inputs:
    """Find, divide, hash and load the data set at ``data``, the frames without masks and the golden ones.

    Raises:
        InputError: as ``find_cases``, ``assign_splits``, ``load_cases``, ``load_frames`` and ``read_case``.
        UsageError: a frame without a mask is an image of the validation or test split, or all golden ones
            would be images that the student learns from.
    """
    parts = divide_cases(data, config)
    spec = config.build_preprocess()
    unlabelled, sha256 = None, hash_splits(parts)
    folder = config.unlabeled if isinstance(config, DistillConfig) else None
    if folder is not None:
        # By content, for the same reason: these have no name that counts.
        unlabelled = load_frames(
            sorted(list_images(Path(folder), quiet=quiet), key=hash_image), spec, quiet=quiet
        )
        sha256["unlabelled"] = hashlib.sha256("".join(unlabelled.sha256).encode()).hexdigest()
    golden = None
    if isinstance(config, DistillConfig) and config.golden is not None:
        trained = {hash_image(case.image) for case in parts["train"]}
        trained |= set() if unlabelled is None else set(unlabelled.sha256)
        golden = read_golden_cases(Path(config.golden), spec, config.classes, trained)
    splits = {name: load_cases(cases, spec, config.classes, quiet=quiet) for name, cases in parts.items()}
    _warn_of_copies(splits, quiet=quiet)
    seen = [cases.images for cases in splits.values()]
    seen += [] if unlabelled is None else [unlabelled.images]
    seen += [] if golden is None else [preprocess_frames([frame for frame, _ in golden], spec)]
    _warn_of_dark_frames(seen, spec, quiet=quiet)
    if folder is not None and unlabelled is not None:
        _check_not_judged(unlabelled, splits, folder)
    return Inputs(
        splits=splits,
        unlabelled=unlabelled,
        golden=golden,
        sha256=sha256,
        cases_sha256={name: tuple(hash_cases([case]) for case in cases) for name, cases in parts.items()},
    )


def divide_cases(data: Path, config: FitConfig) -> dict[str, list[Case]]:
    """Return the cases of each split in the order of their names.

    Not of their rows in a table: the same data trains the same network.
    """
    found = assign_splits(find_cases(data), fractions=config.split.fractions, salt=config.split.salt)
    return {name: sorted(cases, key=lambda case: case.name) for name, cases in found.items()}


def hash_splits(parts: Mapping[str, Sequence[Case]]) -> dict[str, str]:
    """Return the sha256 of each split's files."""
    return {name: hash_cases(cases) for name, cases in parts.items()}


def check_can_choose(val: LoadedCases) -> None:
    """Raise InputError where no validation case shows a foreground: no epoch has a Dice to be chosen by."""
    if not val.truths.any():
        raise InputError(
            "the best weights cannot be chosen by the validation split",
            received=f"{len(val.truths)} cases, all of them background",
            expected="a case with a foreground",
            action="give it one by larger split.fractions, another split.salt or a column split",
        )


def _warn_of_copies(splits: Mapping[str, LoadedCases], *, quiet: bool) -> None:
    learned = dict(zip(splits["train"].pixels_sha256, splits["train"].names, strict=True))
    for split in ("val", "test"):
        judging = zip(splits[split].pixels_sha256, splits[split].names, strict=True)
        copies = [(name, learned[sha256]) for sha256, name in judging if sha256 in learned]
        if copies:
            print_notice(
                f"{len(copies)} of {len(splits[split].names)} images of the {split} split are learned from "
                f"too ({copies[0][0]} is {copies[0][1]}), so its scores are too good: give copies one group; "
                "`edgekd data check` lists them",
                quiet=quiet,
            )


def _warn_of_dark_frames(
    tensors: Sequence[NDArray[np.float32]], spec: PreprocessSpec, *, quiet: bool
) -> None:
    """Tell where frames of 16 bits use few of them."""
    brightest = np.max([images.max(axis=(0, 2, 3)) for images in tensors], axis=0)
    highest = float((brightest * spec.std + spec.mean).max())
    value = round(highest * spec.white)
    if spec.frame_dtype == "uint16" and value.bit_length() <= spec.white.bit_length() - UNUSED_BITS:
        print_notice(
            f"the brightest pixel is about {value} of {spec.white}, so that the networks see little "
            "contrast: set bits_stored to what the device stores",
            quiet=quiet,
        )


def _check_not_judged(frames: LoadedFrames, splits: Mapping[str, LoadedCases], folder: str) -> None:
    seen = {sha256 for name in ("val", "test") for sha256 in splits[name].pixels_sha256}
    leaked = sum(sha256 in seen for sha256 in frames.pixels_sha256)
    if leaked:
        raise UsageError(
            f"frames in {folder} are images of the validation or test split",
            received=f"{leaked} of {len(frames.pixels_sha256)}",
            expected="none: the student would be judged on what it was taught",
            action="remove them from the folder",
        )
