"""Which cases a report shows, and what of them: the ones that differ, or a spread of those that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekd.benchmarks import run_parity
from edgekd.benchmarks.gallery import LayeredOverlay
from edgekd.bundle import Bundle, Recording
from edgekd.metrics import count_confusions, summarise_cases


def _list_names(overlays: tuple[object, ...]) -> list[tuple[str, str]]:
    """Return case and build of each picture, and check that it has every view."""
    names: list[tuple[str, str]] = []
    for one in overlays:
        assert isinstance(one, LayeredOverlay)
        assert [layer.name for layer in one.layers] == ["engine", "student", "truth", "difference"]
        case, _, build = one.name.rpartition(": ")[0].partition(", ")
        names.append((case, build))
    return names


def test_builds_that_agree_share_pictures_from_the_lowest_dice_to_the_highest(
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


def test_builds_that_differ_have_their_worst_cases_beside_one_that_agrees(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("onnx")
    add_build("openvino")
    report = run_parity(bundle, data=data, quiet=True)
    shown = _list_names(report.overlays)
    worst = [case.name for case in report.results[1].worst_cases[:3]]
    assert [case for case, build in shown if build == "openvino-fp32-cpu"] == worst
    assert [build for _, build in shown].count("onnx-fp32-cpu") == 3


def test_cases_with_nothing_to_find_are_shown_only_where_there_is_no_other(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    from edgekd.benchmarks.gallery import _spread_cases

    truths = reference.truths.copy()
    truths[:22] = 0
    few = Recording("pytorch", "", "", reference.names, reference.groups, truths, reference.masks)
    assert sorted(_spread_cases(few, 2, 6)) == [22, 23]
    truths[:] = 0
    assert _spread_cases(few, 2, 3) == [0, 12, 23]


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
    assert " 0.000%" not in difference.caption
