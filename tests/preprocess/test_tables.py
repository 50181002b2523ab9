from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import InputError
from edgekd.preprocess import build_interpolation_table

SIZES = st.integers(1, 300)


@settings(max_examples=150, deadline=None)
@given(in_size=SIZES, out_size=SIZES, antialias=st.booleans())
def test_every_row_is_a_mean_of_pixels_inside_the_image(in_size: int, out_size: int, antialias: bool) -> None:
    table = build_interpolation_table(in_size, out_size, antialias)
    assert table.starts.shape == (out_size,) and table.starts.dtype == np.int32
    assert table.weights.shape == (out_size, table.taps)
    assert table.starts.min() >= 0
    assert table.starts.max() + table.taps <= in_size
    assert table.weights.min() >= 0
    np.testing.assert_allclose(table.weights.sum(axis=1), 1.0, atol=1e-15)


@settings(max_examples=100, deadline=None)
@given(in_size=SIZES, out_size=SIZES, antialias=st.booleans())
def test_mirrored_input_gives_mirrored_output(in_size: int, out_size: int, antialias: bool) -> None:
    table = build_interpolation_table(in_size, out_size, antialias)
    dense = np.zeros((out_size, in_size))
    for row, start in enumerate(table.starts):
        dense[row, start : start + table.taps] = table.weights[row]
    np.testing.assert_allclose(dense, dense[::-1, ::-1], atol=1e-12)


def test_equal_sizes_copy() -> None:
    table = build_interpolation_table(7, 7, True)
    picked = table.starts + table.weights.argmax(axis=1)
    np.testing.assert_array_equal(picked, np.arange(7))
    np.testing.assert_array_equal(table.weights.max(axis=1), 1.0)


def test_doubling_weighs_three_to_one() -> None:
    table = build_interpolation_table(4, 8, True)
    row = dict(zip(range(table.starts[3], table.starts[3] + table.taps), table.weights[3], strict=True))
    # Output 3 sits at 1.75: a quarter pixel past the centre of input 1.
    assert row[1] == pytest.approx(0.75)
    assert row[2] == pytest.approx(0.25)


def test_halving_with_antialias_spans_four_pixels() -> None:
    table = build_interpolation_table(16, 8, True)
    weights = np.zeros(16)
    weights[table.starts[4] : table.starts[4] + table.taps] = table.weights[4]
    np.testing.assert_allclose(weights[7:11], [1 / 8, 3 / 8, 3 / 8, 1 / 8], atol=1e-15)
    assert build_interpolation_table(16, 8, False).taps == 2


def test_tables_are_shared_and_cannot_be_changed() -> None:
    table = build_interpolation_table(9, 5, True)
    assert build_interpolation_table(9, 5, True) is table
    with pytest.raises(ValueError, match="read-only"):
        table.weights[0, 0] = 2.0


@pytest.mark.parametrize(("in_size", "out_size"), [(0, 4), (4, 0)])
def test_no_pixel_is_refused(in_size: int, out_size: int) -> None:
    with pytest.raises(InputError, match="at least one pixel"):
        build_interpolation_table(in_size, out_size, True)
