"""Builds for one size of frame beside data of another: left out with the reason, or refused when named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekd.benchmarks import StopRule, run_benchmark, run_parity, run_prediction
from edgekd.benchmarks.frame_sizes import leave_misfits
from edgekd.benchmarks.selection import choose_builds
from edgekd.bundle import Bundle, Recording
from edgekd.errors import InputError

REASON = "made for frames of 48×64, the data hold 56×64"
QUICK = StopRule(2, 0)


@pytest.fixture
def mixed(bundle: Bundle, add_build: Callable) -> Bundle:
    """A build for any frame, and one for those of 48×64: half of the data set have 56×64."""
    add_build("onnx")
    add_build("openvino", frame_size=[48, 64])
    return bundle


def test_gate_judges_what_takes_the_data_and_lists_the_rest(
    mixed: Bundle, data: Path, reference: Recording
) -> None:
    report = run_parity(mixed, data=data, quiet=True)
    assert [one.candidate for one in report.results] == ["onnx-fp32-cpu"]
    assert report.passed
    assert [(one.name, one.reason, one.status) for one in report.skipped] == [
        ("openvino-fp32-cpu", REASON, "skipped")
    ]


def test_benchmark_times_what_takes_the_data_and_lists_the_rest(mixed: Bundle, data: Path) -> None:
    report = run_benchmark(mixed, data=data, rule=QUICK, num_warmup=0, quiet=True)
    assert [name for name, _ in report.results] == ["onnx-fp32-cpu"]
    assert report.fault is None
    assert [(one.name, one.reason) for one in report.skipped] == [("openvino-fp32-cpu", REASON)]


def test_prediction_takes_the_first_build_that_takes_the_images(
    bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path
) -> None:
    add_build("onnx", frame_size=[48, 64])
    add_build("openvino")
    report = run_prediction(bundle, data / "images", tmp_path / "out", quiet=True)
    assert report.engine == "openvino-fp32-cpu"


def test_named_build_is_refused_before_anything_runs(mixed: Bundle, data: Path, reference: Recording) -> None:
    named = ["onnx", "openvino"]
    with pytest.raises(InputError, match=f"openvino-fp32-cpu: {REASON}"):
        run_parity(mixed, data=data, targets=named, quiet=True)
    with pytest.raises(InputError, match=f"named does not take .*{REASON}"):
        run_benchmark(mixed, data=data, targets=named, rule=QUICK, quiet=True)


def test_no_build_that_takes_the_data_is_an_error(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("openvino", frame_size=[48, 64])
    with pytest.raises(InputError, match=f"no build takes these frames.*{REASON}"):
        run_parity(bundle, data=data, quiet=True)


def test_sizes_are_read_as_far_as_needed(mixed: Bundle) -> None:
    def list_shapes() -> Iterator[tuple[int, ...]]:
        yield 48, 64
        yield 50, 64, 3
        pytest.fail("this frame decides nothing more")

    choices, _ = choose_builds(mixed)
    left, misfits = leave_misfits(mixed, choices, list_shapes(), named=False)
    assert ([one.name for one in left], [one.name for one in misfits]) == (
        ["onnx-fp32-cpu"],
        ["openvino-fp32-cpu"],
    )
    left, misfits = leave_misfits(mixed, choices, [(48, 64)] * 3, named=True)
    assert (len(left), misfits) == (2, [])
