"""Connected regions of a mask and the distance between the borders of two, in NumPy alone.

A cart has no SciPy; masks of a few hundred pixels a side need none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.overlays import find_contour

_BLOCK_POINTS = 512


def label_regions(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return the 8-connected regions of (H, W) bool as ids from 1, 0 outside: (H, W) int32.

    Runs of pixels in a row are joined with those of the row above that they touch, also at corners
    (Rosenfeld & Pfaltz 1966, on runs).
    """
    rows, starts, ends = _find_runs(region)
    parents = list(range(len(rows)))
    begin = [int(place) for place in np.searchsorted(rows, np.arange(region.shape[0] + 1))]
    for row in range(1, region.shape[0]):
        above, last = begin[row - 1], begin[row]
        for run in range(begin[row], begin[row + 1]):
            while above < last and ends[above] < starts[run]:
                above += 1
            other = above
            while other < last and starts[other] <= ends[run]:
                _join(parents, run, other)
                other += 1
    _, ids = np.unique([_find_root(parents, run) for run in range(len(parents))], return_inverse=True)
    labels = np.zeros(region.shape, np.int32)
    for row, start, end, label in zip(rows, starts, ends, ids, strict=True):
        labels[row, start:end] = label + 1
    return labels


def count_unmatched_regions(region: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> int:
    """Return how many connected regions of ``region`` share no pixel with ``other``; both (H, W) bool."""
    labels = label_regions(region)
    return int(labels.max(initial=0)) - len(np.unique(labels[other & region]))


def measure_hd95(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float | None:
    """Return the 95th percentile of the distances between two borders, in pixels; None where one is empty.

    The larger of the two directed percentiles (Huttenlocher et al. 1993, with the 95th percentile in place of
    the maximum); a border is the pixels of a region that touch what is outside of it.

    Args:
        first, second: (H, W) bool.
    """
    borders = [np.argwhere(find_contour(region)).astype(np.float64) for region in (first, second)]
    if not all(len(border) for border in borders):
        return None
    directed = [_measure_nearest(borders[0], borders[1]), _measure_nearest(borders[1], borders[0])]
    return float(max(np.percentile(distances, 95) for distances in directed))


def _measure_nearest(points: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the distance of each point (n, 2) to the nearest of others (m, 2)."""
    nearest = [
        ((points[start : start + _BLOCK_POINTS, None] - others[None]) ** 2).sum(axis=-1).min(axis=1)
        for start in range(0, len(points), _BLOCK_POINTS)
    ]
    return np.sqrt(np.concatenate(nearest))


def _find_runs(region: npt.NDArray[np.bool_]) -> tuple[list[int], list[int], list[int]]:
    """Return row, first column and the column behind the last of every run, row by row."""
    edges = np.diff(np.pad(region, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    return rows.tolist(), starts.tolist(), np.nonzero(edges == -1)[1].tolist()


def _join(parents: list[int], first: int, second: int) -> None:
    roots = _find_root(parents, first), _find_root(parents, second)
    parents[max(roots)] = min(roots)


def _find_root(parents: list[int], run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run
