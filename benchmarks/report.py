"""Results in, one self-contained HTML page out: no network, no script, light and dark, screen and phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd import __version__
from edgekd.benchmarks import tables
from edgekd.benchmarks.charts import draw_differences, draw_stages, draw_tradeoff
from edgekd.benchmarks.charts_latency import draw_distributions, draw_paces, draw_tails
from edgekd.benchmarks.html import Html, build_table, element
from edgekd.benchmarks.latency_tables import (
    build_energy_table,
    build_latency_table,
    build_paced_table,
    build_stage_table,
    build_throughput_table,
    describe_missing_energy,
)
from edgekd.benchmarks.overlays import Color, Overlay
from edgekd.benchmarks.report_cells import build_cells, list_tradeoff
from edgekd.benchmarks.report_gallery import build_gallery
from edgekd.benchmarks.report_page import build_section, show_table, write_page
from edgekd.benchmarks.report_verdict import choose_mood, describe_gate, describe_speed


def write_report(
    out: Path,
    *,
    title: str,
    models: Sequence[Mapping[str, Any]] | None = None,
    parity: Mapping[str, Any] | None = None,
    gate_note: str | None = None,
    latency: Mapping[str, Any] | None = None,
    overlays: Sequence[Overlay] | None = None,
    legend: Sequence[tuple[str, Color]] = (),
    environment: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` into a folder and return its path; a part that is None is left out.

    Args:
        out: the folder, made if missing.
        title: of the page.
        models: rows as ``tables.build_models_table`` takes them.
        parity: ``ParityReport.to_dict()``.
        gate_note: what the gate was, or why there is none.
        latency: ``BenchmarkReport.to_dict()``.
        overlays: pictures.
        legend: name and colour of what the pictures show, from ``overlays.list_legend``.
        environment: ``describe_environment()``.
        commands: lines that repeat the measurement.

    Raises:
        MachineError: the disk is full.
    """
    sections = {
        "Verdict": _build_verdict(parity, latency, gate_note),
        "Builds": build_cells(parity, latency),
        "Networks": _build_models(models) if models else None,
        "Accuracy against latency": _build_tradeoff(parity, latency),
        "Latency": _build_latency(latency) if latency is not None else None,
        "Parity": _build_parity(parity) if parity is not None else None,
        "Masks": build_gallery(overlays, legend) if overlays else None,
        "Machine": _build_environment(environment) if environment is not None else None,
        "How to repeat": _build_commands(commands) if commands else None,
    }
    lead = _describe_source(parity, latency, environment)
    return write_page(out, title, lead, {name: one for name, one in sections.items() if one is not None})


def _build_verdict(
    parity: Mapping[str, Any] | None, latency: Mapping[str, Any] | None, gate_note: str | None
) -> Html:
    mood, headline, details = describe_gate(parity, gate_note)
    if (latency or {}).get("interrupted"):
        details.append("Interrupted: this page shows what was measured until then.")
    details += describe_speed(latency, parity)
    if any(one["warnings"] for one in (latency or {}).get("results", ())):
        details.append("There are reasons to doubt the latencies: they stand beside them.")
    items = [element("li", text) for text in details]
    return element(
        "section",
        element("h2", headline),
        element("ul", *items) if items else None,
        id="verdict",
        class_=f"verdict {mood}",
    )


def _describe_source(*parts: Mapping[str, Any] | None) -> str:
    facts = {key: value for part in parts if part for key, value in part.items()}
    shown = [str(facts[key]) for key in ("bundle", "data") if facts.get(key)]
    shown += [str(facts["measured_at"])] if "measured_at" in facts else []
    return " · ".join([*shown, f"EdgeKD {__version__}"])


def _build_models(models: Sequence[Mapping[str, Any]]) -> Html:
    return build_section("Networks", show_table(tables.build_models_table(models)))


def _build_tradeoff(parity: Mapping[str, Any] | None, latency: Mapping[str, Any] | None) -> Html | None:
    points = list_tradeoff(parity, latency)
    if not points:
        return None
    note = (
        "Dice on the data of the gate over the single-stream median; up and to the left is better. The "
        "upright line is the 95 % interval of the difference to the student."
    )
    return build_section("Accuracy against latency", draw_tradeoff(points), element("p", note, class_="note"))


def _build_parity(parity: Mapping[str, Any]) -> Html:
    table = tables.build_parity_table(parity)
    moods = {result["candidate"]: choose_mood(result) for result in parity["results"]}
    rows = [(row[0], element("span", row[1], class_=f"tag {moods[row[0]]}"), *row[2:]) for row in table.rows]
    parts: list[Html] = [build_table(table.title, table.columns, rows)]
    on_data = [result for result in parity["results"] if result["kind"] == "data"]
    if on_data:
        parts.append(
            element(
                "p",
                "Lower bound: one-sided, 95 %, by a paired bootstrap over groups; it must lie above minus "
                "the margin. Interval: two-sided, 95 %. In the chart the line is the interval, its upright "
                "stroke the lower bound, the dot the difference.",
                class_="note",
            )
        )
        parts.append(draw_differences(on_data))
        parts.append(show_table(tables.build_difference_table(parity)))
        details = (tables.build_class_table(parity), tables.build_worst_table(parity))
        parts += [show_table(table) for table in details if table.rows]
    parts += [show_table(tables.build_skipped_table(parity))] if parity["skipped"] else []
    return build_section("Parity", *parts)


def _build_latency(latency: Mapping[str, Any]) -> Html:
    results = latency["results"]
    note = (
        f"Frames: {latency['frames']}. Loading is process-warm. Percentiles are samples, never interpolated; "
        "p99 needs at least 100 of them, p99.9 a thousand. Height of the bars: square root of the count."
    )
    parts = [
        show_table(build_latency_table(latency)),
        element("p", note, class_="note"),
        _list_doubts(results),
        element("h3", "Distribution"),
        draw_distributions(results),
        element("h3", "Tail"),
        draw_tails(results),
    ]
    paced = build_paced_table(latency)
    if paced.rows:
        text = (
            "Frames arrive on a schedule laid down before the start, whether the engine is ready or not; "
            "latency counts from the arrival. Dots: masks, large where later than the deadline; crosses: "
            "dropped frames. The bound takes misses as independent; the longest run shows where they are "
            "not. Mask age: how old the shown mask is, over time."
        )
        parts += [element("h3", "Frames in time"), draw_paces(results), show_table(paced)]
        parts.append(element("p", text, class_="note"))
    stages = build_stage_table(latency)
    if stages.rows:
        parts += [element("h3", "Stages"), draw_stages(results), show_table(stages)]
    others = (build_throughput_table(latency), build_energy_table(latency))
    parts += [show_table(table) for table in others if table.rows]
    missing = describe_missing_energy(latency)
    parts += [element("p", f"{missing[0].upper()}{missing[1:]}.", class_="note")] if missing else []
    parts += [show_table(tables.build_skipped_table(latency))] if latency["skipped"] else []
    return build_section("Latency", *parts)


def _list_doubts(results: Sequence[Mapping[str, Any]]) -> Html | None:
    doubts = [f"{one['name']}: {text}" for one in results for text in one["warnings"]]
    if not doubts:
        return None
    items = [element("li", text) for text in doubts]
    return element(
        "div", element("h3", "Reasons to doubt these numbers"), element("ul", *items), class_="doubts"
    )


def _build_environment(environment: Mapping[str, Any]) -> Html:
    return build_section("Machine", show_table(tables.build_environment_table(environment)))


def _build_commands(commands: Sequence[str]) -> Html:
    return build_section("How to repeat", element("pre", element("code", "\n".join(commands)), tabindex="0"))
