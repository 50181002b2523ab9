"""Frames of one size are segmented without taking memory for each, and packed as the truth has them."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekd.bundle import Bundle
from edgekd.preprocess import convert_to_gray
from edgekd.runtime import MaskRing, load
from edgekd.runtime.frames import FramePacker
from edgekd.specs import PreprocessSpec

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
# Python's own small objects come and go in every call; a frame or a mask is far larger.
SMALL_BYTES = 6_000
HEIGHT, WIDTH = 200, 310
SPEC = PreprocessSpec(height=128, width=128)
RNG = np.random.default_rng(11)
GRAY = RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
STRIDED = np.repeat(GRAY, 2, axis=1)[:, ::2]
# As np.frombuffer and np.asarray of a Pillow image give it.
SEALED = np.frombuffer(GRAY.tobytes(), np.uint8).reshape(GRAY.shape)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, graphed_student: Callable[..., Bundle]) -> Bundle:
    from edgekd.export import export_bundle

    pytest.importorskip("openvino")
    made = graphed_student(tmp_path_factory.mktemp("memory") / "tiny.edgekd", SPEC)
    export_bundle(made, ["openvino"], quiet=True)
    return made


@pytest.fixture(params=sorted(PACKAGES))
def target(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(PACKAGES[request.param])
    return request.param


def measure_peak_bytes(call: Callable[[], Any]) -> int:
    """Return what Python and NumPy hold more than before at the highest point of one call."""
    for _ in range(3):
        call()
    tracemalloc.start()
    try:
        call()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "frames",
    [[GRAY], [STRIDED], [COLOR], [SEALED], [GRAY, STRIDED, COLOR[..., 0]]],
    ids=["gray", "strided", "colour", "read only", "three"],
)
def test_the_steady_state_takes_no_memory(bundle: Bundle, target: str, frames: list[np.ndarray]) -> None:
    with load(bundle, target, threads=1) as segmenter:
        ring = MaskRing(segmenter, slots=2, frames=len(frames))
        assert measure_peak_bytes(lambda: segmenter.segment(frames, out=ring.take())) < SMALL_BYTES
        # The same measure sees a mask that is new, and a frame that is copied.
        assert measure_peak_bytes(lambda: segmenter.segment(frames)) > ring.take().nbytes
        assert measure_peak_bytes(lambda: segmenter.segment([GRAY.copy()], out=ring.take()[:1])) > GRAY.nbytes


def test_masks_in_a_ring_are_those_of_new_arrays(bundle: Bundle, target: str) -> None:
    frames = [GRAY, GRAY[::-1], STRIDED[:, ::-1], COLOR]
    with load(bundle, target, threads=1) as segmenter:
        expected = [segmenter.segment([frame]) for frame in frames]
        ring = MaskRing(segmenter, slots=len(frames))
        found = [segmenter.segment([frame], out=ring.take()) for frame in frames]
        together = segmenter.segment(frames)
        again = segmenter.segment(frames[:1])
    assert len({mask.tobytes() for mask in expected}) == len(frames)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(together, np.concatenate(expected))
    np.testing.assert_array_equal(again, expected[0])


def test_every_thread_gets_the_masks_of_its_own_frames(bundle: Bundle, target: str) -> None:
    frames = [GRAY, GRAY[::-1].copy(), COLOR, GRAY[:150]]
    wrong: list[int] = []
    with load(bundle, target, threads=1) as segmenter, load(bundle, target, threads=1) as other:
        expected = [segmenter.segment([frame]) for frame in frames]

        def work(index: int) -> None:
            mine = np.empty_like(expected[index])
            for turn in range(5):
                (segmenter if turn % 2 else other).segment([frames[index]], out=mine)
                if not np.array_equal(mine, expected[index]):
                    wrong.append(index)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(frames))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_luma_is_that_of_the_truth(dtype: Any, order: Any) -> None:
    spec = PreprocessSpec(height=8, width=8, frame_dtype=dtype, frame_order=order)
    packer, largest = FramePacker(spec), np.iinfo(dtype).max
    for shape in ((130, 7, 3), (3, 90, 3), (64, 5, 3)):
        frame = RNG.integers(0, largest + 1, shape, dtype=dtype)
        frame[0, 0] = largest
        (batch,) = packer.pack([frame, frame[::-1]])
        assert (batch.pixels.dtype, batch.pixels.flags.c_contiguous) == (np.dtype(dtype), True)
        for pixels, colour in zip(batch.pixels, (frame, frame[::-1]), strict=True):
            np.testing.assert_array_equal(pixels[..., 0], convert_to_gray(colour, order))


def test_frames_of_several_kinds_do_not_share_their_place() -> None:
    spec = PreprocessSpec(height=8, width=8)
    frames = [STRIDED, COLOR, GRAY[:50], STRIDED[:, ::-1], COLOR[::-1]]
    batches = FramePacker(spec).pack(frames)
    assert sorted(place for batch in batches for place in batch.places) == list(range(5))
    for batch in batches:
        for place, pixels in zip(batch.places, batch.pixels, strict=True):
            frame = frames[place]
            expected = frame if frame.ndim == 2 else convert_to_gray(frame)
            np.testing.assert_array_equal(pixels[..., 0], expected)


def test_a_whole_array_is_passed_on_as_it_is() -> None:
    frames = np.stack([GRAY, GRAY])
    (batch,) = FramePacker(PreprocessSpec(height=8, width=8)).pack(frames)
    assert (batch.pixels.base is frames, batch.places) == (True, (0, 1))
    colour = np.stack([COLOR, COLOR])
    (batch,) = FramePacker(
        PreprocessSpec(height=8, width=8, color="rgb", mean=(0.5,) * 3, std=(0.25,) * 3)
    ).pack(colour)
    assert batch.pixels is colour
