"""Finding the image and mask files of a data set in the layouts that people really have.

- ``folders``: ``images/`` and ``masks/``, paired by stem.
- ``busi``: ``class/name.png`` beside ``class/name_mask.png``, ``class/name_mask_1.png`` …, merged.
- ``csv``: a table of paths; a folder that holds ``manifest.csv`` is this layout.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgekd.data.cases import Case, Dataset, Problem, Scan
from edgekd.data.manifest import MANIFEST_NAME, scan_manifest
from edgekd.data.readers import IMAGE_SUFFIXES
from edgekd.errors import InputError

SHOWN_PROBLEMS = 5
# With fewer of its images paired, a folder was not laid out as class folders at all.
FEWEST_PAIRED = 0.1
_BUSI_MASK = re.compile(r"(?P<image>.+)_mask(?:_\d+)?", re.IGNORECASE)
_LAYOUTS_HELP = (
    "images/ and masks/ with equal stems, class folders with NAME.png and NAME_mask.png, "
    f"or a table {MANIFEST_NAME} with the columns image and mask"
)


def find_cases(path: Path) -> Dataset:
    """Return the cases of the data set at ``path``, a folder or a CSV table.

    Raises:
        InputError: there is no data set, or an image or mask has no counterpart; the first few are named.
    """
    scan = scan_dataset(path)
    if scan.problems:
        raise _build_problems_error(path, scan.problems)
    return scan.dataset


def scan_dataset(path: Path) -> Scan:
    """Return the data set at ``path`` together with everything that is wrong with its pairs.

    Raises:
        InputError: nothing at ``path`` looks like a data set, so that there is nothing to judge.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"there is no data set at {path}",
            expected="a folder or a CSV table",
            action="check the path; `edgekd data phantom OUT` makes a synthetic data set",
        )
    if path.is_file():
        return scan_manifest(path)
    if (path / MANIFEST_NAME).is_file():
        return scan_manifest(path / MANIFEST_NAME)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _is_hidden(file, path)]
    if not files:
        raise InputError(f"the folder {path} holds no file", expected=_LAYOUTS_HELP)
    if (path / "images").is_dir() or (path / "masks").is_dir():
        scan = _scan_folders(path, files)
    else:
        scan = _scan_busi(path, files)
    if not scan.dataset.cases and not scan.problems:
        raise InputError(f"no image was found in {path}", expected=_LAYOUTS_HELP)
    return scan


def leave_masks_out(pictures: Iterable[Path]) -> list[Path]:
    """Return the pictures without those that are called as masks of another one, NAME_mask beside NAME."""
    listed = list(pictures)
    stems = {(picture.parent, picture.stem) for picture in listed}
    matches = [(picture, _BUSI_MASK.fullmatch(picture.stem)) for picture in listed]
    return [
        picture
        for picture, match in matches
        if match is None or (picture.parent, match["image"]) not in stems
    ]


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES


def _scan_folders(root: Path, files: Sequence[Path]) -> Scan:
    problems: list[Problem] = []
    images = _index_by_stem(root / "images", files, problems)
    masks = _index_by_stem(root / "masks", files, problems)
    problems += [_report_missing_mask(images[stem], root) for stem in images if stem not in masks]
    problems += [_report_missing_image(masks[stem], root) for stem in masks if stem not in images]
    problems += [_report_too_deep(file, root) for file in files if _is_too_deep(file, root)]
    cases = tuple(Case(stem, images[stem], (masks[stem],)) for stem in sorted(images.keys() & masks.keys()))
    ignored = tuple(file for file in files if file.parent.name in ("images", "masks") and not _is_image(file))
    return Scan(Dataset(root, "folders", cases), tuple(problems), ignored)


def _index_by_stem(folder: Path, files: Iterable[Path], problems: list[Problem]) -> dict[str, Path]:
    here = [file for file in files if file.parent == folder and _is_image(file)]
    counts = Counter(file.stem for file in here)
    for stem, count in counts.items():
        if count > 1:
            names = ", ".join(file.name for file in here if file.stem == stem)
            problems.append(Problem("stem twice", stem, f"{folder.name}/ holds {count} files of it: {names}"))
    return {file.stem: file for file in here}


def _scan_busi(root: Path, files: Sequence[Path]) -> Scan:
    pictures = [file for file in files if _is_image(file)]
    images: dict[str, Path] = {}
    twice: list[Problem] = []
    masks: dict[str, list[Path]] = {}
    for file in pictures:
        match = _BUSI_MASK.fullmatch(file.stem)
        stem = file.stem if match is None else match["image"]
        name = file.relative_to(root).with_name(stem).as_posix()
        if match is None:
            if name in images:
                twice.append(Problem("stem twice", name, f"{images[name].name} and {file.name}"))
            images[name] = file
        else:
            masks.setdefault(name, []).append(file)
    names = sorted(images.keys() & masks.keys())
    if len(names) < FEWEST_PAIRED * len(images):
        raise _build_no_dataset_error(root, len(images), names)
    problems = [*twice, *(_report_missing_mask(images[name], root) for name in images if name not in masks)]
    problems += [_report_missing_image(masks[name][0], root) for name in masks if name not in images]
    cases = tuple(Case(name, images[name], tuple(sorted(masks[name]))) for name in names)
    ignored = tuple(file for file in files if not _is_image(file))
    return Scan(Dataset(root, "busi", cases), tuple(problems), ignored)


def _build_no_dataset_error(root: Path, num_images: int, paired: Sequence[str]) -> InputError:
    # A name CLASS/STEM belongs to the folder itself; what lies deeper belongs to a folder within.
    nested = {name.split("/")[0] for name in paired if name.count("/") > 1}
    for folder in root.iterdir():
        if (folder / "images").is_dir() or (folder / MANIFEST_NAME).is_file():
            nested.add(folder.name)
    return InputError(
        f"the folder {root} does not look like a data set",
        received=f"{num_images} images, {len(paired)} of them with a mask",
        expected=_LAYOUTS_HELP,
        action=f"name one of its data sets: {', '.join(sorted(nested))}" if nested else None,
    )


def _is_too_deep(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).parts
    return len(parts) > 2 and parts[0] in ("images", "masks") and _is_image(file)


def _report_too_deep(file: Path, root: Path) -> Problem:
    name = file.relative_to(root).as_posix()
    return Problem("image in a folder within", name, "move it up, or out of the data set")


def _report_missing_mask(image: Path, root: Path) -> Problem:
    name = image.relative_to(root).as_posix()
    return Problem("image without mask", name, "add its mask (all background is a mask too), or remove it")


def _report_missing_image(mask: Path, root: Path) -> Problem:
    name = mask.relative_to(root).as_posix()
    return Problem("mask without image", name, "add its image, or remove it")


def _build_problems_error(path: Path, problems: Sequence[Problem]) -> InputError:
    shown = "; ".join(f"{problem.kind}: {problem.case}" for problem in problems[:SHOWN_PROBLEMS])
    rest = len(problems) - SHOWN_PROBLEMS
    return InputError(
        f"the data set {path} has {len(problems)} fault{'s' if len(problems) != 1 else ''}",
        received=shown + (f"; and {rest} more" if rest > 0 else ""),
        expected="every image with its mask and every mask with its image",
        action=f"run `edgekd data check {path}` for the whole list",
    )
