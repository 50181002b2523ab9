"""What a run learns from and is judged by: the three splits in memory, and hashes that name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.config import FitConfig
from edgekd.data import LoadedCases, assign_splits, find_cases, hash_cases, load_cases


@dataclass(frozen=True)
class Inputs:
    """The data of a run.

    Attributes:
        splits: ``train``, ``val`` and ``test`` as tensors.
        sha256: hash of each split's names and files.
        cases_sha256: hash of each single case of each split.
    """

    splits: Mapping[str, LoadedCases]
    sha256: Mapping[str, str]
    cases_sha256: Mapping[str, tuple[str, ...]]


def load_inputs(data: Path, config: FitConfig, *, quiet: bool = False) -> Inputs:
    """Find, divide, hash and load the data set at ``data``.

    Raises:
        InputError: as ``find_cases``, ``assign_splits`` and ``load_cases``.
    """
    parts = assign_splits(find_cases(data), fractions=config.split.fractions, salt=config.split.salt)
    spec = config.build_preprocess()
    return Inputs(
        splits={name: load_cases(cases, spec, config.classes, quiet=quiet) for name, cases in parts.items()},
        sha256={name: hash_cases(cases) for name, cases in parts.items()},
        cases_sha256={name: tuple(hash_cases([case]) for case in cases) for name, cases in parts.items()},
    )
