"""Regions and border distances against shapes whose answers are known by heart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekd.benchmarks.components import count_unmatched_regions, label_regions, measure_hd95


def draw(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def flood(region: np.ndarray) -> int:
    """Count regions by walking over them, pixel by pixel."""
    left, count = {(int(y), int(x)) for y, x in np.argwhere(region)}, 0
    while left:
        count += 1
        heap = [left.pop()]
        while heap:
            y, x = heap.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            heap += near
    return count


def test_regions_touch_also_at_corners() -> None:
    region = draw("#..#", ".#..", "...#")
    labels = label_regions(region)
    assert labels.max() == 3
    assert labels[0, 0] == labels[1, 1]
    assert len({labels[0, 0], labels[0, 3], labels[2, 3]}) == 3


def test_a_spiral_is_one_region() -> None:
    spiral = draw("#######", "#......", "#.#####", "#.#...#", "#.###.#", "#.....#", "#######")
    assert label_regions(spiral).max() == 1


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_as_many_regions_as_a_walk_finds(region: np.ndarray) -> None:
    labels = label_regions(region)
    assert labels.max(initial=0) == flood(region)
    assert np.array_equal(labels > 0, region)


def test_unmatched_regions_are_those_that_share_no_pixel() -> None:
    first = draw("##...", "##...", "....#")
    second = draw(".#...", ".....", ".....")
    assert count_unmatched_regions(first, second) == 1
    assert count_unmatched_regions(second, first) == 0
    assert count_unmatched_regions(first, np.zeros_like(first)) == 2


def test_border_distance_of_shifted_and_of_nested_squares() -> None:
    first, second = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    first[5:25, 5:25] = True
    second[5:25, 8:28] = True
    assert measure_hd95(first, first) == 0
    assert measure_hd95(first, second) == pytest.approx(3.0)
    second[:] = False
    second[10:20, 10:20] = True
    # From the outer border to the inner one: 5 along the sides, more at the corners only.
    assert 5.0 <= measure_hd95(first, second) <= np.hypot(5, 5)
    assert measure_hd95(first, np.zeros_like(first)) is None
