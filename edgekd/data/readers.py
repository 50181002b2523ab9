"""Reading image and mask files: PNG, JPEG, BMP and TIFF, 8 and 16 bit, grey and colour.

What is stored is what is read: no orientation tag is applied and no value is stretched.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekd.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_BLACK_AND_WHITE = ({255}, {0, 255}, {65535}, {0, 65535})
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: Path) -> NDArray[Any]:
    """Return the pixels of an image file as a new array: (H, W) grey or (H, W, 3) RGB, uint8 or uint16.

    An alpha channel is dropped and the stored colours are kept: they are not blended over any
    background. A palette becomes its colours, a 1-bit image 0 and 255.

    Raises:
        InputError: the file is no readable image, is a stack of several, or holds 16-bit colour,
            floating point or CMYK.
    """
    picture = _open_picture(path)
    if picture.mode in ("L", "RGB"):
        return np.array(picture)
    if picture.mode == "1":
        return np.array(picture.convert("L"))
    if picture.mode == "LA":
        return np.ascontiguousarray(np.asarray(picture)[..., 0])
    if picture.mode == "RGBA":
        return np.ascontiguousarray(np.asarray(picture)[..., :3])
    if picture.mode in ("P", "PA"):
        return np.array(picture.convert("RGB"))
    return _read_deep_grey(picture, path)


def read_mask(
    paths: Sequence[Path], num_classes: int, shape: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return the class ids of a mask: (H, W) uint8; several files are merged by their maximum.

    Each file holds class ids or, where there are two classes, 0 and white (255, 65535 in 16 bit, 1 in one
    bit). Accepted are grey, colour with equal channels (alpha is dropped), and palettes: the index
    is the class, unless there are two classes and the palette's used colours are black and white, which
    then count.

    Args:
        paths: one or more files of equal size.
        num_classes: K, background included.
        shape: (H, W) of the image the mask belongs to, checked where given.

    Raises:
        InputError: unreadable, another size, unequal colour channels, or a class outside 0 … K-1.
    """
    merged: NDArray[np.uint8] | None = None
    for path in paths:
        classes = _read_classes(path, num_classes)
        expected = shape if merged is None else merged.shape
        if expected is not None and classes.shape != tuple(expected):
            raise InputError(
                f"the mask {path} has another size than its image",
                received=_describe_size(classes.shape),
                expected=_describe_size(tuple(expected)),
                action="export the mask again at the size of its image",
            )
        merged = classes if merged is None else np.maximum(merged, classes)
    if merged is None:
        raise InputError("a case without a mask file", expected="at least one")
    return merged


def read_mask_values(path: Path, num_classes: int) -> NDArray[Any]:
    """Return the values stored in one mask file, (H, W) integers or bool, not yet judged as classes.

    Args:
        path: the file.
        num_classes: K, background included; with two a palette may mean its colours, see `read_mask`.

    Raises:
        InputError: unreadable, colour whose channels differ, or a shape in the alpha channel alone.
    """
    picture = _open_picture(path)
    if picture.mode == "P":
        return _read_palette_mask(picture, num_classes)
    if picture.mode in ("1", "L"):
        return np.asarray(picture)
    if picture.mode not in ("LA", "RGB", "RGBA"):
        return _read_deep_grey(picture, path)
    pixels = np.asarray(picture)
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    if (colours != colours[..., :1]).any():
        raise InputError(
            f"the mask {path} is coloured",
            received="red, green and blue values that differ",
            expected="class ids, or a palette whose index is the class",
            action="export the mask as one grey channel of class ids",
        )
    if pixels.shape[2] != 3:
        _check_alpha(path, colours, pixels[..., -1])
    return colours[..., 0]


def _check_alpha(path: Path, colours: NDArray[Any], alpha: NDArray[Any]) -> None:
    if (alpha != alpha[0, 0]).any() and (colours == colours[0, 0]).all():
        raise InputError(
            f"the mask {path} holds its shape in the alpha channel",
            received=f"one colour, {_list_values(np.unique(alpha).tolist())} as alpha",
            expected="class ids in a grey channel",
            action="export the mask again without transparency",
        )


def _read_classes(path: Path, num_classes: int) -> NDArray[np.uint8]:
    values = read_mask_values(path, num_classes)
    present = np.unique(values)
    is_white = set(present.tolist()) in _BLACK_AND_WHITE or (values.dtype == bool and bool(present.any()))
    if is_white and num_classes > 2:
        # White may stand for any of them: tools that spread three classes over the range write the last so.
        raise InputError(
            f"the mask {path} names no class, in a set of {num_classes}",
            received=f"{_list_values(present.astype(int).tolist())} alone, as where there is one class",
            expected=f"class ids 0 to {num_classes - 1}",
            action="write the ids themselves into the mask",
        )
    if is_white:
        return (values != 0).astype(np.uint8)
    undeclared = [int(value) for value in present if value >= num_classes]
    if undeclared:
        raise InputError(
            f"the mask {path} holds undeclared classes",
            received=f"the values {_list_values(undeclared)}",
            expected="class ids 0 to 1, or 0 and 255 alone"
            if num_classes == 2
            else f"class ids 0 to {num_classes - 1}",
            action=_advise_on_values(path),
        )
    return values.astype(np.uint8)


def _advise_on_values(path: Path) -> str:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return "JPEG changes mask values: export the mask as PNG"
    return (
        "declare all classes (classes.names in a configuration), correct the mask, or name the data set meant"
    )


def _list_values(values: Sequence[int], shown: int = 6) -> str:
    text = ", ".join(str(value) for value in values[:shown])
    return text + (f" and {len(values) - shown} more" if len(values) > shown else "")


def _describe_size(shape: Sequence[int]) -> str:
    return f"height {shape[0]}, width {shape[1]}"


def _read_palette_mask(picture: Image.Image, num_classes: int) -> NDArray[Any]:
    indices = np.asarray(picture)
    if num_classes > 2:
        # A file that lacks the classes in between may be black and white by chance.
        return indices
    colours = np.asarray(picture.convert("RGB"))
    is_grey = bool((colours == colours[..., :1]).all())
    if is_grey and set(np.unique(colours[..., 0]).tolist()) <= {0, 255}:
        return colours[..., 0]
    return indices


def _open_picture(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            pages = getattr(picture, "n_frames", 1)
            # Pillow keeps the high byte of 16-bit colour only, and does not say so; the raw mode tells. The
            # parts of a tile have no names before version 11.
            raw_mode = str(picture.tile[0][3]) if picture.tile else ""
            picture.load()
            copy = picture.copy()
    except _DECODING_ERRORS as error:
        raise InputError(
            f"{path} cannot be read as an image",
            received=_describe_failure(error),
            expected="a whole PNG, JPEG, BMP or TIFF file",
            action="export or copy the file again, or remove it",
        ) from error
    if pages > 1 and picture.format == "TIFF":
        raise InputError(f"{path} is a stack", received=f"{pages} pages", expected="one image a file")
    if ";16" in raw_mode and copy.mode in ("RGB", "RGBA", "LA"):
        raise InputError(
            f"{path} holds 16-bit colour",
            received=raw_mode,
            expected="8-bit colour or 16-bit grey",
            action="convert the file: ultrasound is grey, so 16-bit grey loses nothing",
        )
    return copy


def _describe_failure(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "content of another kind"
    return str(error) or type(error).__name__


def _read_deep_grey(picture: Image.Image, path: Path) -> NDArray[Any]:
    pixels = np.asarray(picture)
    is_deep_grey = picture.mode.startswith("I") and pixels.size > 0
    if not is_deep_grey or pixels.min() < 0 or pixels.max() > np.iinfo(np.uint16).max:
        raise InputError(
            f"{path} has pixels of an unsupported kind",
            received=f"Pillow mode {picture.mode}",
            expected="8- or 16-bit grey, or 8-bit RGB",
            action="convert the file",
        )
    return pixels.astype(np.uint16)
