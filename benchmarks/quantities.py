"""What result files hold that can be put side by side: a value a build and quantity, with its samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edgekd.benchmarks.latency_tables import list_scenarios
from edgekd.benchmarks.quantiles import SUMMARY
from edgekd.benchmarks.result_files import Kind, read_result
from edgekd.benchmarks.tables import METRIC_NAMES
from edgekd.errors import InputError
from edgekd.tables import NOT_MEASURED

Unit = Literal["ms", "score", "Δ", "part", "verdict", "1/s", "mJ", "rate"]
FILES = ("parity.json", "parity/parity.json", "benchmark.json")
"""Where a result folder may hold results; the second is what `edgekd benchmark --out` makes."""
DISTURBED = ("busy", "held back", "throttled", "hot", "paced")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One value of one build in one column.

    Attributes:
        value: None where it was not measured.
        samples_ns: what a latency was taken from; of a throughput, what its queries took.
        events, trials: what a rate was taken from.
        conditions: what it was measured under, by name; a value under others is none to compare it with.
    """

    value: float | None
    samples_ns: tuple[int, ...] = ()
    events: int = 0
    trials: int = 0
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def list_differences(self, other: Quantity) -> list[str]:
        """Return the conditions known of both that differ, in words."""
        return [
            f"{name} {other.conditions[name]} instead of {value}"
            for name, value in self.conditions.items()
            if other.conditions.get(name, value) != value
        ]


@dataclasses.dataclass(frozen=True)
class Column:
    """One report: everything that was read from its files.

    Attributes:
        name: as given on the command line.
        contents: kind and content of each file.
        quantities: by (build, quantity, unit).
        disturbed: builds whose own warnings say that the machine was not quiet.
    """

    name: str
    contents: tuple[tuple[Kind, dict[str, Any]], ...]
    quantities: dict[tuple[str, str, Unit], Quantity]
    disturbed: frozenset[str]

    @property
    def builds(self) -> set[str]:
        """Names of the builds it has."""
        return {build for build, _, _ in self.quantities}

    @property
    def gated(self) -> set[str]:
        """Names of the builds with a verdict of a gate."""
        return {build for build, _, unit in self.quantities if unit == "verdict"}

    @property
    def gate(self) -> str | None:
        """What its gate judged on, ``data`` or ``golden frames``; None where there is no verdict of one."""
        judged = [content for kind, content in self.contents if kind == "parity"]
        if not judged:
            return None
        return "data" if any(content.get("data") for content in judged) else "golden frames"

    @property
    def criteria(self) -> list[dict[str, Any]]:
        """What its gates were judged by, margin by margin."""
        found = [content["criteria"] for _, content in self.contents if content.get("criteria")]
        return [
            {key: value for key, value in one.items() if key != "margins"}
            | {f"margin of {name}": value for name, value in one["margins"].items()}
            for one in found
        ]

    @property
    def is_interrupted(self) -> bool:
        """Whether it ended before all was measured or judged."""
        return any(content.get("interrupted") for _, content in self.contents)

    @property
    def gate_note(self) -> str:
        """What its benchmark says of the gate, empty where it says nothing."""
        notes = [(content.get("gate") or {}).get("note", "") for _, content in self.contents]
        return "; ".join(note for note in notes if note)

    @property
    def stopped(self) -> set[str]:
        """Names of the builds that could not run, and were not left out by choice."""
        return self._list_skipped(is_obstacle=True)

    @property
    def left_out(self) -> set[str]:
        """Names of the builds that are there and that a choice of the user left out."""
        return self._list_skipped(is_obstacle=False)

    def _list_skipped(self, *, is_obstacle: bool) -> set[str]:
        listed = [one for _, content in self.contents for one in content.get("skipped", ())]
        return {str(one["name"]) for one in listed if bool(one.get("is_obstacle")) is is_obstacle}

    def collect(self, *keys: str) -> frozenset[str]:
        """Return the values of these keys in all files."""
        return frozenset(
            str(content[key]) for _, content in self.contents for key in keys if content.get(key)
        )


def read_column(path: Path) -> Column:
    """Read a result file, or every result in a folder.

    Raises:
        InputError: there is no result, or one is damaged.
        IntegrityError: a file was written by a newer program.
    """
    files = [path / name for name in FILES if (path / name).is_file()] if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no result", expected="parity.json or benchmark.json in it")
    contents = tuple(read_result(file) for file in files)
    quantities: dict[tuple[str, str, Unit], Quantity] = {}
    disturbed: set[str] = set()
    try:
        for kind, content in contents:
            quantities.update(_list_quantities(kind, content))
            disturbed.update(_find_disturbed(kind, content))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"a result in {', '.join(map(str, files))} is damaged",
            received=f"{type(error).__name__}: {error}",
        ) from error
    return Column(str(path), contents, quantities, frozenset(disturbed))


def _list_quantities(
    kind: Kind, content: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, str, Unit], Quantity]]:
    if kind == "benchmark":
        yield from _list_latencies(content)
    elif kind == "parity":
        for result in content["results"]:
            yield from _list_scores(result)
    else:
        raise KeyError(f"{kind} holds no quantity")


def _list_latencies(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, Unit], Quantity]]:
    conditions: dict[str, dict[str, str]] = {}
    for result in content["results"]:
        name, samples = result["name"], tuple(result.get("samples_ns", ()))
        known = conditions[name] = _describe_conditions(result, content)
        for key in SUMMARY:
            if key in result["percentiles_ms"]:
                yield (name, key, "ms"), Quantity(result["percentiles_ms"][key], samples, conditions=known)
        energy = result.get("energy")
        if isinstance(energy, Mapping):
            metered = {**known, "meter": f"{energy.get('source')} ({energy.get('covers')})"}
            joules = energy["joules_a_frame"]
            yield (name, "energy a frame", "mJ"), Quantity(1e3 * joules, conditions=metered)
    for name, one in list_scenarios(content, "paced"):
        paced = conditions[name] | _describe_pace(one)
        p99 = Quantity(one["percentiles_ms"]["p99"], conditions=paced)
        yield (name, f"{one['name']}: p99", "ms"), p99
        missed = Quantity(one["miss_rate"], (), one["missed"], one["num_frames"], paced)
        yield (name, f"{one['name']}: missed", "rate"), missed
    for kind in ("multi-stream", "offline"):
        for name, one in list_scenarios(content, kind):
            rate = Quantity(one["frames_per_second"], tuple(one["samples_ns"]), conditions=conditions[name])
            yield (name, f"{one['name']}: frames a second", "1/s"), rate


def _describe_conditions(result: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, str]:
    """Return what a latency depends on beside engine and device, as far as the file tells."""
    found: dict[str, str] = {}
    facts = result.get("facts")
    if isinstance(facts, Mapping) and "threads" in facts:
        found["threads"] = "left to the engine" if facts["threads"] is None else str(facts["threads"])
    shapes = ["×".join(map(str, shape)) for shape in result.get("frame_shapes", ())]
    if shapes:
        # What is in the pixels takes no time, so frames of one shape may be any. How often each of several
        # comes, the frames alone tell.
        files = f" (sha256 {str(content.get('frames_sha256'))[:12]})" if len(shapes) > 1 else ""
        found["frames"] = " and ".join(shapes) + files
    environment = content.get("environment", {})
    for part, key in (("cpu", "governor"), ("jetson", "power_mode")):
        facts = environment.get(part)
        value = facts.get(key, NOT_MEASURED) if isinstance(facts, Mapping) else NOT_MEASURED
        if value != NOT_MEASURED:
            found[key.replace("_", " ")] = str(value)
    return found


def _describe_pace(scenario: Mapping[str, Any]) -> dict[str, str]:
    """Return by what a frame is called late or dropped."""
    name = scenario["name"]
    found = {f"deadline of {name}": f"{scenario['deadline_ms']:g} ms"} if "deadline_ms" in scenario else {}
    rules = ("queue", "drop", "jitter")
    return found | {f"{rule} of {name}": str(scenario[rule]) for rule in rules if rule in scenario}


def _list_scores(result: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, Unit], Quantity]]:
    build = result["candidate"]
    # Golden frames on which the student itself marks nothing say nothing of an engine.
    is_open = result["kind"] == "golden" and result.get("conclusion") == "inconclusive"
    yield (build, "gate passed", "verdict"), Quantity(None if is_open else float(result["passed"]))
    yield (build, "pixels equal", "part"), Quantity(result["pixel_agreement"])
    scores = result.get("candidate_scores") or {}
    for name, difference in result.get("differences", {}).items():
        if name in scores:
            yield (build, METRIC_NAMES[name], "score"), Quantity(scores[name])
        yield (build, f"Δ{METRIC_NAMES[name]}", "Δ"), Quantity(difference["delta"])


def _find_disturbed(kind: Kind, content: Mapping[str, Any]) -> Iterator[str]:
    results: Sequence[Mapping[str, Any]] = content["results"] if kind == "benchmark" else ()
    for result in results:
        if any(text.startswith(DISTURBED) for text in result.get("warnings", ())):
            yield result["name"]
