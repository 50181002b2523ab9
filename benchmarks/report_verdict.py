"""The verdict of the gate in one line, for the page and for the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edgekd.bootstrap import NUM_UNSEEN
from edgekd.tables import format_ms

Mood = Literal["good", "bad", "open"]


def describe_gate(parity: Mapping[str, Any] | None, note: str | None = None) -> tuple[Mood, str, list[str]]:
    """Return mood, headline and reasons of a gate.

    Args:
        parity: ``ParityReport.to_dict()``, None where it was not run.
        note: what the gate was, or why there is none.
    """
    if parity is None:
        reason = "Nothing here shows that the engines do what the student did."
        return "open", "Parity was not measured", [*([_start_sentence(note)] if note else []), reason]
    results = parity["results"]
    on_data = any(result["kind"] == "data" for result in results)
    reasons = [] if on_data or not note else [_start_sentence(note)]
    reasons += [f"{result['candidate']}: {reason}" for result in results for reason in result["reasons"]]
    # What a choice left out is listed elsewhere.
    left: dict[str, list[str]] = {}
    for one in parity["skipped"]:
        if one.get("is_obstacle", True):
            left.setdefault(one["reason"], []).append(one["name"])
    reasons += [
        f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} not run: {reason}"
        for reason, names in left.items()
    ]
    reasons += describe_doubts(parity)
    if parity["passed"]:
        reasons += describe_blind_spot(parity)
        count = f"{len(results)} build{'s' if len(results) != 1 else ''}"
        headline = (
            f"Parity passed: {count} non-inferior to the student"
            if on_data
            else f"Consistent: {count} in agreement with the student on the golden frames"
        )
        return "good", headline, reasons
    conclusions = {result["conclusion"] for result in results if not result["passed"]}
    if conclusions == {"inconclusive"}:
        return "open", "Parity is undecided, which counts as failed", reasons
    return "bad", "Parity failed", reasons or ["At least one build does not do what the student did."]


def describe_doubts(parity: Mapping[str, Any]) -> list[str]:
    """Return what makes the cases or the student say less than a verdict on them seems to, in sentences."""
    return [*describe_learned(parity), *describe_lost_classes(parity)]


def describe_learned(parity: Mapping[str, Any]) -> list[str]:
    """Return a sentence where the student learned from cases of the gate, as far as that is known."""
    learned = parity.get("cases_learned_from")
    if not learned:
        return []
    count = max(result["num_images"] for result in parity["results"])
    return [f"the student learned from {learned} of these {count} cases: their scores are too good"]


def describe_lost_classes(parity: Mapping[str, Any]) -> list[str]:
    """Return a sentence where the student finds a class so seldom that its loss is within the margin."""
    margin = parity["criteria"]["margins"]["dice"]
    lost: dict[str, float] = {}
    for result in parity["results"]:
        classes = [one for one in result.get("reference_classes", ())[1:] if one["dice"] is not None]
        # All of it lost, the mean over classes falls by its part.
        lost |= {one["name"]: one["dice"] for one in classes if one["dice"] < margin * len(classes)}
    if not lost:
        return []
    named = ", ".join(f"{name} (Dice {dice:.4f})" for name, dice in lost.items())
    return [f"the student itself hardly finds {named}: that an engine never does may go unseen"]


def describe_blind_spot(parity: Mapping[str, Any]) -> list[str]:
    """Return a sentence on how rare a fault must be for these cases to miss it; none for golden frames.

    Fewer groups than the gate asks for pass with identical masks alone, and say nothing of rare faults.

    Hanley & Lippman-Hand 1983: what 3 in n meet is absent from n cases with a chance of 5 %.
    """
    groups = [result["num_groups"] for result in parity["results"] if result["kind"] == "data"]
    if not groups:
        return []
    fewest, asked = min(groups), parity["criteria"]["min_groups"]
    if fewest < asked:
        counted = f"{fewest} group is" if fewest == 1 else f"{fewest} groups are"
        return [f"{counted} too few to see rare faults, the gate asks for {asked}"]
    part = NUM_UNSEEN / fewest
    return [f"with {fewest} groups, a fault that fewer than {part:.1%} of the patients meet can go unseen"]


def describe_speed(latency: Mapping[str, Any] | None, parity: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence on the fastest build that passed, and one on its frames in time at each pace.

    Where none passed, that is said with the speed of the fastest that was judged, or else of any.
    """
    timed = [one for one in (latency or {}).get("results", ()) if one["percentiles_ms"]["p50"] is not None]
    if not timed:
        return []
    verdicts = {one["candidate"]: one["passed"] for one in (parity or {}).get("results", ())}
    groups = {
        " that passed the gate": [one for one in timed if verdicts.get(one["name"])],
        ", but none that was timed passed": [one for one in timed if one["name"] in verdicts],
        ", but none that was timed was judged": timed,
    }
    said, among = next((said, among) for said, among in groups.items() if among)
    fastest = min(among, key=lambda one: one["percentiles_ms"]["p50"])
    median = format_ms(fastest["percentiles_ms"]["p50"])
    found = [f"{fastest['name']} is the fastest{said}: half of the frames take at most {median} ms."]
    for one in fastest.get("scenarios", ()):
        if one["scenario"] == "paced" and one["miss_rate_upper"] is not None:
            found.append(
                f"At {one['fps']:g} frames a second it misses {one['missed']} of {one['num_frames']} "
                f"deadlines of {one['deadline_ms']:.3g} ms: "
                f"at most {one['miss_rate_upper']:.1%} with 95 % confidence."
            )
    return found


def choose_mood(result: Mapping[str, Any]) -> Mood:
    """Return how a build's verdict is coloured."""
    if result["passed"]:
        return "good"
    return "open" if result["conclusion"] == "inconclusive" else "bad"


def _start_sentence(text: str) -> str:
    ended = text if text.endswith((".", "!", "?")) else f"{text}."
    return ended[0].upper() + ended[1:]
