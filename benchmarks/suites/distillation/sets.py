"""The data sets of an experiment: real ones in place, the phantom, and sets with a part of the masks."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from PIL import Image

from edgekd.atomic import staged_folder, write_text_atomic
from edgekd.config import SplitConfig, read_environment
from edgekd.data import Case, assign_splits, find_cases, read_mask, write_phantom
from edgekd.data.splits import choose_split
from edgekd.errors import InputError
from edgekd.specs import ClassSpec

PHANTOM = "phantom"
PHANTOM_FRAMES = 320
MASKS_SALT = "masks kept"


def locate_set(name: str, out: Path) -> Path:
    """Return the folder of a set; the phantom is made in ``out`` where it is not there yet.

    Raises:
        InputError: ``EDGEKD_DATA`` is unset or holds no such set.
    """
    if name == PHANTOM:
        folder = out / "data" / PHANTOM
        if not folder.is_dir():
            write_phantom(folder, PHANTOM_FRAMES, 0, quiet=True)
        return folder
    root = read_environment().data
    if root is None or not (root / name).is_dir():
        raise InputError(
            f"the data set {name!r} is not here",
            received=f"EDGEKD_DATA={'' if root is None else root}",
            expected=f"a folder that holds {name}/",
            action=f"set EDGEKD_DATA, or plan with the set {PHANTOM}",
        )
    return root / name


def keep_masks(data: Path, part: float, out: Path) -> Path:
    """Write a data set in which a part of the training groups keep their masks, and return its folder.

    Which groups do is decided by their hash. The folder holds ``manifest.csv`` with the kept training cases
    and all others of the split, ``masks/`` of cases that have several, merged, and ``unlabelled/``, links to
    the images of the remaining training cases.

    Args:
        data: the full set.
        part: of the training groups, between 0 and 1.
        out: the folder to write, unless it is there already.

    Raises:
        InputError: as ``find_cases``, ``assign_splits`` and ``read_mask``.
    """
    if out.is_dir():
        return out
    split = SplitConfig()
    parts = assign_splits(find_cases(data), fractions=split.fractions, salt=split.salt)
    with staged_folder(out) as staging:
        (staging / "unlabelled").mkdir()
        rows = io.StringIO()
        table = csv.writer(rows)
        table.writerow(("image", "mask", "group", "split"))
        for name, cases in parts.items():
            for index, case in enumerate(cases):
                group = case.group_or_name
                if name == "train" and choose_split(group, (part, 1.0, 1.0), MASKS_SALT) != "train":
                    link = staging / "unlabelled" / f"{index:05d}{case.image.suffix}"
                    link.symlink_to(case.image.resolve())
                else:
                    mask = _name_mask(case, staging / "masks" / f"{name}-{index:05d}.png")
                    table.writerow((case.image.resolve(), mask, group, name))
        write_text_atomic(staging / "manifest.csv", rows.getvalue())
    return out


def _name_mask(case: Case, merged: Path) -> str:
    """Return what a table calls the mask of a case; several, which it cannot name, are merged into a file."""
    if len(case.masks) == 1:
        return str(case.masks[0].resolve())
    merged.parent.mkdir(exist_ok=True)
    Image.fromarray(read_mask(case.masks, ClassSpec().count)).save(merged)
    return f"{merged.parent.name}/{merged.name}"
