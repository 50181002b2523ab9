"""Three charts as inline SVG: latency distributions, stages, and differences against their margins.

They are drawn here because the device side has no plotting library, and the report must be whole there too.
Colours come from the page's style sheet, so that charts follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.benchmarks.html import Html, element, escape
from edgekd.benchmarks.tables import METRIC_NAMES
from edgekd.tables import format_ms

WIDTH, LABEL_WIDTH, RIGHT_PAD = 760, 190, 40
NUM_BINS = 72
_PLOT_WIDTH = WIDTH - LABEL_WIDTH - RIGHT_PAD


def draw_distributions(results: Sequence[Mapping[str, Any]]) -> Html:
    """Draw one histogram a build on a common logarithmic axis, with p50, p90 and p99 marked.

    Args:
        results: entries of a latency report, with ``name``, ``samples_ns`` and ``percentiles_ms``.
    """
    lanes = [result for result in results if result["samples_ns"]]
    if not lanes:
        return element("p", "No samples were taken.")
    low = min(min(result["samples_ns"]) for result in lanes) / 1e6
    high = max(max(result["samples_ns"]) for result in lanes) / 1e6
    low, high = max(low, 1e-6) * 0.95, high * 1.05
    lane_height, top = 64, 6
    axis_y = top + lane_height * len(lanes)
    parts = [_draw_log_axis(low, high, top, axis_y)]
    for index, result in enumerate(lanes):
        parts.append(_draw_lane(result, low, high, top + index * lane_height, lane_height))
    summary = "; ".join(
        f"{one['name']} "
        + ", ".join(f"{key} {format_ms(ms)} ms" for key, ms in one["percentiles_ms"].items())
        for one in lanes
    )
    return _build_svg(axis_y + 40, "Latency distribution: " + summary, parts)


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
    row_height, top = 34, 34
    parts = [_draw_legend(names)]
    for row, (name, stages) in enumerate(bars.items()):
        y, x = top + row * row_height, float(LABEL_WIDTH)
        parts.append(_draw_label(name, y + 17))
        for stage, median_ms in stages.items():
            width = median_ms / longest * (_PLOT_WIDTH - 40)
            title = element("title", f"{name}, {stage}: {format_ms(median_ms)} ms")
            parts.append(
                element(
                    "rect",
                    title,
                    x=_at(x),
                    y=y,
                    width=_at(width),
                    height=24,
                    class_=f"series-{names.index(stage) % 5}",
                )
            )
            x += width
        total = f"{format_ms(sum(stages.values()))} ms"
        parts.append(element("text", total, x=_at(x + 6), y=y + 17, class_="value"))
    summary = "; ".join(
        f"{name}: " + ", ".join(f"{stage} {format_ms(value)} ms" for stage, value in stages.items())
        for name, stages in bars.items()
    )
    return _build_svg(top + row_height * len(bars) + 6, "Stages: " + summary, parts)


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
    reach = 1.25
    for _, _, difference, margin in rows:
        ends = (
            difference["interval_low"],
            difference["interval_high"],
            difference["lower"],
            difference["delta"],
        )
        reach = max([reach, *(abs(end) / margin * 1.1 for end in ends if end is not None)])
    reach = min(reach, 4.0)
    row_height, top = 26, 8
    axis_y = top + row_height * len(rows)
    parts = [_draw_margin_axis(reach, top, axis_y)]
    for index, (build, name, difference, margin) in enumerate(rows):
        y = top + index * row_height + row_height // 2
        parts.append(_draw_interval(f"{build} {METRIC_NAMES[name]}", difference, margin, reach, y))
    summary = "; ".join(f"{build} Δ{METRIC_NAMES[name]} {one['delta']:+.5f}" for build, name, one, _ in rows)
    return _build_svg(axis_y + 42, "Differences to the student: " + summary, parts)


def _draw_lane(result: Mapping[str, Any], low: float, high: float, top: int, height: int) -> Html:
    span = math.log(high / low)
    counts = [0] * NUM_BINS
    for sample_ns in result["samples_ns"]:
        place = math.log(max(sample_ns / 1e6, low) / low) / span
        counts[min(int(place * NUM_BINS), NUM_BINS - 1)] += 1
    peak, base = max(counts), top + height - 6
    bin_width = _PLOT_WIDTH / NUM_BINS
    # The square root keeps a tail of single samples visible beside a peak of hundreds.
    bars = [
        element(
            "rect",
            x=_at(LABEL_WIDTH + index * bin_width),
            y=_at(base - math.sqrt(count / peak) * (height - 24)),
            width=_at(bin_width - 0.6),
            height=_at(math.sqrt(count / peak) * (height - 24)),
            class_="series-0",
        )
        for index, count in enumerate(counts)
        if count
    ]
    marks: list[Html] = []
    last_x = -math.inf
    for name in ("p50", "p90", "p99"):
        value = result["percentiles_ms"][name]
        if value is None:
            continue
        x = LABEL_WIDTH + math.log(max(value, low) / low) / span * _PLOT_WIDTH
        marks.append(element("line", x1=_at(x), x2=_at(x), y1=top + 14, y2=base, class_="mark"))
        if x - last_x > 26:
            marks.append(element("text", name, x=_at(x), y=top + 11, class_="tick", text_anchor="middle"))
            last_x = x
    line = element("line", x1=LABEL_WIDTH, x2=WIDTH - RIGHT_PAD, y1=base, y2=base, class_="axis")
    return element("g", _draw_label(result["name"], base - 8), line, *bars, *marks)


def _draw_log_axis(low: float, high: float, top: int, axis_y: int) -> Html:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high] or [low, high]
    span = math.log(high / low)
    places = [(LABEL_WIDTH + math.log(tick / low) / span * _PLOT_WIDTH, f"{tick:.3g}") for tick in ticks]
    return _draw_ticks(places, top, axis_y, "ms, logarithmic; height of the bars: square root of the count")


def _draw_margin_axis(reach: float, top: int, axis_y: int) -> Html:
    ticks = [tick for tick in range(-4, 5) if abs(tick) <= reach]
    places = [(_place_margin(tick, reach), f"{tick:+d}" if tick else "0") for tick in ticks]
    limit = _place_margin(-1, reach)
    line = element("line", x1=_at(limit), x2=_at(limit), y1=top, y2=axis_y, class_="limit")
    caption = f"units of the margin; left of -1: not non-inferior; beyond ±{reach:.3g}: drawn at the edge"
    axis = _draw_ticks(places, top, axis_y, caption)
    return element("g", axis, line)


def _draw_ticks(places: Sequence[tuple[float, str]], top: int, axis_y: int, caption: str) -> Html:
    parts: list[Html] = []
    for x, text in places:
        parts.append(element("line", x1=_at(x), x2=_at(x), y1=top, y2=axis_y, class_="grid"))
        parts.append(element("text", text, x=_at(x), y=axis_y + 15, class_="tick", text_anchor="middle"))
    middle = LABEL_WIDTH + _PLOT_WIDTH / 2
    parts.append(element("text", caption, x=_at(middle), y=axis_y + 33, class_="tick", text_anchor="middle"))
    return element("g", *parts)


def _draw_interval(label: str, difference: Mapping[str, Any], margin: float, reach: float, y: int) -> Html:
    def place(value: float | None, otherwise: float) -> float:
        return _place_margin(otherwise if value is None else value / margin, reach)

    low, high = place(difference["interval_low"], -reach), place(difference["interval_high"], reach)
    bound, delta = place(difference["lower"], -reach), place(difference["delta"], 0.0)
    bound_text = "none" if difference["lower"] is None else f"{difference['lower']:+.5f}"
    title = element(
        "title", f"{label}: {difference['delta']:+.5f}, lower bound {bound_text}, margin {margin}"
    )
    return element(
        "g",
        title,
        _draw_label(label, y + 4),
        element("line", x1=_at(low), x2=_at(high), y1=y, y2=y, class_="interval"),
        element("line", x1=_at(bound), x2=_at(bound), y1=y - 6, y2=y + 6, class_="interval"),
        element("circle", cx=_at(delta), cy=y, r=4, class_="series-0"),
    )


def _draw_legend(names: Sequence[str]) -> Html:
    parts: list[Html] = []
    for index, name in enumerate(names):
        x = LABEL_WIDTH + index * 108
        parts.append(element("rect", x=x, y=6, width=12, height=12, class_=f"series-{index % 5}"))
        parts.append(element("text", name, x=x + 17, y=16, class_="tick"))
    return element("g", *parts)


def _read_stage_medians(result: Mapping[str, Any]) -> dict[str, float]:
    medians = {stage: summary["p50"] for stage, summary in result["stage_percentiles_ms"].items()}
    return {stage: value for stage, value in medians.items() if value is not None}


def _place_margin(value: float, reach: float) -> float:
    clipped = max(-reach, min(reach, value))
    return LABEL_WIDTH + (clipped + reach) / (2 * reach) * _PLOT_WIDTH


def _draw_label(text: str, y: float) -> Html:
    shown = text if len(text) <= 27 else text[:26] + "…"
    return element("text", shown, x=LABEL_WIDTH - 10, y=_at(y), class_="label", text_anchor="end")


def _at(value: float) -> str:
    return f"{value:.1f}"


def _build_svg(height: int, description: str, parts: Sequence[Html]) -> Html:
    drawing = element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=escape(description),
    )
    return element("div", drawing, class_="scroll chart", tabindex="0", role="region", aria_label="chart")
