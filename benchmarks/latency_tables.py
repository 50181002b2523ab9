"""The latencies of a benchmark as tables, built from its JSON form; older files lack the later parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.benchmarks.quantiles import SUMMARY
from edgekd.tables import NOT_MEASURED, Table, format_count, format_ms


def list_latency_tables(report: Mapping[str, Any]) -> list[Table]:
    """Return the tables that have a row, in the order to be read."""
    builders = (
        build_latency_table,
        build_paced_table,
        build_throughput_table,
        build_stage_table,
        build_energy_table,
    )
    return [table for table in (build(report) for build in builders) if table.rows]


def build_latency_table(report: Mapping[str, Any]) -> Table:
    """Return one row a build: load, first query, and percentiles of the steady state in ms."""
    columns = ("Build", "Load ms", "First ms", *(f"{name} ms" for name in SUMMARY), "Samples")
    rows = tuple(
        (
            result["name"],
            format_ms(result["load_ns"] / 1e6),
            format_ms(result["first_ns"] / 1e6),
            *(format_ms(result["percentiles_ms"].get(name)) for name in SUMMARY),
            format_count(result["num_samples"]),
        )
        for result in report["results"]
    )
    return Table("Latency, one frame a query, end to end", columns, rows)


def build_paced_table(report: Mapping[str, Any]) -> Table:
    """Return one row a build and pace: latency from arrival, misses with their bound, drops, mask age."""
    columns = (
        "Build",
        "fps",
        "p50 ms",
        "p99 ms",
        "max ms",
        "Deadline ms",
        "Missed",
        "Rate up to",
        "Longest run",
        "Dropped",
        "Mask age p50 ms",
        "Mask age p99 ms",
    )
    rows = tuple(
        (
            name,
            f"{one['fps']:g}" + (f" ± {one['jitter']:.0%}" if one["jitter"] else ""),
            *(format_ms(one["percentiles_ms"][key]) for key in ("p50", "p99", "max")),
            f"{one['deadline_ms']:.3g}",
            f"{one['missed']} of {one['num_frames']}",
            _format_rate(one["miss_rate_upper"]),
            str(one["longest_miss_run"]),
            str(one["dropped"]),
            *(format_ms(one["mask_age_ms"][key]) for key in ("p50", "p99")),
        )
        for name, one in list_scenarios(report, "paced")
    )
    return Table("Frames in time with a scanner, latency from arrival", columns, rows)


def build_throughput_table(report: Mapping[str, Any]) -> Table:
    """Return one row a build and scenario of several frames a query."""
    columns = ("Build", "Scenario", "Frames a query", "Frames a second", "p50 ms", "p99 ms", "max ms")
    rows = tuple(
        (
            name,
            one["scenario"],
            str(one["frames_a_query"]),
            NOT_MEASURED if one["frames_per_second"] is None else f"{one['frames_per_second']:.1f}",
            *(format_ms(one["percentiles_ms"][key]) for key in ("p50", "p99", "max")),
        )
        for kind in ("multi-stream", "offline")
        for name, one in list_scenarios(report, kind)
    )
    return Table("Several frames a query", columns, rows)


def build_stage_table(report: Mapping[str, Any]) -> Table:
    """Return one row a build whose stages were measured: p50 of each stage in ms."""
    stages = list(
        dict.fromkeys(name for result in report["results"] for name in result["stage_percentiles_ms"])
    )
    rows = tuple(
        (
            result["name"],
            *(
                format_ms(result["stage_percentiles_ms"][stage]["p50"])
                if stage in result["stage_percentiles_ms"]
                else "–"
                for stage in stages
            ),
        )
        for result in report["results"]
        if result["stage_percentiles_ms"]
    )
    return Table("Stages, p50 in ms, from a loop of their own", ("Build", *stages), rows)


def build_energy_table(report: Mapping[str, Any]) -> Table:
    """Return one row a build: energy of a frame, all of it and the part above idle; none without a meter."""
    columns = ("Build", "mJ a frame", "mJ above idle", "Mean W", "Idle W", "Source", "Covers")
    rows = tuple(
        _build_energy_row(result["name"], result["energy"])
        for result in report["results"]
        if isinstance(result.get("energy"), Mapping)
    )
    return Table("Energy of a frame, from a loop of its own", columns, rows)


def describe_missing_energy(report: Mapping[str, Any]) -> str | None:
    """Return the sentence for a run that measured no energy, with why; None where it measured some."""
    if any(isinstance(result.get("energy"), Mapping) for result in report["results"]):
        return None
    notes = dict.fromkeys(result.get("energy_note") for result in report["results"])
    reasons = "; ".join(note for note in notes if note)
    return f"energy of a frame: {NOT_MEASURED}" + (f", {reasons}" if reasons else "")


def list_scenarios(report: Mapping[str, Any], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return (build, entry) of every scenario of a kind."""
    return [
        (result["name"], one)
        for result in report["results"]
        for one in result.get("scenarios", ())
        if one["scenario"] == kind
    ]


def _build_energy_row(name: str, energy: Mapping[str, Any]) -> tuple[str, ...]:
    above, idle = energy["joules_a_frame_above_idle"], energy["idle_w"]
    return (
        name,
        f"{1e3 * energy['joules_a_frame']:.2f}",
        NOT_MEASURED if above is None else f"{1e3 * above:.2f}",
        f"{energy['mean_w']:.2f}",
        NOT_MEASURED if idle is None else f"{idle:.2f}",
        energy["source"],
        energy["covers"],
    )


def _format_rate(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.2%}"
