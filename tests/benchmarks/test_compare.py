"""Reports side by side: ratios, gaps, doubts, and files that are none."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.benchmarks import compare_reports, run_parity
from edgekd.benchmarks.result_files import format_json, read_result, write_result
from edgekd.bundle import Bundle
from edgekd.errors import InputError, IntegrityError, UsageError


def make_benchmark(p50_ms: float, name: str = "onnx-fp32-cpu", **changes: Any) -> dict[str, Any]:
    percentiles = {"p50": p50_ms, "p90": 2 * p50_ms, "p99": None, "max": 9.0}
    result = {"name": name, "percentiles_ms": percentiles}
    return {"manifest_sha256": "a" * 64, "frames": "golden", "results": [result], **changes}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(folder: str, content: dict[str, Any]) -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        return write_result(tmp_path / folder, "benchmark", content).parent

    return write


def test_ratios_are_to_the_first_report(write: Callable[..., Path]) -> None:
    comparison = compare_reports([write("a", make_benchmark(4.0)), write("b", make_benchmark(1.0))])
    rows = {row["quantity"]: row for row in comparison.rows}
    assert rows["p50"]["values"] == [4.0, 1.0]
    assert rows["p50"]["ratios"] == [1.0, 0.25]
    assert rows["p99"]["values"] == rows["p99"]["ratios"] == [None, None]
    assert comparison.warnings == ()
    table = comparison.to_table()
    assert table.rows[0][1:] == ("4.000 ms (1.00)", "1.000 ms (0.25)")
    assert comparison.passed
    json.dumps(comparison.to_dict(), allow_nan=False)


def test_build_that_one_report_lacks_is_a_gap(write: Callable[..., Path]) -> None:
    both = make_benchmark(2.0)
    both["results"].append(copy.deepcopy(make_benchmark(1.0, name="openvino-fp32-cpu")["results"][0]))
    comparison = compare_reports([write("a", make_benchmark(2.0)), write("b", both)])
    row = next(row for row in comparison.rows if row["build"] == "openvino-fp32-cpu")
    assert (row["values"], row["ratios"]) == ([None, 1.0], [None, None])
    assert any("lacks openvino-fp32-cpu of" in text and "not judged" in text for text in comparison.warnings)


def test_a_build_that_passed_and_does_not_run_any_more_is_worse(
    bundle: Bundle, add_build: Callable, tmp_path: Path
) -> None:
    add_build("onnx")
    run_parity(bundle, out=tmp_path / "a")
    content = json.loads((tmp_path / "a" / "parity.json").read_text())
    other = copy.deepcopy(content["results"][0]) | {"candidate": "openvino-int8-cpu"}
    paths = [tmp_path / f"{name}.json" for name in ("before", "stopped", "left_out", "gone", "elsewhere")]
    skipped = {"name": "openvino-int8-cpu", "reason": "?", "status": "skipped"}
    for path, changes in zip(
        paths,
        (
            {"results": [*content["results"], other]},
            {"skipped": [{**skipped, "is_obstacle": True}]},
            {"skipped": [{**skipped, "is_obstacle": False}]},
            {},
            {"environment": {**content["environment"], "cpu": {"model": "another"}}},
        ),
        strict=True,
    ):
        path.write_text(json.dumps({**content, **changes}))
    comparison = compare_reports(paths[:2])
    assert not comparison.passed and "openvino-int8-cpu gate passed" in comparison.verdict
    assert ("did not run worse",) in [row[2:] for row in comparison.to_table().rows]
    assert not compare_reports([paths[0], paths[3]]).passed
    other_device = copy.deepcopy(other) | {"candidate": "openvino-int8-cpu on GPU"}
    (tmp_path / "moved.json").write_text(
        json.dumps({**content, "results": [*content["results"], other_device]})
    )
    assert compare_reports([paths[0], tmp_path / "moved.json"]).passed
    # What the user leaves out is a gap, and told as one; so is what another device never had.
    assert compare_reports([paths[0], paths[2]]).passed
    assert compare_reports([paths[0], paths[4]]).passed


def test_parity_of_two_bundles_is_compared_with_a_warning(
    bundle: Bundle, add_build: Callable, tmp_path: Path
) -> None:
    add_build("onnx")
    run_parity(bundle, out=tmp_path / "a")
    content = json.loads((tmp_path / "a" / "parity.json").read_text())
    content["manifest_sha256"] = "c" * 64
    (tmp_path / "b.json").write_text(json.dumps(content))
    comparison = compare_reports([tmp_path / "a", tmp_path / "b.json"])
    assert [(row["quantity"], row["values"]) for row in comparison.rows] == [
        ("gate passed", [1.0, 1.0]),
        ("pixels equal", [1.0, 1.0]),
    ]
    assert "different bundles" in comparison.warnings[0]


def test_other_frames_are_warned_about(write: Callable[..., Path]) -> None:
    paths = [write("a", make_benchmark(1.0)), write("b", make_benchmark(1.0, frames="others"))]
    assert "different frames" in compare_reports(paths).warnings[0]


def test_what_cannot_be_compared_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write("a", make_benchmark(1.0))
    with pytest.raises(UsageError):
        compare_reports([path])
    with pytest.raises(InputError, match="nothing in common"):
        compare_reports([path, write("b", make_benchmark(1.0, name="other"))])
    with pytest.raises(InputError, match="damaged"):
        compare_reports([path, write("c", make_benchmark(1.0, results=[{"name": "x"}]))])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no result"):
        compare_reports([path, tmp_path / "empty"])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": "other", "schema_version": 1}'])
def test_files_that_are_no_result_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_result(path)


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"schema": "edgekd.parity", "schema_version": 99}')
    with pytest.raises(IntegrityError, match="newer"):
        read_result(path)


def test_numbers_stay_on_one_line_and_texts_as_they_are() -> None:
    value = {
        "samples": list(range(50)),
        "floats": [-1.5, 2e-7],
        "text": "[\n 1,\n 2]",
        "mixed": [1, "a"],
        "none": [],
    }
    text = format_json(value)
    assert json.loads(text) == value
    assert sum("," in line and "49" in line for line in text.splitlines()) == 1
