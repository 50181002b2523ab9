"""Every kind of file that is promised is read exactly, and every other is refused with its reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgekd.data import read_image, read_mask
from edgekd.data.readers import read_mask_values
from edgekd.errors import InputError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
DEEP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300
TRUTH = (GREY > 100).astype(np.uint8)


def _write_deep_colour_png(path: Path, pixels: NDArray[np.uint16]) -> None:
    def make_chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(make_chunk(*chunk) for chunk in chunks))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR])
def test_lossless_8_bit_comes_back_exactly(tmp_path: Path, suffix: str, pixels: NDArray[np.uint8]) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    result = read_image(path)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(DEEP).save(path)
    result = read_image(path)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, DEEP)


def test_big_endian_tiff_is_read_in_native_order(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.frombytes("I;16B", (8, 6), DEEP.astype(">u2").tobytes()).save(path)
    result = read_image(path)
    assert result.dtype == np.dtype("uint16") and result.dtype.isnative
    np.testing.assert_array_equal(result, DEEP)


def test_jpeg_is_read_grey_and_in_colour(tmp_path: Path) -> None:
    flat = np.full((16, 16), 90, np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.jpg")
    Image.fromarray(np.stack([flat] * 3, axis=2)).save(tmp_path / "b.jpeg")
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - 90).max() <= 1
    assert read_image(tmp_path / "b.jpeg").shape == (16, 16, 3)


def test_alpha_is_dropped_and_colours_kept_as_stored(tmp_path: Path) -> None:
    alpha = np.zeros_like(GREY)
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([GREY, alpha])).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), COLOUR)
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), GREY)


def test_palette_becomes_its_colours_and_1_bit_becomes_black_and_white(tmp_path: Path) -> None:
    picture = Image.fromarray(TRUTH)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "p.png")
    Image.fromarray(TRUTH.astype(bool)).save(tmp_path / "one.png")
    colours = np.array([[10, 20, 30], [200, 100, 50]], np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), colours[TRUTH])
    np.testing.assert_array_equal(read_image(tmp_path / "one.png"), TRUTH * 255)


def test_truncated_png_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(
        InputError, match=r"cut\.png cannot be read as an image.*export or copy the file again"
    ):
        read_image(path)


@pytest.mark.parametrize("content", [b"this is text", b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_other_content_under_an_image_name_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"text\.png cannot be read as an image"):
        read_image(path)


def test_damaged_inside_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "bad.png"
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"bad\.png cannot be read"):
        read_image(path)


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png.*no such file"):
        read_image(tmp_path / "gone.png")


def test_16_bit_colour_is_refused_and_not_cut_to_8(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    _write_deep_colour_png(path, np.dstack([DEEP] * 3))
    with pytest.raises(InputError, match=r"deep\.png holds 16-bit colour.*convert"):
        read_image(path)


def test_floating_point_and_stacks_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match=r"unsupported kind.*mode F"):
        read_image(tmp_path / "f.tif")
    Image.fromarray(GREY).save(tmp_path / "s.tif", save_all=True, append_images=[Image.fromarray(GREY)])
    with pytest.raises(InputError, match=r"s\.tif is a stack: received 2 pages"):
        read_image(tmp_path / "s.tif")


def _save_palette(path: Path, colours: list[int], pixels: NDArray[np.uint8] = TRUTH) -> None:
    picture = Image.fromarray(pixels)
    picture.putpalette(colours)
    picture.save(path)


@pytest.mark.parametrize(
    "pixels",
    [
        TRUTH,
        TRUTH * 255,
        TRUTH.astype(bool),
        TRUTH.astype(np.uint16),
        TRUTH.astype(np.uint16) * 255,
        TRUTH.astype(np.uint16) * 65535,
        np.dstack([TRUTH * 255] * 3),
        np.dstack([TRUTH * 255] * 3 + [np.full_like(TRUTH, 255)]),
        np.dstack([TRUTH * 255, np.full_like(TRUTH, 255)]),
    ],
    ids=["ids", "0-255", "1-bit", "16-bit ids", "16-bit 255", "16-bit white", "RGB", "RGBA", "LA"],
)
def test_masks_of_every_kind_mean_the_same(tmp_path: Path, pixels: NDArray[Any]) -> None:
    Image.fromarray(pixels).save(tmp_path / "m.png")
    result = read_mask((tmp_path / "m.png",), 2)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, TRUTH)


def test_palette_masks_count_by_index_unless_black_and_white(tmp_path: Path) -> None:
    _save_palette(tmp_path / "colours.png", [0, 0, 0, 200, 0, 0])
    _save_palette(tmp_path / "inverse.png", [255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask((tmp_path / "colours.png",), 2), TRUTH)
    np.testing.assert_array_equal(read_mask((tmp_path / "inverse.png",), 2), 1 - TRUTH)


def test_a_palette_of_more_classes_always_counts_by_index(tmp_path: Path) -> None:
    # Class 1 is drawn grey, so a file without it shows black and white alone.
    _save_palette(tmp_path / "m.png", [0, 0, 0, 128, 128, 128, 255, 255, 255], pixels=TRUTH * 2)
    np.testing.assert_array_equal(read_mask((tmp_path / "m.png",), 3), TRUTH * 2)


def test_several_masks_merge_by_maximum(tmp_path: Path) -> None:
    parts = np.zeros((2, 6, 8), np.uint8)
    parts[0, :3], parts[1, 2:] = 1, 2
    for index, part in enumerate(parts):
        Image.fromarray(part).save(tmp_path / f"{index}.png")
    result = read_mask((tmp_path / "0.png", tmp_path / "1.png"), 3)
    np.testing.assert_array_equal(result, parts.max(axis=0))


def test_all_white_mask_is_all_class_1(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "m.png")
    assert (read_mask((tmp_path / "m.png",), 2) == 1).all()


@pytest.mark.parametrize("values", [[0, 2], [0, 1, 255], [0, 128], [0, 1, 2]])
def test_undeclared_classes_are_listed(tmp_path: Path, values: list[int]) -> None:
    Image.fromarray(np.resize(np.array(values, np.uint8), (4, 6))).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=rf"m\.png holds undeclared classes.* {values[-1]}.*0 to 1"):
        read_mask((tmp_path / "m.png",), 2)


def test_undeclared_classes_in_jpeg_point_at_jpeg(tmp_path: Path, rng: np.random.Generator) -> None:
    noise = (rng.random((32, 32)) > 0.5).astype(np.uint8) * 255
    Image.fromarray(noise).save(tmp_path / "m.jpg", quality=40)
    with pytest.raises(InputError, match="JPEG changes mask values"):
        read_mask((tmp_path / "m.jpg",), 2)


def test_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.fromarray(TRUTH).save(tmp_path / "m.png")
    Image.fromarray(TRUTH[:4]).save(tmp_path / "n.png")
    assert read_mask((tmp_path / "m.png",), 2, (6, 8)).shape == (6, 8)
    with pytest.raises(InputError, match=r"another size.*height 6, width 8.*height 8, width 6"):
        read_mask((tmp_path / "m.png",), 2, (8, 6))
    with pytest.raises(InputError, match=r"n\.png has another size"):
        read_mask((tmp_path / "m.png", tmp_path / "n.png"), 2)


def test_shape_in_alpha_alone_is_refused_and_not_read_as_empty(tmp_path: Path) -> None:
    black = np.zeros_like(TRUTH)
    for name, channels in (("rgba", (black, black, black, TRUTH * 255)), ("la", (black, TRUTH * 255))):
        Image.fromarray(np.dstack(channels)).save(tmp_path / f"{name}.png")
        with pytest.raises(InputError, match="shape in the alpha channel"):
            read_mask((tmp_path / f"{name}.png",), 2)


def test_coloured_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=r"is coloured.*one grey channel"):
        read_mask_values(tmp_path / "m.png", 2)
