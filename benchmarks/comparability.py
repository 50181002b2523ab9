"""What of two reports can be judged against each other, and what is said where something cannot.

Two gates are alike where both judged on data, or both on golden frames: agreement on a few frames is less
than non-inferiority on data, so a pass of the one says nothing against a pass of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgekd.benchmarks.change_control import find_device
from edgekd.benchmarks.quantities import Column
from edgekd.benchmarks.result_files import GATE_FAILED
from edgekd.errors import InputError


def is_lost(build: str, first: Column, column: Column) -> bool:
    """Return whether a build without a verdict in ``column`` is there a fault and no choice.

    It cannot run any more, its gate failed to run, it is not there where all of this device were gated, or
    all was interrupted before.
    """
    has_failed = column.gate is None and column.gate_note.startswith(GATE_FAILED)
    if build in column.stopped or (has_failed and build in column.builds):
        return True
    # The same build may have run on another device, `openvino-fp32-cpu on GPU`.
    name = build.partition(" on ")[0]
    left_out = {one.partition(" on ")[0] for one in column.left_out}
    if column.is_interrupted:
        return name not in left_out
    is_there = name in left_out | {one.partition(" on ")[0] for one in column.builds}
    was_gated = column.gate is not None or has_failed
    return was_gated and not is_there and find_device(first) == find_device(column)


def check_criteria(columns: Sequence[Column]) -> None:
    """Raise InputError where gates were judged by different criteria: a pass may be due to the change."""
    declared = [(column.name, criteria) for column in columns for criteria in column.criteria]
    for name, criteria in declared[1:]:
        keys = [key for key in declared[0][1] if criteria.get(key) != declared[0][1][key]]
        if keys:
            raise InputError(
                "the gates were judged by different criteria",
                received="; ".join(
                    f"{one}: {', '.join(f'{key} {sides.get(key)}' for key in keys)}"
                    for one, sides in (declared[0], (name, criteria))
                ),
                expected="the criteria that were declared before either",
                action="judge again by one of them (parity --config FILE), or name the files of latency",
            )


def have_same_data(first: Column, column: Column) -> bool:
    """Return whether the gates of both had the same data, or neither had any."""
    for key in ("data_sha256", "data"):
        sides = first.collect(key), column.collect(key)
        if all(sides):
            return sides[0] == sides[1]
    return not any((first.collect("data"), column.collect("data")))


def find_doubts(columns: Sequence[Column]) -> Iterator[str]:
    """Return why the columns may not be comparable with the first, and what is not judged, in sentences."""
    first = columns[0]
    if len(frozenset().union(*(column.collect("manifest_sha256") for column in columns))) > 1:
        yield "the reports are of different bundles: another student was measured, not only another machine"
    if len({frames for column in columns if (frames := column.collect("frames"))}) > 1:
        yield "the reports were made on different frames"
    for column in columns[1:]:
        yield from _find_gate_doubts(first, column)
        if find_device(column) != find_device(first):
            yield f"{column.name} is of another device than {first.name}: its latencies are not judged"
        yield from _find_other_conditions(first, column)
        missing = sorted(first.builds - column.builds)
        if missing:
            yield f"{column.name} lacks {', '.join(missing)}"
        added = sorted(column.builds - first.builds)
        if added:
            yield f"{first.name} lacks {', '.join(added)} of {column.name}: not judged"
        disturbed = sorted((first.disturbed | column.disturbed) & first.builds & column.builds)
        if disturbed:
            yield f"tails of {', '.join(disturbed)} are not judged: the machine was not quiet"


def _find_other_conditions(first: Column, column: Column) -> Iterator[str]:
    for build in sorted(first.builds & column.builds):
        found: dict[str, None] = {}
        for key, before in first.quantities.items():
            if key[0] == build and key in column.quantities:
                found |= dict.fromkeys(before.list_differences(column.quantities[key]))
        if found:
            yield (
                f"{build} in {column.name} is not comparable with {first.name}: {', '.join(found)}; "
                "what depends on that is not judged"
            )


def _find_gate_doubts(first: Column, column: Column) -> Iterator[str]:
    for gated, other in ((first, column), (column, first)):
        missing = sorted((gated.gated & other.builds) - other.gated)
        if missing:
            note = f": {other.gate_note}" if other.gate is None and other.gate_note else ""
            yield f"{', '.join(missing)} was not gated in {other.name}{note}"
    if first.gate is None or column.gate is None:
        return
    if first.gate != column.gate:
        yield (
            f"{column.name} was gated on {column.gate}, {first.name} on {first.gate}: "
            "a pass there is not judged by one here"
        )
    elif not have_same_data(first, column):
        yield f"{column.name} was gated on other data than {first.name}: its scores are not judged"
