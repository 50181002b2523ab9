"""Results in, one self-contained HTML page out: no network, no script, light and dark, screen and phone."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Literal

from edgekd import __version__
from edgekd.atomic import write_text_atomic
from edgekd.benchmarks import tables
from edgekd.benchmarks.charts import draw_differences, draw_distributions, draw_stages
from edgekd.benchmarks.html import Html, build_table, element, escape, join, void
from edgekd.benchmarks.overlays import Color, Overlay
from edgekd.tables import Table

REPORT_FILE = "report.html"
DISCLAIMER = (
    "EdgeKD is not a medical device. It is research software: nothing on this page is meant for diagnosis "
    "or for treating a patient, and no authority has examined it."
)
Mood = Literal["good", "bad", "open"]


def write_report(
    out: Path,
    *,
    title: str,
    models: Sequence[Mapping[str, Any]] | None = None,
    parity: Mapping[str, Any] | None = None,
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
        latency: ``BenchmarkReport.to_dict()``.
        overlays: pictures.
        legend: name and colour of what the pictures show, from ``overlays.list_legend``.
        environment: ``describe_environment()``.
        commands: lines that repeat the measurement.

    Raises:
        MachineError: the disk is full.
    """
    sections = [
        _build_verdict(parity, latency),
        _build_models(models) if models else None,
        _build_parity(parity) if parity is not None else None,
        _build_latency(latency) if latency is not None else None,
        _build_overlays(overlays, legend) if overlays else None,
        _build_environment(environment) if environment is not None else None,
        _build_commands(commands) if commands else None,
    ]
    here = Path(__file__).parent
    page = Template((here / REPORT_FILE).read_text()).substitute(
        title=escape(title),
        lead=escape(_describe_source(parity, latency, environment)),
        style=(here / "report.css").read_text(),
        sections=join((section for section in sections if section is not None), "\n"),
        disclaimer=escape(DISCLAIMER),
    )
    path = out / REPORT_FILE
    write_text_atomic(path, page)
    return path


def _build_verdict(parity: Mapping[str, Any] | None, latency: Mapping[str, Any] | None) -> Html:
    mood, headline, details = _judge_parity(parity)
    if any(one["warnings"] for one in (latency or {}).get("results", ())):
        details.append("There are reasons to doubt the latencies: see there.")
    items = [element("li", text) for text in details]
    return element(
        "section",
        element("h2", headline),
        element("ul", *items) if items else None,
        class_=f"verdict {mood}",
    )


def _judge_parity(parity: Mapping[str, Any] | None) -> tuple[Mood, str, list[str]]:
    if parity is None:
        return (
            "open",
            "Parity was not measured",
            ["Nothing here shows that the engines do what the student did."],
        )
    results = parity["results"]
    on_data = any(result["kind"] == "data" for result in results)
    reasons = [f"{result['candidate']}: {reason}" for result in results for reason in result["reasons"]]
    reasons += [f"{one['name']} was not run: {one['reason']}" for one in parity["skipped"]]
    if parity["passed"]:
        count = f"{len(results)} build{'s' if len(results) != 1 else ''}"
        headline = (
            f"Parity passed: {count} non-inferior to the student"
            if on_data
            else (f"Consistent: {count} in agreement with the student on the golden frames")
        )
        return "good", headline, reasons
    conclusions = {result["conclusion"] for result in results if not result["passed"]}
    if conclusions == {"inconclusive"}:
        return "open", "Parity is undecided, which counts as failed", reasons
    return "bad", "Parity failed", reasons or ["At least one build does not do what the student did."]


def _describe_source(*parts: Mapping[str, Any] | None) -> str:
    facts = {key: value for part in parts if part for key, value in part.items()}
    shown = [str(facts[key]) for key in ("bundle", "data") if facts.get(key)]
    shown += [str(facts["measured_at"])] if "measured_at" in facts else []
    return " · ".join([*shown, f"EdgeKD {__version__}"])


def _build_models(models: Sequence[Mapping[str, Any]]) -> Html:
    return element("section", element("h2", "Networks"), _show(tables.build_models_table(models)))


def _build_parity(parity: Mapping[str, Any]) -> Html:
    table = tables.build_parity_table(parity)
    moods = {result["candidate"]: _choose_mood(result) for result in parity["results"]}
    rows = [(row[0], element("span", row[1], class_=f"tag {moods[row[0]]}"), *row[2:]) for row in table.rows]
    parts: list[Html] = [element("h2", "Parity"), build_table(table.title, table.columns, rows)]
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
        parts.append(_show(tables.build_difference_table(parity)))
        worst = tables.build_worst_table(parity)
        parts += [_show(worst)] if worst.rows else []
    parts += [_show(tables.build_skipped_table(parity))] if parity["skipped"] else []
    return element("section", *parts)


def _choose_mood(result: Mapping[str, Any]) -> Mood:
    if result["passed"]:
        return "good"
    return "open" if result["conclusion"] == "inconclusive" else "bad"


def _build_latency(latency: Mapping[str, Any]) -> Html:
    results = latency["results"]
    parts = [
        element("h2", "Latency"),
        _show(tables.build_latency_table(latency)),
        element(
            "p",
            f"Frames: {latency['frames']}. Loading is process-warm. Percentiles are samples, never "
            "interpolated; p99 needs at least 100 of them.",
            class_="note",
        ),
        _list_doubts(results),
        element("h3", "Distribution"),
        draw_distributions(results),
    ]
    stages = tables.build_stage_table(latency)
    if stages.rows:
        parts += [element("h3", "Stages"), draw_stages(results), _show(stages)]
    parts += [_show(tables.build_skipped_table(latency))] if latency["skipped"] else []
    return element("section", *(part for part in parts if part is not None))


def _list_doubts(results: Sequence[Mapping[str, Any]]) -> Html | None:
    doubts = [f"{one['name']}: {text}" for one in results for text in one["warnings"]]
    if not doubts:
        return None
    items = [element("li", text) for text in doubts]
    return element(
        "div", element("h3", "Reasons to doubt these numbers"), element("ul", *items), class_="doubts"
    )


def _build_overlays(overlays: Sequence[Overlay], legend: Sequence[tuple[str, Color]]) -> Html:
    key = element(
        "ul",
        *(
            element("li", element("span", style=f"background:rgb{color}", aria_hidden="true"), name)
            for name, color in legend
        ),
        class_="key",
    )
    figures = [element("figure", _embed_png(one), element("figcaption", one.name)) for one in overlays]
    return element(
        "section", element("h2", "Masks"), key if legend else None, element("div", *figures, class_="gallery")
    )


def _embed_png(overlay: Overlay) -> Html:
    data = base64.b64encode(overlay.png).decode()
    return void("img", src=f"data:image/png;base64,{data}", alt=overlay.caption, loading="lazy")


def _build_environment(environment: Mapping[str, Any]) -> Html:
    return element("section", element("h2", "Machine"), _show(tables.build_environment_table(environment)))


def _build_commands(commands: Sequence[str]) -> Html:
    return element(
        "section", element("h2", "How to repeat"), element("pre", element("code", "\n".join(commands)))
    )


def _show(table: Table) -> Html:
    return build_table(table.title, table.columns, table.rows)
