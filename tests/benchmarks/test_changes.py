"""What changed between two masks, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.benchmarks.changes import describe_suspicions, measure_changes


def test_flips_areas_and_regions_worked_by_hand() -> None:
    reference = np.zeros((3, 20, 20), np.uint8)
    reference[0, 2:6, 2:6] = 1  # 16 pixels
    reference[0, 12:14, 12:14] = 1  # 4 pixels, vanishes
    reference[1, 5:10, 5:10] = 1
    candidate = reference.copy()
    candidate[0, 12:14, 12:14] = 0
    candidate[1, 15:17, 1] = 1  # 2 pixels, a region of their own
    changes, cases = measure_changes(reference, candidate)
    assert sorted(cases) == [0, 1]
    assert (cases[0].flips, cases[0].vanished, cases[0].appeared) == (4, 1, 0)
    assert (cases[1].flips, cases[1].vanished, cases[1].appeared) == (2, 0, 1)
    assert cases[0].area_change == pytest.approx(-4 / 20)
    assert cases[1].area_change == pytest.approx(2 / 25)
    assert (changes.flips, changes.vanished, changes.appeared, changes.emptied) == (6, 1, 1, 0)
    assert changes.flipped_part == pytest.approx(6 / 1200)
    assert changes.area_change == pytest.approx(-2 / 45)
    assert changes.max_area_change == pytest.approx(-0.2)
    assert changes.sure_flips is None
    assert changes.largest_flip_margin is None


def test_flips_of_pixels_that_the_student_was_sure_of_are_told_from_rounding() -> None:
    reference = np.zeros((1, 4, 4), np.uint8)
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[0, 0] = 1e-6
    logits[0, 0, 0, 0] = 3.0
    candidate = reference.copy()
    candidate[0, 3, 3] = 1
    rounding, _ = measure_changes(reference, candidate, logits)
    assert rounding.sure_flips == 0
    assert rounding.largest_flip_margin == pytest.approx(1e-6)
    candidate[0, 0, 0] = 1
    real, cases = measure_changes(reference, candidate, logits)
    assert (real.sure_flips, cases[0].sure_flips) == (1, 1)
    assert real.largest_flip_margin == pytest.approx(3.0)


def test_equal_masks_have_no_change() -> None:
    masks = np.ones((2, 5, 5), np.uint8)
    changes, cases = measure_changes(masks, masks)
    assert cases == {}
    assert (changes.flips, changes.max_hd95_pixels, changes.area_change) == (0, None, 0.0)


def test_an_engine_that_finds_nothing_is_suspected_of_overflow() -> None:
    reference = np.ones((20, 4, 4), np.uint8)
    candidate = reference.copy()
    candidate[:3] = 0
    changes, _ = measure_changes(reference, candidate)
    assert changes.emptied == 3
    assert "NaN or overflow" in describe_suspicions(changes, 20)[0]
    candidate[0] = 1
    assert describe_suspicions(measure_changes(reference, candidate)[0], 20) == ()
