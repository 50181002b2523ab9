"""Deploy graphs for one batch and one size of frame: less to work out at every call, and what NPUs want."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.atomic import temporary_folder
from edgekd.bundle import GOLDEN_FILE, MIN_AGREEMENT, Build, Bundle, draft_build
from edgekd.errors import GateFailure, MachineError, UsageError
from edgekd.export.agreement import install_checked
from edgekd.export.fixed_golden import fit_golden_frames
from edgekd.export.openvino_ir import DEPLOY_FILES, measure_fixed, save_ir
from edgekd.export.source_graphs import CORE_FILE, DEPLOY_FILE, pick_graph_facts
from edgekd.preprocess.reference import SMALLEST_FRAME
from edgekd.runtime import load
from edgekd.specs import PreprocessSpec
from edgekd.tables import format_agreement, format_floor

_ANY_SIZE = (97, 131)
_SHAPE_FACTS = ("batch", "frame_size", "fixed_preprocess_max_difference")


@dataclass(frozen=True)
class FixedShapes:
    """What shall be fixed.

    Attributes:
        batch: frames a run; None leaves it free.
        frame_size: (H, W) of the frames; None leaves it free.
    """

    batch: int | None = None
    frame_size: tuple[int, int] | None = None

    def check_crop(self, spec: PreprocessSpec) -> None:
        """Raise UsageError where the crop box leaves frames of the size."""
        if self.frame_size is None or spec.crop is None:
            return
        needed = (spec.crop.top + spec.crop.height, spec.crop.left + spec.crop.width)
        if self.frame_size[0] < needed[0] or self.frame_size[1] < needed[1]:
            raise UsageError(
                "the crop box leaves frames of that size",
                received="{}x{}".format(*self.frame_size),
                expected="at least {}x{}".format(*needed),
            )

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
    """Give the deploy graph of a build fixed shapes, see that its masks stay the same, and install it.

    Where the golden frames have another size the build gets some of its own, by which it is then checked.
    Whatever fails leaves the build that was installed as it was.

    Args:
        bundle: the bundle.
        build: an ONNX or OpenVINO build, or a draft of one; shapes that it has already are dropped.
        shapes: what its graph shall take alone.

    Raises:
        UsageError: the crop box of the bundle leaves frames of that size.
        MachineError, SegmenterFault: it cannot run here as asked, or fails.
        GateFailure: the masks are others.
    """
    with open_fixed(bundle, build, shapes) as fixed:
        return install_checked(bundle, fixed)


@contextlib.contextmanager
def open_fixed(bundle: Bundle, build: Build, shapes: FixedShapes) -> Iterator[Build]:
    """Give a draft of a build with fixed shapes and the same masks; arguments, errors as `fix_shapes`."""
    shapes.check_crop(bundle.manifest.preprocess)
    if build.record.target == "onnx":
        _import_onnx()
    frames = _draw_frames(bundle.manifest.preprocess, shapes)
    with _open_free(bundle, build) as free, _draft_fixed(bundle, free, shapes) as fixed:
        before, after = (_segment(bundle, one, frames) for one in (free, fixed))
        agreement, floor = float((after == before).mean()), MIN_AGREEMENT[build.record.precision_asked]
        if agreement < floor:
            raise GateFailure(
                f"the build {fixed.name} with fixed shapes gives other masks and was not kept",
                received=f"{format_agreement(agreement)} of the pixels equal",
                expected=f"at least {format_floor(floor)}",
            )
        yield fixed


def free_shapes(bundle: Bundle, build: Build) -> Build:
    """Return an installed build with a deploy graph that takes any frames, made anew where it was fixed.

    What its record says of how the graph got its precision stays.

    Raises:
        MachineError, SegmenterFault: it cannot run here as asked, or fails.
        GateFailure: its masks are others.
    """
    with _open_free(bundle, build) as free:
        return build if free is build else install_checked(bundle, free)


@contextlib.contextmanager
def _open_free(bundle: Bundle, build: Build) -> Iterator[Build]:
    """Give a build that takes any frames: the build itself, or a draft of it without its shapes."""
    facts = {key: value for key, value in build.record.facts.items() if key not in _SHAPE_FACTS}
    if all(build.record.facts.get(key) is None for key in _SHAPE_FACTS):
        yield build
        return
    with _draft_changed(bundle, build, FixedShapes(), facts, None) as draft:
        yield draft


@contextlib.contextmanager
def _draft_fixed(bundle: Bundle, free: Build, shapes: FixedShapes) -> Iterator[Build]:
    """Give a draft of a free build with fixed shapes, and with golden frames of its size where needed."""
    size, golden = shapes.frame_size, None
    if size is not None:
        # A build in float32 may be the first of its bundle, and not be installed yet.
        is_source = (free.record.target, free.record.precision_asked) == ("onnx", "fp32")
        core = free.resolve_file(CORE_FILE) if is_source and not pick_graph_facts(free) else None
        golden = fit_golden_frames(bundle, free.record.target, size, core)
    facts = {**free.record.facts, "batch": shapes.batch, "frame_size": None if size is None else list(size)}
    with _draft_changed(bundle, free, shapes, facts, golden) as draft:
        yield draft


@contextlib.contextmanager
def _draft_changed(
    bundle: Bundle, build: Build, shapes: FixedShapes, facts: dict[str, Any], golden: bytes | None
) -> Iterator[Build]:
    """Give a draft of a build whose deploy graph has these shapes and no others."""
    record = build.record
    with temporary_folder() as folder:
        write = _write_onnx if record.target == "onnx" else _write_openvino
        changed = write(bundle, build, shapes, folder)
        files: dict[str, Path | bytes] = {
            name: changed.get(name) or build.resolve_file(name)
            for name in record.files
            if name != GOLDEN_FILE
        }
        if golden is not None:
            files[GOLDEN_FILE] = golden
        if record.target == "openvino" and shapes.frame_size is not None:
            facts = {**facts, **measure_fixed(bundle, record, folder, shapes.frame_size)}
        with draft_build(
            bundle,
            target=record.target,
            precision_asked=record.precision_asked,
            precision_effective=record.precision_effective,
            device=record.device,
            files=files,
            facts=facts,
        ) as draft:
            yield draft


def _draw_frames(spec: PreprocessSpec, shapes: FixedShapes) -> np.ndarray:
    size = shapes.frame_size or _ANY_SIZE
    if spec.crop is not None:
        needed = (spec.crop.top + spec.crop.height, spec.crop.left + spec.crop.width)
        size = (max(size[0], needed[0]), max(size[1], needed[1]))
    color = (3,) if spec.color == "rgb" else ()
    shape = (shapes.batch or 1, *size, *color)
    return np.random.default_rng(0).integers(0, spec.white + 1, shape, dtype=spec.frame_dtype)


def _segment(bundle: Bundle, build: Build, frames: np.ndarray) -> np.ndarray:
    record = build.record
    with load(bundle, record.target, record.precision_asked, record.device, build=build) as segmenter:
        return segmenter.segment(frames)


def _write_onnx(bundle: Bundle, build: Build, shapes: FixedShapes, folder: Path) -> dict[str, Path]:
    onnx = _import_onnx()
    from edgekd.export.graphs import build_deploy_graph, pack_graph

    # Always from the core: in the deploy graph that is there other shapes may stand already.
    model = build_deploy_graph(onnx.load(build.resolve_file(CORE_FILE)), bundle.manifest.preprocess)
    (frame,), (mask,) = model.graph.input, model.graph.output
    sizes = (shapes.batch, *(shapes.frame_size or (None, None)))
    for value, known in ((frame, sizes), (mask, sizes[:1])):
        for dimension, size in zip(value.type.tensor_type.shape.dim, known, strict=False):
            if size is not None:
                dimension.dim_value = size
    onnx.checker.check_model(model, full_check=True)
    (folder / DEPLOY_FILE).write_bytes(pack_graph(model, bundle))
    return {DEPLOY_FILE: folder / DEPLOY_FILE}


def _write_openvino(bundle: Bundle, build: Build, shapes: FixedShapes, folder: Path) -> dict[str, Path]:
    openvino: Any = importlib.import_module("openvino")
    build.resolve_file("deploy.bin")
    model = openvino.Core().read_model(build.resolve_file("deploy.xml"))
    sizes = (shapes.batch, *(shapes.frame_size or (None, None)))
    free = [-1 if size is None else size for size in sizes]
    model.reshape({"frame": [*free, bundle.manifest.preprocess.channels]})
    save_ir(model, folder / DEPLOY_FILES[0])
    return {name: folder / name for name in DEPLOY_FILES}


def _import_onnx() -> Any:
    try:
        return importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise MachineError(
            "the deploy graph of an ONNX build is written with the package onnx, which is not installed",
            action="pip install onnx, or export on the workstation and copy the bundle",
        ) from error
