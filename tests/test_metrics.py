"""Scores against examples worked by hand and against formulas written a second way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.metrics import (
    METRICS,
    count_confusion,
    count_confusions,
    measure_overlap,
    score_cases,
    score_sums,
    summarise_cases,
)


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    mask = np.array([[0, 1, 1], [1, 2, 0]], np.uint8)
    assert count_confusion(truth, mask, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert count_confusion(truth, mask, 3).dtype == np.int64


def test_two_class_scores_worked_by_hand() -> None:
    # truth row 0: 10 true negatives, 2 false positives; row 1: 1 false negative, 3 true positives.
    scores = score_cases(np.array([[[10, 2], [1, 3]]]))
    assert scores.acc == pytest.approx(13 / 16)
    assert scores.miou == pytest.approx((10 / 13 + 3 / 6) / 2)
    assert scores.miou_foreground == pytest.approx(3 / 6)
    assert scores.dice == pytest.approx(6 / 9)
    expected = (12 * 11 + 4 * 5) / 256
    assert scores.kappa == pytest.approx((13 / 16 - expected) / (1 - expected))
    assert math.isnan(scores.false_positive_rate)
    assert (scores.num_images, scores.num_empty) == (1, 0)


def test_dice_is_the_mean_over_images_while_iou_is_pooled() -> None:
    small_missed, large_found = [[99, 0], [1, 0]], [[50, 0], [0, 50]]
    scores = score_cases(np.array([small_missed, large_found]))
    assert scores.dice == pytest.approx(0.5)
    assert scores.miou_foreground == pytest.approx(50 / 51)


def test_images_with_empty_truth_leave_dice_alone_and_are_counted_apart() -> None:
    found, empty_clean, empty_wrong = [[8, 0], [0, 4]], [[12, 0], [0, 0]], [[9, 3], [0, 0]]
    scores = score_cases(np.array([found, empty_clean, empty_wrong]))
    assert scores.dice == 1.0
    assert scores.false_positive_rate == 0.5
    assert scores.num_empty == 2
    assert scores.miou_foreground == pytest.approx(4 / 7)


def test_dice_of_several_classes_leaves_out_those_absent_from_truth_and_mask() -> None:
    # class 1 found in full, class 2 absent from both, class 3 absent from the truth but predicted.
    confusion = np.zeros((4, 4), np.int64)
    confusion[0, 0], confusion[1, 1], confusion[0, 3] = 10, 5, 1
    scores = score_cases(confusion[None])
    assert scores.dice == pytest.approx((1.0 + 0.0) / 2)
    assert scores.miou == pytest.approx((10 / 11 + 1.0 + 0.0) / 3)
    assert scores.miou_foreground == pytest.approx((1.0 + 0.0) / 2)


def test_undefined_scores_are_nan_and_null_in_json() -> None:
    scores = score_cases(np.array([[[16, 0], [0, 0]]]))
    assert scores.acc == 1.0
    assert scores.miou == 1.0
    assert math.isnan(scores.miou_foreground)
    assert math.isnan(scores.dice)
    assert math.isnan(scores.kappa)
    assert scores.false_positive_rate == 0.0
    assert json.loads(json.dumps(scores.to_dict(), allow_nan=False))["dice"] is None


def test_no_image_scores_nothing() -> None:
    scores = score_cases(np.zeros((0, 2, 2), np.int64))
    assert scores.num_images == 0
    assert all(math.isnan(getattr(scores, name)) for name in METRICS)


def _score_by_pixels(truths: np.ndarray, masks: np.ndarray, num_classes: int) -> dict[str, float]:
    """The same scores from pixel lists, image by image, without a confusion matrix."""
    flat_truth, flat_mask = truths.ravel(), masks.ravel()
    ious = []
    for k in range(num_classes):
        union = np.logical_or(flat_truth == k, flat_mask == k).sum()
        if union:
            ious.append(np.logical_and(flat_truth == k, flat_mask == k).sum() / union)
    dices = []
    for truth, mask in zip(truths, masks, strict=True):
        if not truth.any():
            continue
        parts = []
        for k in range(1, num_classes):
            size = (truth == k).sum() + (mask == k).sum()
            if size:
                parts.append(2 * ((truth == k) & (mask == k)).sum() / size)
        dices.append(np.mean(parts))
    agree = (flat_truth == flat_mask).mean()
    chance = sum((flat_truth == k).mean() * (flat_mask == k).mean() for k in range(num_classes))
    return {
        "acc": agree,
        "miou": np.mean(ious),
        "dice": np.mean(dices),
        "kappa": (agree - chance) / (1 - chance),
    }


@pytest.mark.parametrize(("num_classes", "used"), [(2, 2), (3, 3), (5, 4)])
def test_scores_equal_the_pixel_formulas(num_classes: int, used: int) -> None:
    rng = np.random.default_rng(num_classes)
    truths = rng.integers(0, used, (7, 9, 11)).astype(np.uint8)
    truths[2] = 0
    masks = np.where(rng.random(truths.shape) < 0.7, truths, rng.integers(0, used, truths.shape)).astype(
        np.uint8
    )
    scores = score_cases(count_confusions(truths, masks, num_classes))
    for name, value in _score_by_pixels(truths, masks, num_classes).items():
        assert getattr(scores, name) == pytest.approx(value, abs=1e-12), name
    assert scores.false_positive_rate == 1.0


def test_sums_are_additive_and_scored_along_leading_axes() -> None:
    rng = np.random.default_rng(3)
    cases = summarise_cases(rng.integers(0, 50, (6, 3, 3)))
    halves = np.stack([cases[:3].sum(axis=0), cases[3:].sum(axis=0)])
    together = score_sums(halves, 3)
    for index in range(2):
        alone = score_sums(halves[index], 3)
        for name in METRICS:
            assert together[name][index] == alone[name]
    assert together["dice"].shape == (2,)


@pytest.mark.parametrize(
    ("truth", "mask"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)),
        (np.full((2, 2), 2, np.uint8), np.zeros((2, 2), np.uint8)),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8)),
        (np.zeros((2, 2), np.int8), np.full((2, 2), -1, np.int8)),
    ],
)
def test_bad_masks_are_refused(truth: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(InputError):
        count_confusion(truth, mask, 2)


def test_shapes_that_are_no_confusions_are_refused() -> None:
    with pytest.raises(InputError):
        summarise_cases(np.zeros((2, 2), np.int64))
    with pytest.raises(InputError):
        score_sums(np.zeros(9), 2)
    with pytest.raises(InputError):
        count_confusions(np.zeros((2, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8), 2)


def test_overlap_is_dice_of_all_foreground_pixels_of_equal_class() -> None:
    masks, reference = np.array([[0, 1, 1, 2], [0, 0, 2, 2]] * 4), np.array([[0, 1, 2, 2], [1, 0, 0, 2]] * 4)
    assert measure_overlap(masks, reference) == pytest.approx(2 * 3 / (5 + 5))
    assert measure_overlap(0 * masks, reference) == 0
    assert measure_overlap(masks, 0 * masks) is None
    assert measure_overlap(masks, reference * (np.arange(8) < 6)[:, None]) is None  # 15 pixels
