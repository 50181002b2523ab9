"""OpenVINO's luma is the exact integer luma of every colour, and only frames as it can read them go there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgekd.bundle import Bundle
from edgekd.preprocess import convert_to_gray
from edgekd.runtime import load
from edgekd.runtime.openvino_luma import LumaWriter
from edgekd.runtime.openvino_resize import has_fast_kernels
from edgekd.specs import PreprocessSpec

pytest.importorskip("openvino")

import openvino


def open_writer(order: str = "rgb") -> LumaWriter:
    return LumaWriter(openvino.Core(), PreprocessSpec(height=8, width=8, frame_order=order), threads=1)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_every_colour(order: Any) -> None:
    write = open_writer(order)
    luma = np.empty((256, 256), np.uint8)
    frame = np.empty((256, 256, 3), np.uint8)
    frame[..., 1], frame[..., 2] = np.mgrid[:256, :256]
    for first in range(256):
        frame[..., 0] = first
        write(frame, luma)
        np.testing.assert_array_equal(luma, convert_to_gray(frame, order))


def test_few_sizes_are_kept_and_none_after_closing() -> None:
    write = open_writer()
    frames = [np.full((4, 5 + index, 3), 10 * index, np.uint8) for index in range(6)]
    for frame in (*frames, frames[0]):
        luma = np.empty(frame.shape[:2], np.uint8)
        write(frame, luma)
        np.testing.assert_array_equal(luma, convert_to_gray(frame))
    assert list(write._requests) == [frame.shape for frame in (*frames[3:], frames[0])]
    write.close()
    assert not write._requests


@pytest.mark.skipif(not has_fast_kernels(), reason="the processor has no AVX2")
def test_the_engine_takes_it_for_frames_that_it_can_read(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, ...]] = []
    original = LumaWriter.__call__

    def write(self: LumaWriter, frame: Any, target: Any) -> None:
        written.append(frame.shape)
        original(self, frame, target)

    monkeypatch.setattr(LumaWriter, "__call__", write)
    plain = np.random.default_rng(5).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    sealed = np.frombuffer(plain.tobytes(), np.uint8).reshape(plain.shape)
    strided = np.repeat(plain, 2, axis=1)[:, ::2]
    with load(device_bundle, "openvino", threads=1) as segmenter:
        masks = segmenter.segment([plain, sealed, strided, convert_to_gray(plain)])
        assert written == [plain.shape]
        np.testing.assert_array_equal(masks, masks[[3, 3, 3, 3]])
    # What the library owns must not wait for the cycle collector.
    writer = segmenter.engine._write_luma
    assert not writer._requests and writer._core is None


OUTLIVE_A_SIGNAL = """
import gc, signal, sys
import numpy as np
from edgekd.runtime import load

for _ in range(3):
    with load(sys.argv[1], "openvino", threads=1) as segmenter:
        segmenter.segment([np.zeros((40, 50, 3), np.uint8)])
del segmenter
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("still here")
"""


def test_a_program_outlives_a_signal_after_it(device_bundle: Bundle) -> None:
    line = [sys.executable, "-c", OUTLIVE_A_SIGNAL, str(device_bundle.path)]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "still here\n"), ended.stderr
