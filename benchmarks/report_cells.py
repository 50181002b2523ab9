"""Every build at a glance: what the gate said, how fast it is, and what was only built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.benchmarks.html import Html, element
from edgekd.benchmarks.report_verdict import choose_mood
from edgekd.tables import NOT_MEASURED, format_agreement, format_ms, format_score

Results = Mapping[str, Mapping[str, Any]]


def build_cells(parity: Mapping[str, Any] | None, latency: Mapping[str, Any] | None) -> Html | None:
    """Return a card a build; one that was not run says why and is nowhere shown as passed."""
    judged = {one["candidate"]: one for one in (parity or {}).get("results", ())}
    timed = {one["name"]: one for one in (latency or {}).get("results", ())}
    skipped = {one["name"]: one for part in (parity, latency) for one in (part or {}).get("skipped", ())}
    names = list(dict.fromkeys([*timed, *judged, *skipped]))
    if not names:
        return None
    cards = [_build_card(name, judged, timed, skipped.get(name)) for name in names]
    return element("section", element("h2", "Builds"), element("ul", *cards, class_="cells"), id="builds")


def list_tradeoff(
    parity: Mapping[str, Any] | None, latency: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return a point for each build with both a Dice on data and a median latency."""
    medians = {one["name"]: one["percentiles_ms"]["p50"] for one in (latency or {}).get("results", ())}
    facts = {one["name"]: one.get("facts", {}) for one in (latency or {}).get("results", ())}
    points: list[dict[str, Any]] = []
    for one in (parity or {}).get("results", ()):
        name, scores = one["candidate"], one.get("candidate_scores") or {}
        if medians.get(name) is None or scores.get("dice") is None:
            continue
        reference = scores["dice"] - (one["differences"]["dice"]["delta"] or 0.0)
        ends = (one["differences"]["dice"].get(key) for key in ("interval_low", "interval_high"))
        low, high = (None if end is None else reference + end for end in ends)
        points.append(
            {
                "name": name,
                "p50_ms": medians[name],
                "dice": scores["dice"],
                "low": low,
                "high": high,
                "series": str(facts[name].get("precision_effective", "precision unknown")),
            }
        )
    return points


def _build_card(name: str, judged: Results, timed: Results, skipped: Mapping[str, Any] | None) -> Html:
    verdict, latency = judged.get(name), timed.get(name)
    if verdict is not None:
        tag = element("span", verdict["conclusion"], class_=f"tag {choose_mood(verdict)}")
    elif latency is not None:
        tag = element("span", "not judged", class_="tag rest")
    else:
        tag = element("span", (skipped or {}).get("status", "not run"), class_="tag rest")
    parts: list[Html] = [element("h3", name), tag]
    if latency is not None:
        median = latency["percentiles_ms"]["p50"]
        shown = element("span", NOT_MEASURED) if median is None else format_ms(median)
        parts.append(element("span", shown, " ", element("small", "ms p50, one frame"), class_="figure"))
    elif skipped is not None:
        parts.append(element("p", skipped["reason"], class_="note"))
    facts = [*_list_scores(verdict), *_list_latencies(latency)]
    if facts:
        terms = [part for key, value in facts for part in (element("dt", key), element("dd", value))]
        parts.append(element("dl", *terms))
    return element("li", *parts)


def _list_scores(verdict: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if verdict is None:
        return []
    scores = verdict.get("candidate_scores") or {}
    shown = [("Dice", format_score(scores["dice"]))] if "dice" in scores else []
    return [*shown, ("pixels equal", format_agreement(verdict["pixel_agreement"]))]


def _list_latencies(latency: Mapping[str, Any] | None) -> Sequence[tuple[str, str]]:
    if latency is None:
        return []
    p99 = latency["percentiles_ms"]["p99"]
    shown = [("p99", NOT_MEASURED if p99 is None else f"{format_ms(p99)} ms")]
    for one in latency.get("scenarios", ()):
        if one["scenario"] == "paced":
            shown.append((f"late at {one['fps']:g} fps", f"{one['missed']} of {one['num_frames']}"))
        elif one["frames_per_second"] is not None:
            shown.append((f"{one['scenario']}", f"{one['frames_per_second']:.0f} frames/s"))
    energy = latency.get("energy", NOT_MEASURED)
    value = f"{1e3 * energy['joules_a_frame']:.1f} mJ" if isinstance(energy, Mapping) else NOT_MEASURED
    return [*shown, ("energy a frame", value)]
