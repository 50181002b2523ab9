"""Results as tables, for the terminal, Markdown and the report alike; built from their JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.class_scores import list_foreground
from edgekd.metrics import METRICS
from edgekd.tables import (
    NOT_MEASURED,
    Table,
    format_agreement,
    format_bytes,
    format_count,
    format_floor,
    format_score,
)

METRIC_NAMES = {"acc": "Acc", "miou": "mIoU", "dice": "Dice", "kappa": "kappa"}


def build_models_table(models: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of networks: scores in 0..1, parameters, MACs and, where any has one, file size.

    Args:
        models: a row each with ``name`` and any of acc, miou, dice, kappa, parameters, macs, size_bytes.
    """
    has_size = any(row.get("size_bytes") is not None for row in models)
    columns = ("Network", *METRIC_NAMES.values(), "Parameters", "MACs", *(("Size",) if has_size else ()))
    rows = tuple(
        (
            str(row["name"]),
            *(format_score(row.get(name)) for name in METRICS),
            format_count(row.get("parameters")),
            format_count(row.get("macs")),
            *((format_bytes(row.get("size_bytes")),) if has_size else ()),
        )
        for row in models
    )
    return Table("Scores from 0 to 1, kappa from -1", columns, rows)


def build_parity_table(report: Mapping[str, Any]) -> Table:
    """Return one row a build: verdict, what was compared, part of equal pixels."""
    results = report["results"]
    if any(result["kind"] == "data" for result in results):
        columns = (
            "Build",
            "Verdict",
            "Images",
            "Groups",
            "Pixels equal",
            "Images differing",
            "ΔDice at frame size",
        )
        rows = tuple(
            (
                one["candidate"],
                one["conclusion"],
                str(one["num_images"]),
                str(one["num_groups"]),
                format_agreement(one["pixel_agreement"]),
                str(one["num_different"]),
                _format_frame_delta(one),
            )
            for one in results
        )
        return Table(f"Parity with {report['reference']}", columns, rows)
    columns = ("Build", "Verdict", "Frames", "Pixels equal", "Floor")
    rows = tuple(
        (
            one["candidate"],
            one["conclusion"],
            str(one["num_images"]),
            format_agreement(one["pixel_agreement"]),
            format_floor(one["min_agreement"]),
        )
        for one in results
    )
    return Table(f"Agreement with {report['reference']}", columns, rows)


def build_difference_table(report: Mapping[str, Any]) -> Table:
    """Return one row a build and score: both sides, the difference with its bounds, and the margin."""
    rows = tuple(
        (
            result["candidate"],
            METRIC_NAMES[name],
            format_score(difference["reference"]),
            format_score(difference["candidate"]),
            _format_delta(difference["delta"]),
            _format_delta(difference["lower"]),
            f"{_format_delta(difference['interval_low'])} to {_format_delta(difference['interval_high'])}",
            f"{result['margins'][name]:g}" if name in result["margins"] else "–",
            result["verdict"]["metrics"].get(name, "–"),
        )
        for result in report["results"]
        for name, difference in result.get("differences", {}).items()
    )
    columns = (
        "Build",
        "Score",
        "Student",
        "Engine",
        "Difference",
        "Lower bound",
        "Interval",
        "Margin",
        "Verdict",
    )
    return Table("Differences at the network's size, engine minus student", columns, rows)


def build_class_table(report: Mapping[str, Any]) -> Table:
    """Return one row a build and foreground class where there are several: both sides' Dice and IoU."""
    rows = tuple(
        (
            result["candidate"],
            student["name"],
            str(student["num_images"]),
            *(_format_class_score(side[name]) for name in ("dice", "iou") for side in (student, engine)),
        )
        for result in report["results"]
        for student, engine in zip(
            list_foreground(result.get("reference_classes", ())),
            list_foreground(result.get("candidate_classes", ())),
            strict=True,
        )
    )
    columns = (
        "Build",
        "Class",
        "Images with it",
        "Dice, student",
        "Dice, engine",
        "IoU, student",
        "IoU, engine",
    )
    return Table("Classes; these decide nothing", columns, rows)


def build_cell_table(report: Mapping[str, Any]) -> Table:
    """Return every build of the bundle with what can be said of it; what did not run here has no verdict."""
    rows = tuple((cell["name"], cell["status"]) for cell in report["cells"])
    return Table("Builds", ("Build", "Status"), rows)


def build_change_table(report: Mapping[str, Any]) -> Table:
    """Return what changed between the masks of student and engine, one row a build compared on data."""
    rows = tuple(
        (
            result["candidate"],
            format_count(changes["flips"]),
            _format_optional(changes["sure_flips"], "d"),
            _format_optional(changes["largest_flip_margin"], ".1e"),
            _format_optional(changes["median_hd95_pixels"], ".1f"),
            _format_optional(changes["max_hd95_pixels"], ".1f"),
            _format_optional(changes["area_change"], "+.2%"),
            _format_optional(changes["max_area_change"], "+.1%"),
            str(changes["vanished"]),
            str(changes["appeared"]),
        )
        for result in report["results"]
        if (changes := result.get("changes")) is not None
    )
    columns = (
        "Build",
        "Pixels flipped",
        "where the student is sure",
        "Largest logit margin",
        "HD95 median, px",
        "HD95 max, px",
        "Area, all",
        "Area, a case",
        "Regions vanished",
        "appeared",
    )
    return Table("Masks, engine against student; these decide nothing", columns, rows)


def build_worst_table(report: Mapping[str, Any]) -> Table:
    """Return the cases on which each build differs most from the student."""
    rows = tuple(
        (
            result["candidate"],
            case["name"],
            format_agreement(case["agreement"]),
            *(_format_case_dice(case[side]) for side in ("dice_reference", "dice_candidate")),
            _format_optional(case["change"]["hd95_pixels"], ".1f"),
            f"{case['change']['vanished']} / {case['change']['appeared']}",
        )
        for result in report["results"]
        for case in result.get("worst_cases", ())
    )
    columns = ("Build", "Case", "Pixels equal", "Dice, student", "Dice, build", "HD95, px", "Regions −/+")
    return Table("Cases that differ most; Dice at the network's size", columns, rows)


def build_skipped_table(report: Mapping[str, Any]) -> Table:
    """Return the builds that a report of the gate did not judge or one of latencies did not time, and why."""
    done = "judged" if "criteria" in report else "timed"
    rows = tuple((one["name"], one["reason"]) for one in report["skipped"])
    return Table(f"Builds that were not {done}", ("Build", "Reason"), rows)


def build_environment_table(environment: Mapping[str, Any]) -> Table:
    """Return the machine as rows of name and value; nested facts are joined in one cell."""
    rows = tuple((name.replace("_", " "), _join_facts(value)) for name, value in environment.items())
    return Table("Machine", ("Fact", "Value"), rows)


def _format_class_score(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _format_case_dice(value: float | None) -> str:
    return "truth is empty" if value is None else f"{value:.4f}"


def _format_optional(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _format_delta(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.5f}"


def _format_frame_delta(result: Mapping[str, Any]) -> str:
    reference, candidate = result["reference_frame_scores"], result["candidate_frame_scores"]
    if reference is None or candidate is None or None in (reference["dice"], candidate["dice"]):
        return NOT_MEASURED
    return f"{candidate['dice'] - reference['dice']:+.5f}"


def _join_facts(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key.replace('_', ' ')} {_join_facts(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " to ".join(str(item) for item in value)
    return str(value)
