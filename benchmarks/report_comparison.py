"""A comparison as a page: what got worse, side by side, and what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd import __version__
from edgekd.benchmarks.charts import draw_tradeoff
from edgekd.benchmarks.html import element
from edgekd.benchmarks.report_page import build_section, show_table, write_page
from edgekd.tables import Table


def write_comparison_page(out: Path, comparison: Mapping[str, Any], shown: Sequence[Table]) -> Path:
    """Write a comparison as a page of the same kind and return its path.

    Args:
        out: the folder.
        comparison: ``Comparison.to_dict()``.
        shown: its tables.

    Raises:
        MachineError: the disk is full.
    """
    worse = [
        element("li", f"{row['build']} {row['quantity']} in {report}")
        for row in comparison["rows"]
        for report, verdict in zip(comparison["reports"], row["verdicts"], strict=True)
        if verdict == "worse"
    ]
    headline = f"{len(worse)} worse than the baseline" if worse else "Nothing is worse than the baseline"
    notes = [element("li", text) for text in comparison["warnings"]]
    limits = comparison["limits"]
    rule = (
        f"Accepted: a loss of {limits['max_drop']:g} in Dice, mIoU and kappa, a fifth of it in Acc, and a "
        f"slowdown of {limits['max_slowdown']:.0%} of a median, twice that of a p99."
    )
    verdict = element(
        "section",
        element("h2", headline),
        element("ul", *worse, *notes) if worse or notes else None,
        element("p", rule, class_="note"),
        id="verdict",
        class_=f"verdict {'bad' if worse else 'good'}",
    )
    sections = {"Verdict": verdict}
    if comparison["points"]:
        chart = draw_tradeoff(comparison["points"])
        sections["Accuracy against latency"] = build_section("Accuracy against latency", chart)
    for name, table in zip(("Side by side", "Change control"), shown, strict=True):
        sections[name] = build_section(name, show_table(table, marked=True))
    lead = f"Baseline: {comparison['reports'][0]} · EdgeKD {__version__}"
    return write_page(out, "Comparison of " + " and ".join(comparison["reports"]), lead, sections)
