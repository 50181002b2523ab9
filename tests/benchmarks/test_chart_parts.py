"""Axes and labels: where things lie, and that they do not lie on each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.benchmarks.chart_parts import (
    NARROW,
    WIDE,
    LogScale,
    build_chart,
    draw_legend,
    spread_labels,
    spread_range,
)
from edgekd.benchmarks.charts import draw_differences, draw_stages, draw_tradeoff
from edgekd.benchmarks.charts_latency import draw_distributions, draw_paces, draw_tails
from edgekd.benchmarks.html import element


def test_places_on_a_logarithmic_axis() -> None:
    scale = LogScale(1.0, 100.0, 10.0, 210.0)
    assert [scale.place(value) for value in (1, 10, 100, 1000, 0.1)] == pytest.approx([10, 110, 210, 210, 10])
    backwards = LogScale(1.0, 100.0, 210.0, 10.0)
    assert backwards.place(1) == pytest.approx(210)


@pytest.mark.parametrize(("low", "high"), [(0.001, 5000), (1, 2), (2.7, 4.6), (0.9, 1.13), (30, 31)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = LogScale(low, high, 0, 1).list_ticks(8)
    assert 2 <= len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)


def test_range_of_equal_values_has_a_width() -> None:
    low, high = spread_range([3.0, 3.0], least=2.0)
    assert high / low == pytest.approx(2.0)
    assert low < 3.0 < high


def test_labels_move_apart_and_keep_their_order() -> None:
    places = spread_labels([50.0, 10.0, 52.0, 51.0], 15)
    assert places[1] == 10.0
    assert np.diff(np.sort(places)).min() >= 15
    assert [int(index) for index in np.argsort(places)] == [1, 0, 3, 2]


def test_legend_breaks_into_lines_and_stays_on_the_canvas() -> None:
    _, one = draw_legend(["a", "b"], WIDE)
    text, several = draw_legend(["a long name of a build"] * 5, NARROW)
    assert several > one
    assert text.count("<rect") == 5


def test_chart_is_drawn_for_wide_and_narrow_pages() -> None:
    chart = build_chart(lambda canvas: ([element("g")], canvas.width / 3), 'it says "x"')
    assert chart.count("<svg") == 2
    assert 'viewBox="0 0 760 254"' in chart
    assert 'viewBox="0 0 360 120"' in chart
    assert "&quot;x&quot;" in chart


def test_charts_without_anything_to_draw_say_so() -> None:
    assert "No samples" in draw_distributions([])
    assert "Too few" in draw_tails([{"name": "a", "samples_ns": [1] * 9}])
    assert "No frames" in draw_paces([{"name": "a"}])
    assert "No stages" in draw_stages([])
    assert "No build" in draw_tradeoff([])
    assert "No difference" in draw_differences([])


def test_equal_scores_are_drawn_without_a_division_by_nothing() -> None:
    point = {"p50_ms": 2.0, "dice": 1.0, "low": None, "high": None, "series": "fp32"}
    chart = draw_tradeoff([{"name": "a", **point}, {"name": "b", **point}])
    assert chart.count("<circle") == 4
    assert "nan" not in chart
