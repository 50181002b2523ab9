"""Segment a folder of images, or a video where OpenCV is installed, and draw the masks.

python examples/segment_folder.py student.edgekd INPUT OUT [onnx|openvino|tensorrt|tensorrt-rtx]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.data import list_images, read_frame
from edgekd.preprocess import restore_mask
from edgekd.runtime import MaskRing, load


def read_video(path, spec):
    """Yield number and frame, in the order of channels that the student takes."""
    try:
        import cv2
    except ImportError:
        sys.exit(f"{path} is no folder, and a video needs OpenCV: pip install opencv-python-headless")
    video, number = cv2.VideoCapture(str(path)), 0
    while (answer := video.read())[0]:
        yield f"{number:06d}", answer[1] if spec.frame_order == "bgr" else answer[1][..., ::-1]
        number += 1
    if number == 0:
        sys.exit(f"OpenCV reads no frame of {path}")


def draw(frame, mask, spec):
    """Return the frame (H, W, 3) uint8 RGB with every class but the background tinted."""
    pixels = (np.minimum(frame / spec.white, 1) * 255).astype(np.uint8)
    shown = np.asarray(Image.fromarray(pixels).convert("RGB"))
    shown = shown[..., ::-1] if spec.frame_order == "bgr" else shown
    lesion = restore_mask(mask, frame.shape, spec)[..., None] > 0
    return np.where(lesion, shown // 2 + np.array([115, 79, 0], np.uint8), shown)


if not 4 <= len(sys.argv) <= 5:
    sys.exit(__doc__)
bundle, source, out = map(Path, sys.argv[1:4])
if out.exists():
    sys.exit(f"{out} exists: name a new folder")
out.mkdir(parents=True)
with load(bundle, sys.argv[4] if len(sys.argv) > 4 else "openvino") as segmenter:
    spec, ring = segmenter.spec, MaskRing(segmenter)
    images = (
        ((path.stem, read_frame(path, spec)) for path in list_images(source)) if source.is_dir() else None
    )
    for name, frame in images or read_video(source, spec):
        mask = segmenter.segment([frame], out=ring.take())[0]
        Image.fromarray(draw(frame, mask, spec)).save(out / f"{name}.png")
