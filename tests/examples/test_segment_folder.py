"""The example segments phantom frames, and says what it lacks for a video."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.bundle import Bundle
from edgekd.data import write_phantom
from edgekd.preprocess import restore_mask
from edgekd.runtime import load

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/segment_folder.py"


def test_a_folder_of_phantom_frames(device_bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_phantom(tmp_path / "data", 3, height=90, width=120, quiet=True)
    images = sorted((tmp_path / "data/images").iterdir())
    arguments = [device_bundle.path, tmp_path / "data/images", tmp_path / "out", "onnx"]
    subprocess.run([sys.executable, EXAMPLE, *arguments], check=True)
    with load(device_bundle, "onnx") as segmenter:
        for image in images:
            frame = np.asarray(Image.open(image).convert("L"))
            drawn = np.asarray(Image.open(tmp_path / "out" / f"{image.stem}.png"))
            mask = restore_mask(segmenter.segment([frame])[0], frame.shape, segmenter.spec)
            tinted = (drawn[..., 0].astype(int) - drawn[..., 2]) == 115
            assert 0 < mask.mean() < 1
            np.testing.assert_array_equal(tinted, mask > 0)


def test_a_video_without_opencv(device_bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    code = (
        f"import sys, runpy; sys.modules['cv2'] = None; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    )
    arguments = [device_bundle.path, tmp_path / "scan.mp4", tmp_path / "out", "onnx"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "a video needs OpenCV: pip install" in done.stderr) == (1, True)
