"""Charts of stages, of accuracy against latency, and of differences against their margins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.benchmarks.chart_parts import (
    Canvas,
    LogScale,
    at,
    build_chart,
    draw_legend,
    draw_x_axis,
    draw_y_axis,
    spread_labels,
    spread_range,
)
from edgekd.benchmarks.html import Html, element
from edgekd.benchmarks.tables import METRIC_NAMES
from edgekd.tables import format_ms


def draw_stages(results: Sequence[Mapping[str, Any]]) -> Html:
    """Draw the p50 of each build's stages end to end, in ms from zero.

    Args:
        results: entries of a latency report, with ``name`` and ``stage_percentiles_ms``.
    """
    bars = {one["name"]: _read_stage_medians(one) for one in results}
    bars = {name: stages for name, stages in bars.items() if stages}
    if not bars:
        return element("p", "No stages were measured.")
    names = list(dict.fromkeys(stage for stages in bars.values() for stage in stages))
    longest = max(sum(stages.values()) for stages in bars.values()) or 1e-6

    def draw(canvas: Canvas) -> tuple[list[Html], float]:
        legend, top = draw_legend(names, canvas)
        row_height, parts = 36 + canvas.label_height, [legend]
        unit = (canvas.plot_width - 46) / longest
        for row, (name, stages) in enumerate(bars.items()):
            y, x = top + row * row_height, float(canvas.gutter)
            parts.append(canvas.draw_label(name, y, 26))
            for stage, median_ms in stages.items():
                title = element("title", f"{name}, {stage}: {format_ms(median_ms)} ms")
                style = f"series-{names.index(stage) % 6}"
                place = {"x": at(x), "y": y + canvas.label_height, "width": at(median_ms * unit)}
                parts.append(element("rect", title, **place, height=26, class_=style))
                x += median_ms * unit
            total = f"{format_ms(sum(stages.values()))} ms"
            parts.append(element("text", total, x=at(x + 6), y=y + canvas.label_height + 18, class_="value"))
        return parts, top + row_height * len(bars) + 4

    summary = "; ".join(
        f"{name}: " + ", ".join(f"{stage} {format_ms(value)} ms" for stage, value in stages.items())
        for name, stages in bars.items()
    )
    return build_chart(draw, "Stages: " + summary)


def draw_tradeoff(points: Sequence[Mapping[str, Any]]) -> Html:
    """Draw Dice over p50 latency, one point a build, with the interval of its difference to the student.

    Args:
        points: each with ``name``, ``p50_ms``, ``dice``, ``low`` and ``high`` (Dice, None where unknown) and
            ``series``, by which it is coloured.
    """
    if not points:
        return element("p", "No build has both an accuracy and a latency.")
    low, high = spread_range([one["p50_ms"] for one in points], least=2.0)
    known = [value for one in points for value in (one["dice"], one["low"], one["high"]) if value is not None]
    floor, ceiling = min(known), max(known)
    room = max(0.15 * (ceiling - floor), 0.004)
    floor, ceiling = floor - room, ceiling + room
    series = list(dict.fromkeys(one["series"] for one in points))

    def draw(canvas: Canvas) -> tuple[list[Html], float]:
        left, right = 4, canvas.width - 14
        legend, top = draw_legend(series, canvas, start=4)
        bottom = top + 220.0
        scale = LogScale(low, high, left + 46, right - 10)
        ticks = [(scale.place(tick), f"{tick:.3g}") for tick in scale.list_ticks(6)]
        parts = [legend, draw_x_axis(ticks, top, bottom, (left + right) / 2, "p50 in ms, logarithmic")]

        def place(value: float) -> float:
            return bottom - (value - floor) / (ceiling - floor) * (bottom - top)

        grid = _choose_steps(floor, ceiling)
        parts.append(draw_y_axis([(place(value), f"{value:.3f}") for value in grid], left, right))
        labels = spread_labels([place(one["dice"]) for one in points], 16)
        # Names last: no dot may cover one.
        names: list[Html] = []
        for one, label_y in zip(points, labels, strict=True):
            x, y, style = (
                scale.place(one["p50_ms"]),
                place(one["dice"]),
                series.index(one["series"]) % 6,
            )
            if one["low"] is not None and one["high"] is not None:
                ends = {"y1": at(place(one["low"])), "y2": at(place(one["high"]))}
                parts.append(element("line", x1=at(x), x2=at(x), **ends, class_=f"stroke-{style} interval"))
            parts.append(element("circle", cx=at(x), cy=at(y), r=6, class_=f"series-{style} point"))
            side = x > (left + right) / 2
            anchor, shift = ("end", -11) if side else ("start", 11)
            where = {"x": at(x + shift), "y": at(label_y + 4), "text_anchor": anchor}
            names.append(element("text", one["name"], **where, class_="label"))
        return [*parts, *names], bottom + 42

    summary = "; ".join(
        f"{one['name']}: Dice {one['dice']:.4f} at {format_ms(one['p50_ms'])} ms" for one in points
    )
    return build_chart(draw, "Accuracy against latency: " + summary)


def draw_differences(results: Sequence[Mapping[str, Any]]) -> Html:
    """Draw each difference with its interval, in units of its margin: the line at -1 must not be crossed.

    Args:
        results: entries of a parity report on data.
    """
    rows = [
        (result["candidate"], name, result["differences"][name], result["margins"][name])
        for result in results
        for name in result["margins"]
        if result["differences"][name]["delta"] is not None
    ]
    if not rows:
        return element("p", "No difference is defined.")
    reach = _find_reach(rows)

    def draw(canvas: Canvas) -> tuple[list[Html], float]:
        row_height, top = 26 + canvas.label_height, 8.0
        bottom = top + row_height * len(rows)

        def place(value: float | None, otherwise: float) -> float:
            clipped = max(-reach, min(reach, otherwise if value is None else value))
            return canvas.gutter + (clipped + reach) / (2 * reach) * canvas.plot_width

        ticks = [
            (place(tick, 0), f"{tick:+d}" if tick else "0") for tick in range(-4, 5) if abs(tick) <= reach
        ]
        middle = canvas.gutter + canvas.plot_width / 2
        parts = [draw_x_axis(ticks, top, bottom, middle, "in units of the margin; left of -1 fails")]
        limit = at(place(-1, 0))
        parts.append(element("line", x1=limit, x2=limit, y1=at(top), y2=at(bottom), class_="limit"))
        for index, (build, name, difference, margin) in enumerate(rows):
            y = top + index * row_height
            label = f"{build} {METRIC_NAMES[name]}"
            parts.append(canvas.draw_label(label, y, 26))
            scaled = {
                key: None if difference[key] is None else difference[key] / margin
                for key in ("interval_low", "interval_high", "lower", "delta")
            }
            ends = place(scaled["interval_low"], -reach), place(scaled["interval_high"], reach)
            marks = place(scaled["lower"], -reach), place(scaled["delta"], 0.0)
            parts.append(_draw_interval(ends, marks, y + canvas.label_height + 13))
        return parts, bottom + 42

    summary = "; ".join(f"{build} Δ{METRIC_NAMES[name]} {one['delta']:+.5f}" for build, name, one, _ in rows)
    return build_chart(draw, "Differences to the student: " + summary)


def _draw_interval(ends: tuple[float, float], marks: tuple[float, float], y: float) -> Html:
    bound, delta = marks
    return element(
        "g",
        element("line", x1=at(ends[0]), x2=at(ends[1]), y1=at(y), y2=at(y), class_="stroke-0 interval"),
        element("line", x1=at(bound), x2=at(bound), y1=at(y - 6), y2=at(y + 6), class_="stroke-0 interval"),
        element("circle", cx=at(delta), cy=at(y), r=4, class_="series-0"),
    )


def _find_reach(rows: Sequence[tuple[str, str, Mapping[str, Any], float]]) -> float:
    keys = ("interval_low", "interval_high", "lower", "delta")
    ends = [abs(one[key]) / margin for _, _, one, margin in rows for key in keys if one[key] is not None]
    return min(max([1.25, *(1.1 * end for end in ends)]), 4.0)


def _choose_steps(low: float, high: float) -> list[float]:
    """Return about four round values between two."""
    raw = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(step * unit for step in (1, 2, 5, 10) if step * unit >= raw)
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _read_stage_medians(result: Mapping[str, Any]) -> dict[str, float]:
    medians = {stage: summary["p50"] for stage, summary in result["stage_percentiles_ms"].items()}
    return {stage: value for stage, value in medians.items() if value is not None}
