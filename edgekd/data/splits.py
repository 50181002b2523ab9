"""Dividing cases into train, validation and test so that no group crosses and no case ever moves.

A group's place depends on its own name alone (a hash), so that adding cases moves no other case.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate

from edgekd.data.cases import Case, Dataset
from edgekd.errors import InputError, UsageError

SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS = (0.7, 0.15, 0.15)
DEFAULT_SALT = "edgekd"


def assign_splits(
    dataset: Dataset,
    *,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    salt: str = DEFAULT_SALT,
    allow_empty: bool = False,
) -> dict[str, tuple[Case, ...]]:
    """Return the cases of each of ``SPLITS``, in the data set's order.

    Where the data set names splits itself, they are taken as they are; else a case goes where the
    sha256 of ``salt:group`` (its name where it has no group) falls among the cumulated fractions.

    Args:
        dataset: the cases.
        fractions: expected share of the groups in each split, positive, summing to 1.
        salt: another salt gives another division.
        allow_empty: take a division in which a split holds no case; training needs all of them.

    Raises:
        UsageError: fractions that are not three positive numbers summing to 1.
        InputError: a named split is unknown or missing for some cases, a group is in two splits, or
            a split is empty and ``allow_empty`` was not said.
    """
    _check_fractions(fractions)
    named = [case for case in dataset.cases if case.split is not None]
    if named:
        _check_named_splits(dataset.cases)
    bounds = list(accumulate(fractions))
    parts: dict[str, list[Case]] = {split: [] for split in SPLITS}
    for case in dataset.cases:
        parts[case.split or choose_split(case.group_or_name, bounds, salt)].append(case)
    if not allow_empty:
        _check_none_empty(parts, has_names=bool(named))
    return {split: tuple(cases) for split, cases in parts.items()}


def choose_split(group: str, bounds: Sequence[float], salt: str) -> str:
    """Return the split of a group: where its hash, as a number in [0, 1), falls below a bound first.

    Args:
        group: the group's name.
        bounds: cumulated fractions, one for each of ``SPLITS``.
        salt: see `assign_splits`.
    """
    digest = hashlib.sha256(f"{salt}:{group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2.0**64
    for split, bound in zip(SPLITS, bounds, strict=True):
        if position < bound:
            return split
    # Cumulated fractions may end a rounding error below 1.
    return SPLITS[-1]


def find_crossing_groups(cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """Return the groups whose cases name more than one split, with these splits."""
    seen: dict[str, set[str]] = {}
    for case in cases:
        if case.split is not None:
            seen.setdefault(case.group_or_name, set()).add(case.split)
    return {group: tuple(sorted(splits)) for group, splits in seen.items() if len(splits) > 1}


def _check_fractions(fractions: Sequence[float]) -> None:
    is_valid = len(fractions) == len(SPLITS) and all(0 < value < 1 for value in fractions)
    if not is_valid or not math.isclose(math.fsum(fractions), 1.0, abs_tol=1e-6):
        raise UsageError(
            "the split fractions do not divide a whole",
            received=tuple(fractions),
            expected=f"three positive numbers that sum to 1, for {', '.join(SPLITS)}",
        )


def _check_named_splits(cases: Sequence[Case]) -> None:
    for case in cases:
        if case.split is None:
            raise InputError(
                f"the case {case.name} names no split while others do",
                expected="the column split filled in every row, or in none",
            )
        if case.split not in SPLITS:
            raise InputError(
                f"the case {case.name} names an unknown split",
                received=repr(case.split),
                expected="one of " + ", ".join(SPLITS),
            )
    for group, splits in find_crossing_groups(cases).items():
        raise InputError(
            f"the group {group} is in several splits",
            received=" and ".join(splits),
            expected="all cases of a group in one split",
            action="correct the column split, or empty it to have the division made by hash",
        )


def _check_none_empty(parts: dict[str, list[Case]], *, has_names: bool) -> None:
    empty = [split for split in SPLITS if not parts[split]]
    if empty:
        raise InputError(
            f"no case falls into {' and '.join(empty)}",
            received=", ".join(f"{len(parts[split])} in {split}" for split in SPLITS),
            expected="at least one case in each",
            action="name every split in the column split"
            if has_names
            else "add cases, choose another salt, or name the splits in a column split of a CSV table",
        )
