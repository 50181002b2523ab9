"""Masks and overlays of a folder of images, by an engine, at the size of each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekd.atomic import check_output_is_new, staged_folder, write_bytes_atomic, write_text_atomic
from edgekd.benchmarks.frame_sizes import leave_misfits
from edgekd.benchmarks.overlays import add_legend, draw_overlay, encode_png, list_legend
from edgekd.benchmarks.result_files import format_json
from edgekd.benchmarks.selection import choose_builds
from edgekd.bundle import PRECISIONS, Bundle
from edgekd.console import print_notice
from edgekd.data import list_images, read_frame, read_image
from edgekd.errors import InputError
from edgekd.preprocess import restore_mask
from edgekd.progress import track
from edgekd.runtime import Segmenter

PREDICTION_SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class PredictionReport:
    """What was written.

    Attributes:
        engine: name of the build that made the masks.
        out: the folder: ``masks/``, ``overlays/``, ``predictions.json``.
        cases: one dict an image: its path, its mask's and overlay's name, height, width, and the part of the
            pixels of each foreground class.
        failed: one dict an image that could not be read: its path and the reason.
        interrupted: Ctrl-C ended it before the last image.
    """

    engine: str
    out: str
    cases: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, str], ...] = ()
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "schema": "edgekd.prediction",
            "schema_version": PREDICTION_SCHEMA_VERSION,
            "engine": self.engine,
            "out": self.out,
            "cases": list(self.cases),
            "failed": list(self.failed),
            "interrupted": self.interrupted,
        }


def run_prediction(
    bundle: Bundle | Path,
    source: Path,
    out: Path,
    *,
    target: str | None = None,
    precision: str | None = None,
    device: str | None = None,
    cache: Path | None = None,
    quiet: bool = False,
) -> PredictionReport:
    """Segment an image or a folder of images with a build of a bundle.

    Args:
        bundle: an opened bundle or its path.
        source: an image, or a folder whose images are taken, without its subfolders.
        out: new folder.
        target: the build to use; None takes one that can run here and takes frames of these sizes.
        precision: of the build; None takes float32 where there is one, and else says what is taken.
        device: narrows the builds.
        cache: where an engine may keep compiled code.
        quiet: no progress bar.

    Raises:
        UsageError: ``out`` exists or cannot be written.
        InputError: no image that can be read, or one of a size that the build does not take; nothing is
            written then.
        MachineError: the target cannot run here, or no build can.
    """
    check_output_is_new(out)
    images = list_images(source, quiet=quiet)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    choices, skipped = choose_builds(opened, () if target is None else (target,), precision, device)
    shapes = (shape for shape in map(_read_shape, images) if shape is not None)
    choices, misfits = leave_misfits(opened, choices, shapes, named=target is not None)
    choice = min(choices, key=lambda one: PRECISIONS.index(one.precision))
    if precision is None and choice.precision != PRECISIONS[0]:
        left = [f"{one.name}: {one.reason}" for one in (*misfits, *skipped) if "-fp32-" in one.name]
        why = f" ({'; '.join(left)})" if left else ""
        print_notice(
            f"{choice.name} computes in {choice.precision}: there is no float32 build to take{why}",
            quiet=quiet,
        )
    with choice.load(opened, cache) as segmenter:
        return predict_folder(segmenter, images, out, engine=choice.name, quiet=quiet)


def predict_folder(
    segmenter: Segmenter, images: Sequence[Path], out: Path, *, engine: str, quiet: bool = False
) -> PredictionReport:
    """Write mask (class ids, PNG) and overlay of every image that can be read, and ``predictions.json``.

    The folder appears at the end, whole; after Ctrl-C with what there is, where there is anything.

    Args:
        segmenter: a loaded engine.
        images: files with different names, read as the segmenter's spec promises.
        out: new folder.
        engine: name of the build.
        quiet: no progress bar.

    Raises:
        UsageError: ``out`` exists or cannot be written.
        InputError: no image can be read, or two would share a name; nothing is left behind.
        SegmenterFault: the engine failed; nothing is left behind.
        KeyboardInterrupt: Ctrl-C before the first mask; nothing is left behind.
    """
    names = _name_outputs(images)
    cases: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    interrupted = False
    with staged_folder(out) as folder:
        try:
            for image, name in zip(track(images, "segmenting", quiet=quiet), names, strict=True):
                try:
                    frame = read_frame(image, segmenter.spec)
                except InputError as error:
                    if len(images) == 1:
                        raise
                    failed.append({"image": str(image), "reason": str(error)})
                else:
                    cases.append(_predict_frame(segmenter, frame, image, name, folder))
        except KeyboardInterrupt:
            if not cases:
                raise
            interrupted = True
            _remove_halves(folder, cases)
        if not cases:
            raise InputError(
                f"none of the {len(images)} images can be read",
                received=f"of the first: {failed[0]['reason']}",
            )
        report = PredictionReport(engine, str(out), tuple(cases), tuple(failed), interrupted)
        write_text_atomic(folder / "predictions.json", format_json(report.to_dict()))
    return report


def _remove_halves(folder: Path, cases: Sequence[Mapping[str, Any]]) -> None:
    """Remove a mask or overlay of which Ctrl-C left no other half."""
    listed = {case[kind] for case in cases for kind in ("mask", "overlay")}
    for path in folder.glob("*/*"):
        if path.relative_to(folder).as_posix() not in listed:
            path.unlink()


def _read_shape(image: Path) -> tuple[int, ...] | None:
    try:
        return read_image(image).shape
    except InputError:
        return None


def _predict_frame(
    segmenter: Segmenter, frame: NDArray[Any], image: Path, name: str, folder: Path
) -> dict[str, Any]:
    spec, classes = segmenter.spec, segmenter.classes
    mask = restore_mask(segmenter.segment([frame])[0], frame.shape, spec)
    overlay = draw_overlay(frame, mask, frame_order=spec.frame_order)
    write_bytes_atomic(folder / "masks" / name, encode_png(Image.fromarray(mask)))
    write_bytes_atomic(
        folder / "overlays" / name, encode_png(add_legend(overlay, list_legend(classes, has_truth=False)))
    )
    parts = np.bincount(mask.ravel(), minlength=classes.count) / mask.size
    return {
        "image": str(image),
        "mask": f"masks/{name}",
        "overlay": f"overlays/{name}",
        "height": mask.shape[0],
        "width": mask.shape[1],
        "part_of_pixels": {classes.names[k]: float(parts[k]) for k in range(1, classes.count)},
    }


def _name_outputs(images: Sequence[Path]) -> list[str]:
    """Name each result after its image; the suffix is kept apart only where two stems are equal."""
    stems = [image.stem for image in images]
    names = [
        f"{image.stem}.png"
        if stems.count(image.stem) == 1
        else f"{image.stem}_{image.suffix[1:].lower()}.png"
        for image in images
    ]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError("two images would have one result", received=twice, expected="different file names")
    return names
