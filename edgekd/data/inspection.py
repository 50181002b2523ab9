"""Looking at one case of a data set: its facts for the summary, or the reasons why it cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekd.data.cases import Case
from edgekd.data.duplicates import make_thumbnail
from edgekd.data.loading import hash_array
from edgekd.data.readers import read_image, read_mask
from edgekd.errors import InputError
from edgekd.specs import CropBox

Severity = Literal["fault", "warning"]
SHOWN_NAMES = 5
SMALLEST_IMAGE = 2
SMALLEST_USEFUL_IMAGE = 32
MOST_CLASSES = 255
LOSSY_SUFFIXES = (".jpg", ".jpeg")
UNDECLARED_CLASSES = "undeclared classes"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Finding:
    """One thing to know about a data set before training on it.

    Attributes:
        severity: a fault must be repaired; a warning should be understood.
        kind: short and constant, for example ``size mismatch``.
        case: the case or file it is about; None for the whole set.
        detail: one sentence for the reader.
    """

    severity: Severity
    kind: str
    case: str | None
    detail: str


@dataclass(frozen=True)
class CaseFacts:
    """What the checks of the whole set need to know about one readable case.

    Attributes:
        case: the case.
        height, width: image size in pixels.
        dtype: ``uint8`` or ``uint16``.
        is_color: whether the image has three channels.
        brightest: the largest stored value within the crop box, or of all where it lies outside.
        class_pixels: (K,) int64, pixels of each class in the mask.
        thumbnail: see `make_thumbnail`.
        pixel_hash: sha256 (hex) of the image's size, type and pixels.
    """

    case: Case
    height: int
    width: int
    dtype: str
    is_color: bool
    brightest: int
    class_pixels: NDArray[np.int64]
    thumbnail: NDArray[np.float32]
    pixel_hash: str


class Inspection(NamedTuple):
    """What looking at one case gave.

    Attributes:
        facts: None where the case cannot be used.
        findings: what is to be known about it.
        needed_classes: K that its masks can be read with, where the declared classes are too few; else None.
    """

    facts: CaseFacts | None
    findings: list[Finding]
    needed_classes: int | None


def inspect_case(case: Case, num_classes: int, crop: CropBox | None = None) -> Inspection:
    """Return what there is to know about a case; never raises InputError.

    Args:
        case: the case to read.
        num_classes: K, background included.
        crop: the part that a network will see; None is all.
    """
    findings: list[Finding] = []
    image = _attempt(lambda: read_image(case.image), "unreadable image", case, findings)
    mask, needed_classes = _read_classes(case, num_classes, findings)
    if image is not None:
        findings += _judge_image_size(case, image)
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        findings.append(_report_size_mismatch(case, image, mask))
    if image is None or mask is None or any(finding.severity == "fault" for finding in findings):
        return Inspection(None, findings, needed_classes)
    facts = CaseFacts(
        case=case,
        height=image.shape[0],
        width=image.shape[1],
        dtype=image.dtype.name,
        is_color=image.ndim == 3,
        brightest=int(_crop_image(image, crop).max()),
        class_pixels=np.bincount(mask.ravel(), minlength=num_classes).astype(np.int64),
        thumbnail=make_thumbnail(image),
        pixel_hash=hash_array(image),
    )
    return Inspection(facts, findings, needed_classes)


def _crop_image(image: NDArray[Any], crop: CropBox | None) -> NDArray[Any]:
    if crop is None:
        return image
    part = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    return part if part.size else image


def is_lossy(case: Case) -> bool:
    """Return whether a mask of the case is stored with loss."""
    return any(path.suffix.lower() in LOSSY_SUFFIXES for path in case.masks)


def list_names(names: Iterable[str]) -> str:
    """Return the first SHOWN_NAMES names for a detail, and how many more there are."""
    names = list(names)
    rest = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _read_classes(
    case: Case, num_classes: int, findings: list[Finding]
) -> tuple[NDArray[np.uint8] | None, int | None]:
    try:
        return read_mask(case.masks, num_classes), None
    except InputError as error:
        needed_classes = _count_needed_classes(case, num_classes)
        kind = "unusable mask" if needed_classes is None else UNDECLARED_CLASSES
        findings.append(Finding("fault", kind, case.name, str(error)))
        return None, needed_classes


def _count_needed_classes(case: Case, num_classes: int) -> int | None:
    """Return the K that a refused mask fits, None where more classes would not help."""
    if is_lossy(case):
        return None
    try:
        needed = 1 + int(read_mask(case.masks, MOST_CLASSES).max())
    except InputError:
        return None
    return needed if needed > num_classes else None


def _attempt(read: Callable[[], Value], kind: str, case: Case, findings: list[Finding]) -> Value | None:
    try:
        return read()
    except InputError as error:
        findings.append(Finding("fault", kind, case.name, str(error)))
        return None


def _judge_image_size(case: Case, image: NDArray[Any]) -> list[Finding]:
    height, width = image.shape[:2]
    if min(height, width) >= SMALLEST_USEFUL_IMAGE:
        return []
    severity: Severity = "fault" if min(height, width) < SMALLEST_IMAGE else "warning"
    detail = f"height {height}, width {width}: too little to segment anything in"
    return [Finding(severity, "image too small", case.name, detail)]


def _report_size_mismatch(case: Case, image: NDArray[Any], mask: NDArray[np.uint8]) -> Finding:
    detail = (
        f"the image has height {image.shape[0]} and width {image.shape[1]}, "
        f"its mask {mask.shape[0]} and {mask.shape[1]}; export the mask again at the image's size"
    )
    return Finding("fault", "size mismatch", case.name, detail)
