"""From logits to masks."""

from __future__ import annotations

import numpy as np

from edgekd.distill import pick_masks


def test_the_lower_class_wins_where_logits_are_equal() -> None:
    logits = np.array([[0.0, 1.0, 1.0, -1.0], [0.0, 1.0, 2.0, -1.0], [0.0, 0.0, 2.0, -1.0]], np.float32)
    masks = pick_masks(logits.reshape(1, 3, 2, 2))
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, [[[0, 0], [1, 0]]])
