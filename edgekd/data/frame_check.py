"""Whether the images of a set are the frames that a configuration promises: their depth, their crop box."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.data.inspection import CaseFacts, Finding, list_names
from edgekd.specs import FRAME_BITS, CropBox

# Fewer than all bits of a pixel in use are told from this many unused on.
UNUSED_BITS = 2


def report_depth(facts: Sequence[CaseFacts], frame_dtype: str) -> list[Finding]:
    """Return the fault of images that are not of one kind, or of another kind than was promised.

    Args:
        facts: the readable cases.
        frame_dtype: ``uint8`` or ``uint16``.
    """
    names = {dtype: [fact.case.name for fact in facts if fact.dtype == dtype] for dtype in FRAME_BITS}
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
        f"{FRAME_BITS[found]} bit in all images, where frame_dtype = "
        f'"{frame_dtype}" promises {FRAME_BITS[frame_dtype]}: '
        f'set frame_dtype = "{found}" in the configuration, or convert them'
    )
    return [Finding("fault", "unexpected bit depth", None, detail)]


def report_range(facts: Sequence[CaseFacts], frame_dtype: str, bits_stored: int | None) -> list[Finding]:
    """Return the fault of images brighter than was promised, the warning of bits that none of them uses.

    Args:
        facts: the readable cases.
        frame_dtype, bits_stored: see FitConfig.
    """
    facts = [fact for fact in facts if fact.dtype == frame_dtype]
    bits = FRAME_BITS[frame_dtype] if bits_stored is None else bits_stored
    bright = [fact.case.name for fact in facts if fact.brightest >= 2**bits]
    highest = max((fact.brightest for fact in facts), default=0)
    if bright:
        detail = (
            f"bits_stored = {bits} promises values up to {2**bits - 1}, the brightest pixel is {highest}; "
            f"too bright: {list_names(bright)}"
        )
        return [Finding("fault", "brighter than promised", None, detail)]
    if frame_dtype == "uint8" or not 0 < highest < 2 ** (bits - UNUSED_BITS):
        return []
    detail = (
        f"the brightest pixel of all images is {highest} of {2**bits - 1}, so that a network sees little "
        f"contrast: set bits_stored = {max(9, highest.bit_length())} in the configuration if the device "
        "stores so many"
    )
    return [Finding("warning", "bits that no image uses", None, detail)]


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
