"""Deploy graphs for one batch and one size of frame: less to work out at every call, and what NPUs want."""

from __future__ import annotations

import importlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.bundle import GOLDEN_FILE, MIN_AGREEMENT, Build, Bundle, write_build
from edgekd.errors import GateFailure, UsageError
from edgekd.export.agreement import run_on_golden_frames
from edgekd.export.fixed_golden import fit_golden_frames
from edgekd.preprocess.reference import SMALLEST_FRAME
from edgekd.runtime import load
from edgekd.specs import PreprocessSpec

_ANY_SIZE = (97, 131)


@dataclass(frozen=True)
class FixedShapes:
    """What shall be fixed.

    Attributes:
        batch: frames a run; None leaves it free.
        frame_size: (H, W) of the frames; None leaves it free.
    """

    batch: int | None = None
    frame_size: tuple[int, int] | None = None

    def check(self, targets: Sequence[str]) -> None:
        """Raise UsageError where the shapes cannot be meant, or not for a target."""
        if self.batch is not None and self.batch < 1:
            raise UsageError("a batch without frames", received=self.batch, expected="1 or more")
        others = [target for target in targets if target.startswith("tensorrt")]
        if others:
            raise UsageError(
                "batch and frame size are fixed in ONNX and OpenVINO builds only",
                received=", ".join(others),
                action="leave them out: the CUDA preprocessing takes frames of any size",
            )


def read_options(batch: int | None, frame_size: str | None) -> FixedShapes | None:
    """Return what the options of the command line fix, or None where they fix nothing."""
    if batch is None and frame_size is None:
        return None
    return FixedShapes(batch, None if frame_size is None else parse_frame_size(frame_size))


def parse_frame_size(text: str) -> tuple[int, int]:
    """Return (H, W) of a text such as ``768x1024``, height first.

    Raises:
        UsageError: it is no such text, or a side is too small.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < SMALLEST_FRAME:
        raise UsageError("no size of a frame", received=text, expected="height x width, such as 768x1024")
    return size


def fix_shapes(bundle: Bundle, build: Build, shapes: FixedShapes) -> Build:
    """Give the deploy graph of a build fixed shapes, and see that its masks stay the same.

    Where the golden frames have another size the build gets some of its own, by which it is then checked.

    Raises:
        UsageError: the crop box of the bundle leaves frames of that size.
        GateFailure: the masks are others; the build is removed.
    """
    frames = _draw_frames(bundle.manifest.preprocess, shapes)
    before = _segment(bundle, build, frames)
    record = build.record
    golden = (
        None if shapes.frame_size is None else fit_golden_frames(bundle, record.target, shapes.frame_size)
    )
    with tempfile.TemporaryDirectory() as folder:
        fix = _fix_onnx if record.target == "onnx" else _fix_openvino
        changed = fix(build, shapes, Path(folder))
        files: dict[str, Path | bytes] = {
            name: changed.get(name) or build.resolve_file(name) for name in record.files
        }
        if golden is not None:
            files[GOLDEN_FILE] = golden
        size = None if shapes.frame_size is None else list(shapes.frame_size)
        fixed = write_build(
            bundle,
            target=record.target,
            precision_asked=record.precision_asked,
            precision_effective=record.precision_effective,
            device=record.device,
            status=record.status,
            files=files,
            facts={**record.facts, "batch": shapes.batch, "frame_size": size},
        )
    agreement = float((_segment(bundle, fixed, frames) == before).mean())
    if agreement < MIN_AGREEMENT[record.precision_asked]:
        shutil.rmtree(fixed.path)
        raise GateFailure(
            f"the build {fixed.name} with fixed shapes gives other masks and was removed",
            received=f"{agreement:.4%} of the pixels equal",
            expected=f"at least {MIN_AGREEMENT[record.precision_asked]:.2%}",
        )
    return run_on_golden_frames(bundle, fixed)


def _draw_frames(spec: PreprocessSpec, shapes: FixedShapes) -> np.ndarray:
    size = shapes.frame_size or _ANY_SIZE
    if spec.crop is not None:
        needed = (spec.crop.top + spec.crop.height, spec.crop.left + spec.crop.width)
        if shapes.frame_size is not None and (size[0] < needed[0] or size[1] < needed[1]):
            raise UsageError(
                "the crop box leaves frames of that size",
                received="{}x{}".format(*size),
                expected="at least {}x{}".format(*needed),
            )
        size = (max(size[0], needed[0]), max(size[1], needed[1]))
    color = (3,) if spec.color == "rgb" else ()
    largest = np.iinfo(spec.frame_dtype).max
    shape = (shapes.batch or 1, *size, *color)
    return np.random.default_rng(0).integers(0, largest + 1, shape, dtype=spec.frame_dtype)


def _segment(bundle: Bundle, build: Build, frames: np.ndarray) -> np.ndarray:
    record = build.record
    with load(bundle, record.target, record.precision_asked, record.device) as segmenter:
        return segmenter.segment(frames)


def _fix_onnx(build: Build, shapes: FixedShapes, folder: Path) -> dict[str, Path]:
    onnx: Any = importlib.import_module("onnx")
    model = onnx.load(build.resolve_file("deploy.onnx"))
    (frame,), (mask,) = model.graph.input, model.graph.output
    sizes = (shapes.batch, *(shapes.frame_size or (None, None)))
    for value, known in ((frame, sizes), (mask, sizes[:1])):
        for dimension, size in zip(value.type.tensor_type.shape.dim, known, strict=False):
            if size is not None:
                dimension.dim_value = size
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "deploy.onnx")
    return {"deploy.onnx": folder / "deploy.onnx"}


def _fix_openvino(build: Build, shapes: FixedShapes, folder: Path) -> dict[str, Path]:
    openvino: Any = importlib.import_module("openvino")
    build.resolve_file("deploy.bin")
    model = openvino.Core().read_model(build.resolve_file("deploy.xml"))
    shape = model.input("frame").get_partial_shape()
    for axis, size in enumerate((shapes.batch, *(shapes.frame_size or (None, None)))):
        if size is not None:
            shape[axis] = size
    model.reshape({"frame": shape})
    openvino.save_model(model, folder / "deploy.xml", compress_to_fp16=False)
    return {name: folder / name for name in ("deploy.xml", "deploy.bin")}
