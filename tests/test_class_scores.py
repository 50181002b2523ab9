"""Scores of single classes against examples worked by hand, and beside the mean they make."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.class_scores import ClassScores, list_foreground, score_classes
from edgekd.errors import InputError
from edgekd.metrics import score_cases

NAMES = ("background", "cyst", "solid")


def test_classes_worked_by_hand() -> None:
    # Image 0: 4 pixels of cyst, 3 found; 2 of solid, none found. Image 1: solid alone, found in full.
    first = [[10, 0, 0], [1, 3, 0], [2, 0, 0]]
    second = [[12, 0, 0], [0, 0, 0], [0, 0, 4]]
    background, cyst, solid = score_classes(np.array([first, second]), NAMES)
    assert cyst == ClassScores("cyst", pytest.approx(6 / 7), pytest.approx(3 / 4), 1)
    assert solid == ClassScores("solid", pytest.approx((0 + 1) / 2), pytest.approx(4 / 6), 2)
    assert math.isnan(background.dice) and background.iou == pytest.approx(22 / 25)
    assert background.to_dict()["dice"] is None


def test_a_class_found_where_it_is_not_lowers_its_iou_alone() -> None:
    other, empty = [[5, 0, 1], [0, 4, 0], [0, 0, 0]], [[9, 3, 0], [0, 0, 0], [0, 0, 0]]
    _, cyst, solid = score_classes(np.array([other, empty]), NAMES)
    assert (cyst.dice, cyst.iou, cyst.num_images) == (1.0, pytest.approx(4 / 7), 1)
    assert math.isnan(solid.dice)
    assert (solid.iou, solid.num_images) == (0.0, 0)
    _, _, absent = score_classes(np.array([empty]), NAMES)
    assert math.isnan(absent.iou)


def test_one_foreground_class_has_the_dice_and_iou_of_the_whole() -> None:
    confusions = np.random.default_rng(0).integers(0, 9, (6, 2, 2))
    _, lesion = score_classes(confusions, NAMES[:2])
    scores = score_cases(confusions)
    assert (lesion.dice, lesion.iou) == (pytest.approx(scores.dice), pytest.approx(scores.miou_foreground))


def test_no_image_scores_nothing() -> None:
    assert all(math.isnan(one.iou) for one in score_classes(np.zeros((0, 3, 3), np.int64), NAMES))


def test_only_several_foreground_classes_are_listed() -> None:
    rows = [{"name": name} for name in NAMES]
    assert list_foreground(rows) == rows[1:]
    assert not list_foreground(rows[:2])


def test_other_classes_than_the_matrix_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(N, 3, 3\)"):
        score_classes(np.zeros((1, 2, 2), np.int64), NAMES)
