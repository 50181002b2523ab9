"""What a run learns from and is judged by: the three splits in memory, and hashes that name them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.config import DistillConfig, FitConfig
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
from edgekd.distill.golden import FramesWithTruths, read_golden_cases
from edgekd.errors import UsageError


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
    parts = assign_splits(find_cases(data), fractions=config.split.fractions, salt=config.split.salt)
    spec = config.build_preprocess()
    unlabelled, sha256 = None, {name: hash_cases(cases) for name, cases in parts.items()}
    if isinstance(config, DistillConfig) and config.unlabeled is not None:
        unlabelled = load_frames(list_images(Path(config.unlabeled)), spec, quiet=quiet)
        _check_not_judged(unlabelled, [*parts["val"], *parts["test"]], config.unlabeled)
        sha256["unlabelled"] = hashlib.sha256("".join(sorted(unlabelled.sha256)).encode()).hexdigest()
    golden = None
    if isinstance(config, DistillConfig) and config.golden is not None:
        trained = {hash_image(case.image) for case in parts["train"]}
        trained |= set() if unlabelled is None else set(unlabelled.sha256)
        golden = read_golden_cases(Path(config.golden), spec, config.classes, trained)
    return Inputs(
        splits={name: load_cases(cases, spec, config.classes, quiet=quiet) for name, cases in parts.items()},
        unlabelled=unlabelled,
        golden=golden,
        sha256=sha256,
        cases_sha256={name: tuple(hash_cases([case]) for case in cases) for name, cases in parts.items()},
    )


def _check_not_judged(frames: LoadedFrames, judged: Sequence[Case], folder: str) -> None:
    seen = {hash_image(case.image) for case in judged}
    leaked = sum(sha256 in seen for sha256 in frames.sha256)
    if leaked:
        raise UsageError(
            f"frames in {folder} are images of the validation or test split",
            received=f"{leaked} of {len(frames.sha256)}",
            expected="none: the student would be judged on what it was taught",
            action="remove them from the folder",
        )
