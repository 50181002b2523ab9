"""Real cases through an engine: order, sizes, truths, and scores at the size of the frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.benchmarks import record_segmenter
from edgekd.benchmarks.recording import match_cases, score_at_frame_size
from edgekd.bundle import Bundle, Recording
from edgekd.data import find_cases
from edgekd.errors import GateFailure, InputError
from edgekd.runtime import load
from edgekd.specs import ClassSpec, CropBox, PreprocessSpec


def test_recording_equals_what_the_student_recorded(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("onnx")
    cases = match_cases(reference, data)
    with load(bundle, "onnx") as segmenter:
        found = record_segmenter(
            segmenter, cases, source="onnx", manifest_sha256="m", data_sha256="d", quiet=True
        )
    assert np.array_equal(found.masks, reference.masks)
    assert np.array_equal(found.truths, reference.truths)
    assert (found.names, found.groups) == (reference.names, reference.groups)
    assert (found.source, found.manifest_sha256, found.data_sha256, found.logits) == ("onnx", "m", "d", None)


def test_no_case_is_a_failed_gate(bundle: Bundle, add_build: Callable) -> None:
    add_build("onnx")
    with load(bundle, "onnx") as segmenter, pytest.raises(GateFailure):
        record_segmenter(segmenter, [], source="onnx", manifest_sha256="m", data_sha256="d")


def test_cases_come_in_the_order_of_the_reference(data: Path, reference: Recording) -> None:
    names = [case.name for case in match_cases(reference, data)]
    assert names == list(reference.names)


def test_case_that_data_lacks_is_named(data: Path, reference: Recording) -> None:
    (data / "images" / "case05.png").unlink()
    (data / "masks" / "case05.png").unlink()
    with pytest.raises(InputError, match=r"such as 'case05', expected .* Next: restore the missing files"):
        match_cases(reference, data)
    for folder in ("images", "masks"):
        (data / folder / "case07.png").rename(data / folder / "other07.png")
    with pytest.raises(InputError, match=r"such as 'case05'; it has others, such as 'other07'.* Next: name"):
        match_cases(reference, data)


def test_frame_size_scores_use_the_whole_annotation(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    truth = np.zeros((40, 60), np.uint8)
    truth[5:35, 10:50] = 1
    Image.fromarray(truth).save(tmp_path / "images" / "a.png")
    Image.fromarray(truth).save(tmp_path / "masks" / "a.png")
    spec = PreprocessSpec(height=10, width=15, crop=CropBox(top=0, left=0, height=40, width=30))
    perfect_inside = np.zeros((1, 10, 15), np.uint8)
    perfect_inside[0, 1:9, 5:] = 1
    cases = find_cases(tmp_path).cases
    nothing, inside = score_at_frame_size(
        cases, [np.zeros_like(perfect_inside), perfect_inside], spec, ClassSpec()
    )
    assert nothing.dice == 0.0
    # Rows 4 to 35 and columns 10 to 29 are restored; the truth right of the crop box counts as missed.
    assert inside.dice == pytest.approx(2 * 30 * 20 / (32 * 20 + 30 * 40))
