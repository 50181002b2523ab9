"""A data set's check as tables for people: its facts, its splits, and its findings by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.data.inspection import Finding
from edgekd.tables import Table

SHOWN_CASES = 5
SHOWN_CLASSES = 8
NONE = "–"
_LAYOUTS = {"folders": "images/ and masks/", "busi": "class folders with NAME_mask", "csv": "CSV table"}
_DEPTHS = {"uint8": "8 bit", "uint16": "16 bit"}


def build_facts_table(summary: Mapping[str, Any]) -> Table:
    """Return what a data set holds, one fact a row; ``summary`` as in `CheckReport`."""
    rows = (
        ("folder", summary["root"]),
        ("layout", _LAYOUTS[summary["layout"]]),
        ("cases", f"{summary['cases']}, of which {summary['usable_cases']} can be used"),
        ("groups", _format_groups(summary)),
        ("image sizes", _format_sizes(summary["sizes"])),
        ("pixels", _format_pixels(summary)),
        ("classes", f"{summary['num_classes']}, background included"),
        ("splits", _format_division(summary["division"])),
    )
    return Table("Data set", ("Fact", "Value"), rows)


def build_splits_table(summary: Mapping[str, Any]) -> Table:
    """Return cases, groups, empty masks and the pixels of each foreground class, one split a row.

    Of very many classes the first ``SHOWN_CLASSES`` are shown; ``summary`` holds all.
    """
    shown = range(1, min(summary["num_classes"], SHOWN_CLASSES + 1))
    columns = ("Split", "Cases", "Groups", "Empty masks", *(f"Class {index} %" for index in shown))
    rows = tuple(
        (
            name,
            *(str(part[key]) for key in ("cases", "groups")),
            # No share of the background: there was no mask to look at.
            NONE if part["class_pixel_shares"][0] is None else str(part["empty_masks"]),
            *(_format_share(part["class_pixel_shares"][index]) for index in shown),
        )
        for name, part in (*summary["splits"].items(), ("all", summary))
    )
    rest = summary["num_classes"] - 1 - len(shown)
    note = f" (classes up to {shown[-1]}; {rest} more with --json)" if rest else ""
    return Table(f"Splits, with the pixels of each class{note}", columns, rows)


def build_findings_table(findings: Sequence[Finding]) -> Table:
    """Return the findings in their order, those of one severity and kind in one row.

    What concerns the whole set keeps a row of its own.
    """
    kinds: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        own = (one.detail,) if one.case is None else ()
        kinds.setdefault((one.severity, one.kind, *own), []).append(one)
    rows = tuple(
        (same[0].severity, same[0].kind, *_format_cases(same), same[0].detail) for same in kinds.values()
    )
    return Table("Findings", ("Severity", "Kind", "Count", "Cases", "Detail of the first"), rows)


def format_verdict(findings: Sequence[Finding]) -> str:
    """Return how many faults and warnings there are."""
    faults = sum(one.severity == "fault" for one in findings)
    return f"{_count(faults, 'fault')}, {_count(len(findings) - faults, 'warning')}"


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _format_cases(findings: Sequence[Finding]) -> tuple[str, str]:
    names = [one.case for one in findings if one.case is not None]
    if not names:
        return NONE, "the set"
    rest = len(names) - SHOWN_CASES
    return str(len(names)), ", ".join(names[:SHOWN_CASES]) + (f" and {rest} more" if rest > 0 else "")


def _format_groups(summary: Mapping[str, Any]) -> str:
    if summary["cases_with_group"] == 0:
        return "none named: each case counts as its own"
    return f"{summary['groups']}; named for {summary['cases_with_group']} of the cases"


def _format_sizes(sizes: Mapping[str, int] | None) -> str:
    if sizes is None:
        return NONE
    smallest = f"{sizes['smallest_height']}×{sizes['smallest_width']}"
    largest = f"{sizes['largest_height']}×{sizes['largest_width']}"
    span = smallest if smallest == largest else f"{smallest} to {largest}"
    return f"{span} (height × width)"


def _format_pixels(summary: Mapping[str, Any]) -> str:
    depths = ", ".join(f"{_DEPTHS[dtype]} in {count}" for dtype, count in summary["dtypes"].items())
    return f"{depths} images; colour in {summary['color_images']}" if depths else NONE


def _format_division(division: Mapping[str, Any]) -> str:
    if division["fractions"] is None:
        return f"by the {division['by']}"
    fractions = " / ".join(f"{value:g}" for value in division["fractions"])
    return f"by {division['by']}, fractions {fractions}, salt {division['salt']!r}"


def _format_share(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.2f}"
