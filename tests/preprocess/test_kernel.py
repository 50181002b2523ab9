from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edgekd.preprocess import preprocess_frame
from edgekd.preprocess.kernel import build_kernel_options, compute_grid, count_moved_bytes
from edgekd.preprocess.tables import build_interpolation_table
from edgekd.specs import CropBox, PreprocessSpec

TOLERANCE_OF_RANGE = 2e-6


@st.composite
def draw_specs(draw: st.DrawFn) -> PreprocessSpec:
    color: Literal["gray", "rgb"] = draw(st.sampled_from(["gray", "rgb"]))
    dtype: Literal["uint8", "uint16"] = draw(st.sampled_from(["uint8", "uint16"]))
    crop = None
    if draw(st.booleans()):
        crop = CropBox(
            top=draw(st.integers(0, 9)),
            left=draw(st.integers(0, 9)),
            height=draw(st.integers(1, 60)),
            width=draw(st.integers(1, 60)),
        )
    channels = 1 if color == "gray" else 3
    means = st.tuples(*[st.floats(0.0, 1.0)] * channels)
    deviations = st.tuples(*[st.floats(0.05, 4.0)] * channels)
    return PreprocessSpec(
        height=draw(st.integers(1, 70)),
        width=draw(st.integers(1, 70)),
        color=color,
        frame_order=draw(st.sampled_from(["rgb", "bgr"])),
        frame_dtype=dtype,
        crop=crop,
        antialias=draw(st.booleans()),
        scale=1 / np.iinfo(dtype).max,
        mean=draw(means),
        std=draw(deviations),
    )


def draw_frames(rng: np.random.Generator, spec: PreprocessSpec, channels: int) -> np.ndarray:
    """A batch of frames large enough for the crop, dark and bright pixels more often than chance would."""
    crop = spec.crop
    lowest = (crop.top + crop.height, crop.left + crop.width) if crop else (2, 2)
    height, width = (int(rng.integers(max(low, 2), max(low, 2) + 90)) for low in lowest)
    shape = (int(rng.integers(1, 4)), height, width) + ((3,) if channels == 3 else ())
    brightest = np.iinfo(spec.frame_dtype).max
    frames = rng.integers(0, brightest, shape, dtype=spec.frame_dtype, endpoint=True)
    extreme = rng.random(shape)
    frames[extreme < 0.2] = 0
    frames[extreme > 0.8] = brightest
    return frames


def pad_rows(rng: np.random.Generator, frames: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Put unused bytes after each row and frame; returns the bytes and the (frame, row) strides."""
    count, height = frames.shape[:2]
    row_bytes = frames[0, 0].nbytes
    padded = row_bytes + frames.itemsize * int(rng.integers(0, 9))
    buffer = rng.integers(0, 256, (count, height + 1, padded), dtype=np.uint8)
    buffer[:, :height, :row_bytes] = (
        np.ascontiguousarray(frames).view(np.uint8).reshape(count, height, row_bytes)
    )
    return buffer, ((height + 1) * padded, padded)


def measure_difference(shim: Any, spec: PreprocessSpec, rng: np.random.Generator) -> float:
    """Return the largest difference to the truth, as a part of the channel's range."""
    largest = 0.0
    ranges = np.array([np.iinfo(spec.frame_dtype).max * spec.scale / std for std in spec.std])[:, None, None]
    for channels in (1, 3):
        frames = draw_frames(rng, spec, channels)
        buffer, strides = pad_rows(rng, frames)
        images = shim.run(buffer, frames.shape[1:], strides, len(frames))
        for image, frame in zip(images, frames, strict=True):
            difference = np.abs(image.astype(np.float64) - preprocess_frame(frame, spec)) / ranges
            largest = max(largest, float(difference.max()))
    return largest


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    # Every example is compiled: to shrink a failure would take minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(spec=draw_specs(), seed=st.integers(0, 2**32 - 1))
def test_kernel_computes_the_truth(compile_shim: Callable[..., Any], spec: PreprocessSpec, seed: int) -> None:
    assert measure_difference(compile_shim(spec), spec, np.random.default_rng(seed)) <= TOLERANCE_OF_RANGE


@pytest.mark.parametrize(("height", "width"), [(768, 1024), (129, 4001)])
def test_kernel_computes_the_truth_of_large_frames(
    compile_shim: Callable[..., Any], height: int, width: int
) -> None:
    spec = PreprocessSpec(height=31, width=32)
    frame = np.random.default_rng(3).integers(0, 256, (height, width), dtype=np.uint8)
    image = compile_shim(spec).run(frame, frame.shape, (frame.nbytes, width), 1)[0]
    assert np.abs(image - preprocess_frame(frame, spec)).max() <= TOLERANCE_OF_RANGE * 4


def test_kernel_computes_the_truth_for_windows_of_any_width(compile_shim: Callable[..., Any]) -> None:
    spec = PreprocessSpec(height=3, width=5)
    shim, rng = compile_shim(spec), np.random.default_rng(0)
    widths = {}
    for width in range(5, 60):
        taps = build_interpolation_table(width, spec.width, spec.antialias).taps
        frames = rng.integers(0, 256, (1, 7, width), dtype=np.uint8)
        images = shim.run(frames, (7, width), (7 * width, width), 1)
        difference = np.abs(images[0].astype(np.float64) - preprocess_frame(frames[0], spec)).max()
        widths[taps] = max(widths.get(taps, 0.0), float(difference))
    assert set(widths) >= set(range(3, 21))
    assert max(widths.values()) <= TOLERANCE_OF_RANGE / spec.std[0]


def test_half_output_is_the_nearest_half(compile_shim: Callable[..., Any]) -> None:
    spec = PreprocessSpec(height=40, width=41, color="rgb", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    frame = np.random.default_rng(5).integers(0, 256, (77, 65, 3), dtype=np.uint8)
    arguments = (frame, frame.shape, (frame.nbytes, 65 * 3), 1)
    single = compile_shim(spec).run(*arguments)
    half = compile_shim(spec, half=True).run(*arguments)
    np.testing.assert_array_equal(half, single.astype(np.float16))


def test_normalisation_is_folded_exactly_once() -> None:
    spec = PreprocessSpec(height=3, width=5, scale=0.5, mean=(3.0,), std=(4.0,))
    options = build_kernel_options(spec)
    values = {name: text.rstrip("f") for name, _, text in (option[2:].partition("=") for option in options)}
    assert float.fromhex(values["GAIN_0"]) == 0.125
    assert float.fromhex(values["OFFSET_0"]) == -0.75
    assert values["OUT_HEIGHT"] == "3" and values["OUT_WIDTH"] == "5" and values["HALF_OUT"] == "0"


def test_grid_covers_every_pixel() -> None:
    assert compute_grid(PreprocessSpec(height=8, width=32), 1) == (1, 1, 1)
    assert compute_grid(PreprocessSpec(height=9, width=33), 5) == (2, 2, 5)


@pytest.mark.parametrize(
    ("changes", "shape", "half", "expected"),
    [
        # Reduced by 2: two taps a row and column, every pixel is touched once.
        ({"antialias": False}, (8, 6), False, 8 * 6 + 4 * 3 * 4 + 4 * (4 * 3 + 3 * 3)),
        # Reduced by 4 without antialias only half of the rows and columns is touched.
        ({"antialias": False}, (16, 12), False, 8 * 6 + 4 * 3 * 4 + 4 * (4 * 3 + 3 * 3)),
        ({"antialias": False}, (16, 12), True, 8 * 6 + 4 * 3 * 2 + 4 * (4 * 3 + 3 * 3)),
        ({"antialias": False, "frame_dtype": "uint16"}, (8, 6, 3), False, 8 * 6 * 6 + 48 + 84),
        ({"antialias": False, "crop": CropBox(top=1, left=2, height=8, width=6)}, (99, 99), False, 180),
        ({"antialias": True}, (16, 12), False, 16 * 12 + 48 + 4 * (4 * 9 + 3 * 9)),
    ],
)
def test_moved_bytes_are_what_the_filters_touch(
    changes: dict[str, Any], shape: tuple[int, ...], half: bool, expected: int
) -> None:
    spec = PreprocessSpec(height=4, width=3, **changes)
    assert count_moved_bytes(spec, shape, half=half) == expected
