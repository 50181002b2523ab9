"""Comparison of recordings made by hand: what is measured, what is refused, what is concluded."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from edgekd.benchmarks import compare_golden, compare_recordings, segment_golden
from edgekd.benchmarks.report_verdict import describe_lost_classes
from edgekd.benchmarks.tables import build_class_table
from edgekd.bundle import JudgedFrames, Recording
from edgekd.errors import GateFailure, InputError, IntegrityError
from edgekd.specs import ClassSpec
from edgekd.tables import format_agreement

CLASSES = ClassSpec()


def make_recording(masks: np.ndarray, truths: np.ndarray, **changes: Any) -> Recording:
    names = tuple(f"case{index}" for index in range(len(masks)))
    recording = Recording("pytorch", "a" * 64, "b" * 64, names, names, truths, masks)
    return dataclasses.replace(recording, **changes)


@pytest.fixture
def truths() -> np.ndarray:
    """Thirty cases of 100 pixels, each with a lesion of 40."""
    truths = np.zeros((30, 10, 10), np.uint8)
    truths[:, 3:7] = 1
    return truths


def test_identical_masks_pass_with_one_group(truths: np.ndarray) -> None:
    reference = make_recording(truths, truths, groups=("one",) * 30)
    result = compare_recordings(reference, dataclasses.replace(reference, source="onnx"), classes=CLASSES)
    assert (result.passed, result.conclusion, result.num_groups) == (True, "non-inferior", 1)


def test_few_groups_are_inconclusive_and_do_not_pass(truths: np.ndarray) -> None:
    masks = truths.copy()
    masks[0, 0, 0] = 1
    reference = make_recording(truths, truths, groups=tuple(f"p{index // 2}" for index in range(30)))
    result = compare_recordings(reference, dataclasses.replace(reference, masks=masks), classes=CLASSES)
    assert (result.passed, result.conclusion) == (False, "inconclusive")
    assert "15 groups" in result.reasons[0]


def test_figures_worked_by_hand(truths: np.ndarray) -> None:
    masks = truths.copy()
    masks[4, 3] = 0  # 10 of 40 lesion pixels missed: Dice 60 / 70
    masks[7, 0, :2] = 1  # 2 pixels too many: Dice 80 / 82
    reference = make_recording(truths, truths)
    candidate = make_recording(masks, truths, source="onnx")
    result = compare_recordings(reference, candidate, classes=CLASSES)
    assert result.pixel_agreement == pytest.approx(1 - 12 / 3000)
    assert result.num_different == 2
    assert result.differences["dice"].delta == pytest.approx(((60 / 70 - 1) + (80 / 82 - 1)) / 30)
    assert result.differences["acc"].delta == pytest.approx(-12 / 3000)
    assert [(case.name, case.agreement) for case in result.worst_cases] == [("case4", 0.9), ("case7", 0.98)]
    assert result.worst_cases[0].dice_candidate == pytest.approx(60 / 70)
    assert result.worst_cases[0].dice_reference == 1.0


def test_worse_masks_are_not_shown_to_be_non_inferior(truths: np.ndarray) -> None:
    masks = truths.copy()
    for index, mask in enumerate(masks):
        mask[3, : 5 + index % 5] = 0
    result = compare_recordings(
        make_recording(truths, truths), make_recording(masks, truths), classes=CLASSES
    )
    assert (result.passed, result.conclusion) == (False, "not shown to be non-inferior")
    assert set(result.verdict.metrics.values()) == {"fail"}


def test_margins_decide(truths: np.ndarray) -> None:
    masks = truths.copy()
    masks[::2, 3, 0] = 0
    recordings = make_recording(truths, truths), make_recording(masks, truths)
    wide = dict.fromkeys(("acc", "miou", "dice", "kappa"), 0.05)
    assert compare_recordings(*recordings, wide, classes=CLASSES).passed
    assert not compare_recordings(*recordings, wide | {"dice": 0.001}, classes=CLASSES).passed


def test_better_scores_do_not_excuse_another_function(truths: np.ndarray) -> None:
    masks = truths.copy()
    for index, mask in enumerate(masks):
        mask[0, : 5 + index % 5] = 1
    recordings = make_recording(masks, truths), make_recording(truths, truths)
    assert compare_recordings(*recordings, classes=CLASSES).passed
    result = compare_recordings(*recordings, classes=CLASSES, min_agreement=0.9995)
    assert not result.passed
    assert "computes something else" in result.reasons[0]


@pytest.mark.parametrize("field", ["manifest_sha256", "data_sha256"])
def test_recordings_of_other_files_are_refused(truths: np.ndarray, field: str) -> None:
    reference = make_recording(truths, truths)
    with pytest.raises(IntegrityError):
        compare_recordings(reference, dataclasses.replace(reference, **{field: "c" * 64}), classes=CLASSES)


@pytest.mark.parametrize("field", ["names", "groups"])
def test_other_cases_are_refused(truths: np.ndarray, field: str) -> None:
    reference = make_recording(truths, truths)
    turned = dataclasses.replace(reference, **{field: reference.names[::-1]})
    with pytest.raises(InputError):
        compare_recordings(reference, turned, classes=CLASSES)


def test_other_sizes_and_truths_are_refused(truths: np.ndarray) -> None:
    reference = make_recording(truths, truths)
    for other in (make_recording(truths[:, :5], truths[:, :5]), make_recording(truths, 1 - truths)):
        with pytest.raises(InputError):
            compare_recordings(reference, other, classes=CLASSES)


def test_logits_of_the_student_that_are_not_finite_fail_the_gate(truths: np.ndarray) -> None:
    logits = np.zeros((30, 2, 10, 10), np.float32)
    logits[3, 1, 2, 2] = np.nan
    student, engine = make_recording(truths, truths, logits=logits), make_recording(truths, truths)
    with pytest.raises(GateFailure, match="1 of 30 images, such as 'case3'"):
        compare_recordings(student, engine, classes=CLASSES)
    # Engines answer with masks: no logits of theirs are looked at, nor is a figure of them reported.
    result = compare_recordings(engine, student, classes=CLASSES)
    assert result.passed
    assert not [key for key in result.to_dict() if "logit" in key]


def test_no_image_is_a_failed_gate(truths: np.ndarray) -> None:
    empty = make_recording(truths[:0], truths[:0])
    with pytest.raises(GateFailure):
        compare_recordings(empty, empty, classes=CLASSES)


class NoSegmenter:
    """Must not be asked."""

    def segment(self, frames: Any) -> Any:
        raise AssertionError(frames)


@pytest.mark.parametrize(("wrong", "conclusion"), [(0, "consistent"), (1, "consistent"), (2, "inconsistent")])
def test_golden_frames_allow_one_pixel_in_two_thousand(wrong: int, conclusion: str) -> None:
    masks = np.zeros((2, 50, 40), np.uint8)  # 4000 pixels: two of them are 0.9995, three are not
    masks[:, 20:30, 20:30] = 1
    golden = JudgedFrames((masks[0], masks[0]), masks, masks)
    found = masks.copy()
    found[1, 0, : wrong + (wrong > 0)] = 1
    result = compare_golden(found, golden, candidate="onnx")
    assert result.conclusion == conclusion
    assert result.passed == (conclusion == "consistent")
    assert "non-inferior" not in str(result.to_dict())


@pytest.mark.parametrize(
    ("side", "conclusion", "reason"),
    [
        (4, "inconsistent", "Dice of the foreground 0.0000 is below 0.5"),
        (3, "inconclusive", "marks next to nothing"),
        (0, "inconclusive", "marks next to nothing"),
    ],
)
def test_an_engine_that_marks_nothing_never_passes_on_golden_frames(
    side: int, conclusion: str, reason: str
) -> None:
    masks = np.zeros((2, 50, 40), np.uint8)
    masks[0, :side, :side] = 1  # 16 pixels of 4000: all equal but them
    golden = JudgedFrames((masks[0], masks[0]), masks, masks)
    result = compare_golden(0 * masks, golden, candidate="onnx", min_agreement=0.98)
    assert (result.conclusion, result.passed) == (conclusion, False)
    assert reason in result.reasons[0]


def test_no_golden_frame_is_a_failed_gate() -> None:
    nothing = np.zeros((0, 1, 1), np.uint8)
    golden = JudgedFrames((), nothing, nothing)
    with pytest.raises(GateFailure):
        segment_golden(NoSegmenter(), golden)  # type: ignore[arg-type]


def test_every_class_has_its_scores_and_a_table_where_there_are_several(truths: np.ndarray) -> None:
    several = truths.copy()
    several[::2] *= 2
    masks = several.copy()
    masks[0] = 0  # one case of fifteen with class 2 is lost
    sides = make_recording(several, several), make_recording(masks, several, source="onnx")
    named = ClassSpec(names=("background", "cyst", "solid"))
    result = compare_recordings(*sides, classes=named)
    assert [(one.name, one.num_images) for one in result.reference_classes[1:]] == [
        ("cyst", 15),
        ("solid", 15),
    ]
    lost = result.candidate_classes[2]
    assert (lost.dice, lost.iou) == (pytest.approx(14 / 15), pytest.approx(14 / 15))
    assert result.candidate_classes[1].dice == 1.0
    table = build_class_table({"results": [result.to_dict()]})
    assert table.rows[1] == ("onnx", "solid", "15", "1.0000", "0.9333", "1.0000", "0.9333")
    lost = compare_recordings(
        make_recording(masks * 0, several), make_recording(masks * 0, several), classes=named
    )
    criteria = {"margins": {"dice": 0.01}}
    (said,) = describe_lost_classes({"results": [lost.to_dict()], "criteria": criteria})
    assert "hardly finds cyst (Dice 0.0000), solid (Dice 0.0000)" in said
    assert describe_lost_classes({"results": [result.to_dict()], "criteria": criteria}) == []
    for dice, told in ((0.019, 1), (0.021, 0)):  # of two classes, whose mean falls by half of it
        classes = [
            {"name": "background", "dice": None},
            {"name": "a", "dice": dice},
            {"name": "b", "dice": 0.5},
        ]
        report = {"results": [{"reference_classes": classes}], "criteria": criteria}
        assert len(describe_lost_classes(report)) == told
    two = compare_recordings(make_recording(truths, truths), make_recording(truths, truths), classes=CLASSES)
    assert len(two.to_dict()["reference_classes"]) == 2
    assert not build_class_table({"results": [two.to_dict()]}).rows


def test_one_pixel_of_millions_is_not_all_of_them() -> None:
    assert [format_agreement(value) for value in (1.0, 1 - 2e-7, 0.99995)] == [
        "100.0000%",
        "99.9999%",
        "99.9950%",
    ]
