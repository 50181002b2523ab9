"""What a data set is made of: cases, and what was wrong with those that could not be formed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["folders", "busi", "csv"]


@dataclass(frozen=True)
class Case:
    """One image with its truth.

    Attributes:
        name: unique in the data set; in the folder layout the stem, in the BUSI layout ``class/stem``,
            in a table the image's path as written there.
        image: the image file.
        masks: its mask files, at least one; several are merged.
        group: what must not be divided between splits (a patient); None where unknown.
        split: the split that the data set itself names; None where it names none.
    """

    name: str
    image: Path
    masks: tuple[Path, ...]
    group: str | None = None
    split: str | None = None

    @property
    def group_or_name(self) -> str:
        """The group, or the case's own name where it has none."""
        return self.name if self.group is None else self.group


@dataclass(frozen=True)
class Dataset:
    """The cases under one root, in the order of their names (tables: in the order of their rows)."""

    root: Path
    layout: Layout
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Problem:
    """A file or row of a data set from which no case could be formed.

    Attributes:
        kind: short and constant, for example ``mask without image``.
        case: the file or row it is about.
        detail: one sentence for the reader.
    """

    kind: str
    case: str
    detail: str


@dataclass(frozen=True)
class Scan:
    """A data set as found, faults included.

    Attributes:
        dataset: the cases that could be formed.
        problems: what could not.
        ignored: files that are neither image nor mask by their suffix.
        unknown_columns: of a table without a column group, those that are not read.
    """

    dataset: Dataset
    problems: tuple[Problem, ...]
    ignored: tuple[Path, ...]
    unknown_columns: tuple[str, ...] = ()
