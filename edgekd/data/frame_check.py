"""Whether the images of a set are the frames that a configuration promises: their depth, their crop box."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.data.inspection import CaseFacts, Finding, list_names
from edgekd.specs import CropBox

BITS = {"uint8": 8, "uint16": 16}


def report_depth(facts: Sequence[CaseFacts], frame_dtype: str) -> list[Finding]:
    """Return the fault of images that are not of one kind, or of another kind than was promised.

    Args:
        facts: the readable cases.
        frame_dtype: ``uint8`` or ``uint16``.
    """
    names = {dtype: [fact.case.name for fact in facts if fact.dtype == dtype] for dtype in BITS}
    if names["uint8"] and names["uint16"]:
        fewer = min(names, key=lambda dtype: len(names[dtype]))
        detail = (
            f"8 bit in {len(names['uint8'])} and 16 bit in {len(names['uint16'])} of the images; a model "
            f"takes one kind (frame_dtype): convert {list_names(names[fewer])}"
        )
        return [Finding("fault", "8 and 16 bit mixed", None, detail)]
    found = next((dtype for dtype in names if names[dtype] and dtype != frame_dtype), None)
    if found is None:
        return []
    detail = (
        f'{BITS[found]} bit in all images, where frame_dtype = "{frame_dtype}" promises {BITS[frame_dtype]}: '
        f'set frame_dtype = "{found}" in the configuration, or convert them'
    )
    return [Finding("fault", "unexpected bit depth", None, detail)]


def report_crop(facts: Sequence[CaseFacts], crop: CropBox | None) -> list[Finding]:
    """Return the fault of images that do not hold the crop box; None is no box.

    Args:
        facts: the readable cases.
        crop: in pixels of the image.
    """
    if crop is None:
        return []
    height, width = crop.top + crop.height, crop.left + crop.width
    small = [fact for fact in facts if fact.height < height or fact.width < width]
    if not small:
        return []
    detail = (
        f"the crop box needs height {height} and width {width}; too small are {len(small)} of {len(facts)} "
        f"images: {list_names(fact.case.name for fact in small)}; keep it within height "
        f"{min(fact.height for fact in facts)} and width {min(fact.width for fact in facts)}"
    )
    return [Finding("fault", "crop outside image", None, detail)]
