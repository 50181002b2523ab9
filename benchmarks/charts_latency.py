"""Charts of latencies: distributions, tails by percentile, and frames in time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
from edgekd.benchmarks.paced_result import NEVER
from edgekd.tables import format_ms

NUM_BINS = 80
MAX_POINTS = 700
_MARKED = ("p50", "p90", "p99", "p99.9")


def draw_distributions(results: Sequence[Mapping[str, Any]]) -> Html:
    """Draw one histogram a build on a common logarithmic axis, with its percentiles marked.

    Args:
        results: entries of a latency report, with ``name``, ``samples_ns`` and ``percentiles_ms``.
    """
    lanes = [result for result in results if result["samples_ns"]]
    if not lanes:
        return element("p", "No samples were taken.")
    samples = {one["name"]: np.asarray(one["samples_ns"], np.float64) / 1e6 for one in lanes}
    low, high = spread_range([float(value) for one in samples.values() for value in (one.min(), one.max())])

    def draw(canvas: Canvas) -> tuple[list[Html], float]:
        scale = LogScale(low, high, canvas.gutter, canvas.gutter + canvas.plot_width)
        height, bottom = 66, 4.0 + len(lanes) * (66 + canvas.label_height)
        ticks = [
            (scale.place(tick), f"{tick:.3g}") for tick in scale.list_ticks(5 if canvas.is_narrow else 9)
        ]
        caption = "milliseconds, logarithmic"
        parts = [draw_x_axis(ticks, 4, bottom, canvas.gutter + canvas.plot_width / 2, caption)]
        for index, one in enumerate(lanes):
            y = 4.0 + index * (height + canvas.label_height)
            parts.append(canvas.draw_label(one["name"], y, height + 12))
            parts.append(
                _draw_lane(
                    samples[one["name"]], one["percentiles_ms"], scale, y + canvas.label_height, height
                )
            )
        return parts, bottom + 42

    summary = "; ".join(f"{one['name']} {_list_percentiles(one)}" for one in lanes)
    return build_chart(draw, f"Latency distribution: {summary}")


def draw_tails(results: Sequence[Mapping[str, Any]]) -> Html:
    """Draw latency over percentile, the tail stretched out, of single stream and paced frames.

    Args:
        results: entries of a latency report.
    """
    curves = [
        (one["name"], np.sort(np.asarray(one["samples_ns"], np.float64)) / 1e6)
        for one in _list_curves(results)
    ]
    curves = [(name, values) for name, values in curves if len(values) >= 10]
    if not curves:
        return element("p", "Too few samples for percentiles.")
    low, high = spread_range([float(value) for _, values in curves for value in (values[0], values[-1])])
    most = max(len(values) for _, values in curves)

    def draw(canvas: Canvas) -> tuple[list[Html], float]:
        left, right = 4, canvas.width - (14 if canvas.is_narrow else 190)
        legend, top = draw_legend([name for name, _ in curves], canvas) if canvas.is_narrow else (None, 12)
        bottom = top + 230.0
        scale = LogScale(low, high, bottom, top)
        # Right of the values, which stand on their lines.
        stretch = LogScale(1.0, float(most), left + 58, right)
        parts = [] if legend is None else [legend]
        parts.append(draw_y_axis([(scale.place(t), f"{t:.3g} ms") for t in scale.list_ticks()], left, right))
        marks = [(1, "0"), (2, "p50"), (10, "p90"), (100, "p99"), (1000, "p99.9"), (10000, "p99.99")]
        places = [(stretch.place(inverse), name) for inverse, name in marks if inverse <= most]
        parts.append(draw_x_axis(places, top, bottom, (left + right) / 2, "percentile, the tail stretched"))
        ends: list[float] = []
        for index, (_, values) in enumerate(curves):
            points, ends_at = _trace_tail(values, stretch, scale)
            ends.append(ends_at)
            parts.append(element("polyline", points=points, class_=f"curve stroke-{index % 6}"))
        if not canvas.is_narrow:
            for index, y in enumerate(spread_labels(ends, 15)):
                name = curves[index][0]
                text = name if len(name) <= 28 else name[:27] + "…"
                parts.append(element("text", text, x=right + 8, y=at(y + 4), class_=f"tick ink-{index % 6}"))
        return parts, bottom + 42

    summary = "; ".join(f"{name}: slowest {format_ms(float(values[-1]))} ms" for name, values in curves)
    return build_chart(draw, f"Latency by percentile: {summary}")


def draw_paces(results: Sequence[Mapping[str, Any]]) -> Html:
    """Draw every paced frame over time: its latency from arrival, the deadline, and what was dropped.

    Args:
        results: entries of a latency report.
    """
    paces = [
        (f"{result['name']}, {one['fps']:g} fps", one)
        for result in results
        for one in result.get("scenarios", ())
        if one["scenario"] == "paced" and one["num_frames"]
    ]
    if not paces:
        return element("p", "No frames were paced.")

    def draw(canvas: Canvas) -> tuple[list[Html], float]:
        parts: list[Html] = []
        y, height = 4.0, 110
        for name, pace in paces:
            parts.append(element("text", name, x=2, y=at(y + 13), class_="label"))
            parts.append(_draw_pace(pace, 60, canvas.width - 26, y + 24, height))
            y += height + 64
        return parts, y - 14

    summary = "; ".join(
        f"{name}: {one['missed']} of {one['num_frames']} frames later than {one['deadline_ms']:.3g} ms "
        f"or dropped"
        for name, one in paces
    )
    return build_chart(draw, f"Frames over time: {summary}")


def _draw_lane(
    values: Any, percentiles: Mapping[str, float | None], scale: LogScale, top: float, height: int
) -> Html:
    edges = np.geomspace(scale.low, scale.high, NUM_BINS + 1)
    counts, _ = np.histogram(values, edges)
    peak, base, width = max(int(counts.max()), 1), top + height - 6, (scale.end - scale.begin) / NUM_BINS
    # The square root keeps a tail of single samples visible beside a peak of hundreds.
    heights = [math.sqrt(count / peak) * (height - 24) for count in counts]
    bars = [
        element(
            "rect",
            x=at(scale.begin + index * width),
            y=at(base - high),
            width=at(width - 0.5),
            height=at(high),
            class_="series-0",
        )
        for index, high in enumerate(heights)
        if high > 0
    ]
    marks: list[Html] = []
    last_x = -math.inf
    for name in _MARKED:
        value = percentiles.get(name)
        if value is None:
            continue
        x = scale.place(value)
        marks.append(element("line", x1=at(x), x2=at(x), y1=at(top + 14), y2=at(base), class_="mark"))
        if x - last_x > 30:
            marks.append(element("text", name, x=at(x), y=at(top + 11), class_="tick", text_anchor="middle"))
            last_x = x
    line = element("line", x1=at(scale.begin), x2=at(scale.end), y1=at(base), y2=at(base), class_="axis")
    return element("g", line, *bars, *marks)


def _trace_tail(values: Any, stretch: LogScale, scale: LogScale) -> tuple[str, float]:
    number = len(values)
    inverse = np.geomspace(1.0, number, 160)
    ranks = np.minimum(np.ceil((1 - 1 / inverse) * number).astype(int), number - 1)
    points = [
        (stretch.place(float(x)), scale.place(float(values[rank])))
        for x, rank in zip(inverse, ranks, strict=True)
    ]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points), points[-1][1]


def _draw_pace(pace: Mapping[str, Any], left: float, right: float, top: float, height: int) -> Html:
    arrivals, ends = np.asarray(pace["arrivals_ns"], np.float64), np.asarray(pace["ends_ns"], np.float64)
    done = ends != NEVER
    latencies_ms = np.where(done, ends - arrivals, 0.0) / 1e6
    deadline = pace["deadline_ms"]
    high = max(float(latencies_ms.max()), deadline) * 1.12
    base = top + height
    span = max(float(arrivals[-1]), 1.0)
    xs = left + arrivals / span * (right - left)
    ys = base - latencies_ms / high * height
    limit = base - deadline / high * height
    step = max(1, len(xs) // MAX_POINTS)
    late = done & (latencies_ms > deadline)
    large = 3 if late.sum() < 100 else 1.6
    # Of many frames in time some are enough; each that was late or dropped is drawn.
    shown = [index for index in range(len(xs)) if done[index] and (late[index] or index % step == 0)]
    dots = [
        element(
            "circle",
            cx=at(float(xs[index])),
            cy=at(float(ys[index])),
            r=large if late[index] else 1.6,
            class_="late" if late[index] else "series-0",
        )
        for index in shown
    ]
    drops = [
        element("path", d=f"M{x - 3:.1f},{base - 8:.1f}l6,6m0,-6l-6,6", class_="drop") for x in xs[~done]
    ]
    seconds = span / 1e9
    ticks = [(left, "0"), (right, f"{seconds:.3g} s")]
    peak = float(latencies_ms.max())
    marks = [(base, "0 ms"), (base - peak / high * height, f"{format_ms(peak)} ms")]
    names = [
        element("text", text, x=at(left - 6), y=at(y + 4), class_="tick", text_anchor="end")
        for y, text in marks
    ]
    return element(
        "g",
        draw_x_axis(ticks, top, base),
        element("line", x1=left, x2=right, y1=at(base), y2=at(base), class_="axis"),
        *names,
        element("line", x1=left, x2=right, y1=at(limit), y2=at(limit), class_="limit"),
        element("text", f"deadline {deadline:.3g} ms", x=at(left + 4), y=at(limit - 4), class_="tick"),
        *dots,
        *drops,
    )


def _list_curves(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    curves = [{"name": one["name"], "samples_ns": one["samples_ns"]} for one in results]
    for result in results:
        for one in result.get("scenarios", ()):
            if one["scenario"] == "paced":
                pairs = zip(one["arrivals_ns"], one["ends_ns"], strict=True)
                latencies = [end - arrival for arrival, end in pairs if end != NEVER]
                name = f"{result['name']}, {one['fps']:g} fps"
                curves.append({"name": name, "samples_ns": latencies})
    return curves


def _list_percentiles(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {format_ms(ms)} ms" for key, ms in result["percentiles_ms"].items())
