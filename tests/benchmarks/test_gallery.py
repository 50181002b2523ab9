"""Which cases a report shows, and what of them: the ones that differ, or a spread of those that do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgekd.benchmarks import compare_recordings, run_parity
from edgekd.benchmarks.gallery import LayeredOverlay, _spread_cases, draw_cases, draw_golden
from edgekd.benchmarks.golden import compare_golden
from edgekd.bundle import Bundle, JudgedFrames, Recording
from edgekd.data import find_cases
from edgekd.metrics import count_confusions, summarise_cases
from edgekd.specs import ClassSpec


def _list_names(overlays: tuple[object, ...]) -> list[tuple[str, str]]:
    """Return case and build of each picture, and check that it has every view."""
    names: list[tuple[str, str]] = []
    for one in overlays:
        assert isinstance(one, LayeredOverlay)
        assert [layer.name for layer in one.layers] == ["engine", "student", "truth", "difference"]
        case, _, build = one.name.rpartition(": ")[0].partition(", ")
        names.append((case, build))
    return names


def test_where_no_build_differs_cases_run_from_the_lowest_dice_to_the_highest(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("onnx")
    add_build("onnx", precision="bf16")
    report = run_parity(bundle, data=data, quiet=True)
    shown = _list_names(report.overlays)
    assert {build for _, build in shown} == {"every build that ran"}
    dice = summarise_cases(count_confusions(reference.truths, reference.masks, 2))[:, -4]
    order = [reference.names[index] for index in np.argsort(dice, kind="stable")]
    places = [order.index(case) for case, _ in shown]
    assert len(places) == 6 and places == sorted(places)
    assert (places[0], places[-1]) == (0, 23)


def _compare(
    bundle: Bundle, data: Path, reference: Recording, changes: dict[str, Sequence[int]]
) -> list[tuple[str, str]]:
    """Return the pictures of builds that turn one pixel in each of the named cases."""
    cases = find_cases(data).cases
    recordings: list[Recording] = []
    for name, indices in changes.items():
        masks = reference.masks.copy()
        masks[list(indices), 0, 0] ^= 1
        recordings.append(dataclasses.replace(reference, source=name, masks=masks))
    results = [
        compare_recordings(reference, one, classes=ClassSpec(), num_resamples=10) for one in recordings
    ]
    return _list_names(tuple(draw_cases(cases, recordings, results, bundle, reference)))


def test_a_case_that_differs_takes_no_more_than_its_own_picture(
    bundle: Bundle, data: Path, reference: Recording
) -> None:
    shown = _compare(bundle, data, reference, {"a": [], "b": [7]})
    assert shown[0] == (reference.names[7], "b")
    assert [build for _, build in shown[1:]] == ["every build that ran"] * 5
    assert reference.names[7] not in [case for case, _ in shown[1:]]


def test_builds_that_differ_take_turns_and_leave_room_for_cases_that_agree(
    bundle: Bundle, data: Path, reference: Recording
) -> None:
    shown = _compare(bundle, data, reference, {"a": range(5), "b": range(9), "c": [3]})
    assert [build for _, build in shown] == ["a", "a", "b", "c", *["every build that ran"] * 2]
    everywhere = _compare(bundle, data, reference, {"a": range(24), "b": []})
    assert [build for _, build in everywhere] == ["a"] * 5


def test_cases_with_nothing_to_find_are_shown_only_where_there_is_no_other(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    truths = reference.truths.copy()
    truths[:22] = 0
    few = Recording("pytorch", "", "", reference.names, reference.groups, truths, reference.masks)
    every = np.ones(24, bool)
    assert sorted(_spread_cases(few, every, 2, 6)) == [22, 23]
    truths[:] = 0
    assert _spread_cases(few, every, 2, 3) == [0, 12, 23]


def test_golden_frames_show_the_build_that_differs_most(bundle: Bundle, add_build: Callable) -> None:
    add_build("onnx")
    agreeing = run_parity(bundle).overlays
    assert {build for _, build in _list_names(agreeing)} == {"every build that ran"}
    add_build("openvino")
    report = run_parity(bundle)
    assert _list_names(report.overlays) == [
        (f"golden frame {index}", "openvino-fp32-cpu") for index in range(3)
    ]
    difference = report.overlays[0].layers[3]  # type: ignore[attr-defined]
    assert ": 0 of" not in difference.caption


def test_a_golden_frame_that_not_every_build_saw_is_named_after_its_own(bundle: Bundle) -> None:
    masks = np.ones((1, 24, 32), np.uint8)
    seen = [JudgedFrames((np.zeros(shape, np.uint8),), masks, masks) for shape in ((96, 96), (48, 64))]
    results = [compare_golden(masks, one, candidate=name) for one, name in zip(seen, "ab", strict=True)]
    assert _list_names(tuple(draw_golden(bundle, [(one, masks) for one in seen], results))) == [
        ("golden frame 0", "a")
    ]
