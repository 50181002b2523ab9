"""Releases with planted losses are marked, the same release never; what cannot be judged says so."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekd import cli
from edgekd.benchmarks import compare_reports, write_comparison
from edgekd.benchmarks.latency import measure_latency
from edgekd.benchmarks.quantities import Quantity
from edgekd.benchmarks.regressions import Limits, estimate_ratio, judge_quantity
from edgekd.benchmarks.result_files import write_result
from edgekd.bundle import Bundle
from edgekd.errors import InputError, UsageError
from edgekd.runtime import LoadRequest, Segmenter
from edgekd.runtime.scripted import ScriptedEngine

US = 1_000
SCORES = {"acc": 0.97, "miou": 0.82, "dice": 0.7512, "kappa": 0.79}


def measure_scripted(bundle: Bundle, infer_ns: int, queries: int = 300) -> dict[str, Any]:
    """A latency result of the scripted engine, as a file holds it."""
    manifest = bundle.manifest
    engine = ScriptedEngine(LoadRequest(bundle, "scripted", "fp32", "CPU"), {"infer": (infer_ns,)})
    result = measure_latency(
        lambda: Segmenter(engine, manifest.preprocess, manifest.classes),
        [np.zeros((8, 8), np.uint8)],
        min_queries=queries,
        min_seconds=0,
    )
    return {"name": "engine", **result.to_dict()}


def write_release(folder: Path, latency: dict[str, Any], scores: dict[str, float], **changes: Any) -> Path:
    """A result folder with both files, as `edgekd benchmark --out` makes it."""
    environment = {"cpu": {"model": "A"}, "libraries": {"edgekd": "1", "onnxruntime": "1.2"}, "os": "X"}
    common = {"bundle": "x", "manifest_sha256": "a" * 64, "environment": environment, "command": "edgekd"}
    common |= changes
    folder.mkdir(parents=True)
    (folder / "parity").mkdir()
    write_result(folder, "benchmark", {**common, "frames": "golden", "results": [latency]})
    judged = {
        "candidate": "engine",
        "kind": "data",
        "passed": True,
        "pixel_agreement": 1.0,
        "candidate_scores": scores,
        "differences": {name: {"delta": 0.0} for name in scores},
    }
    write_result(folder / "parity", "parity", {**common, "data": "D", "results": [judged]})
    return folder


def test_gates_by_different_criteria_are_not_compared(bundle: Bundle, tmp_path: Path) -> None:
    known, strict = (
        measure_scripted(bundle, 500 * US),
        {"margins": {"dice": 0.01, "kappa": 0.01}, "min_groups": 20},
    )
    before = write_release(tmp_path / "a", known, SCORES, criteria=strict)
    lax = {**strict, "margins": {"dice": 0.01, "kappa": 0.05}}
    after = write_release(tmp_path / "b", known, SCORES, criteria=lax)
    with pytest.raises(
        InputError, match=r"different criteria: received .*a: margin of kappa 0\.01; .*kappa 0\.05"
    ):
        compare_reports([before, after])
    assert compare_reports([before / "benchmark.json", before / "benchmark.json"]).passed
    assert compare_reports([before, write_release(tmp_path / "c", known, SCORES, criteria=strict)]).passed


def test_files_of_two_kinds_have_nothing_in_common(bundle: Bundle, tmp_path: Path) -> None:
    known = measure_scripted(bundle, 500 * US)
    folder = write_release(tmp_path / "a", known, SCORES)
    with pytest.raises(InputError, match=r"nothing in common.* Next: name the result folders"):
        compare_reports([folder / "parity" / "parity.json", folder / "benchmark.json"])


def test_what_an_interrupted_release_lacks_is_worse(bundle: Bundle, tmp_path: Path) -> None:
    known = measure_scripted(bundle, 500 * US)
    before = write_release(tmp_path / "a", known, SCORES)
    after = write_release(tmp_path / "b", known, SCORES, interrupted=True)
    (after / "parity" / "parity.json").unlink()
    comparison = compare_reports([before, after])
    assert not comparison.passed
    assert "engine gate passed in" in comparison.regressions[0]
    # What was left out by choice is not gone, interrupted or not.
    left_out = {
        "skipped": [{"name": "engine", "is_obstacle": False, "status": "skipped", "reason": "--target"}]
    }
    chosen = write_release(tmp_path / "c", known, SCORES, interrupted=True, **left_out)
    (chosen / "parity" / "parity.json").unlink()
    assert compare_reports([before, chosen]).passed


def test_planted_losses_are_marked_and_the_exit_code_is_1(bundle: Bundle, tmp_path: Path) -> None:
    before = write_release(tmp_path / "1", measure_scripted(bundle, 500 * US), SCORES)
    worse = {**SCORES, "dice": SCORES["dice"] - 0.01}
    after = write_release(tmp_path / "2", measure_scripted(bundle, 600 * US), worse)
    out = tmp_path / "change"
    done = CliRunner().invoke(cli.app, ["compare", str(before), str(after), "--out", str(out)])
    assert done.exit_code == 1
    content = json.loads((out / "comparison.json").read_text())
    marked = {row["quantity"] for row in content["rows"] if row["verdicts"][1] == "worse"}
    assert {"Dice", "p50"} <= marked <= {"Dice", "p50", "p99"}
    assert (content["schema"], content["schema_version"], content["passed"]) == (
        "edgekd.comparison",
        1,
        False,
    )
    page, text = (out / "report.html").read_text(), (out / "comparison.md").read_text()
    assert 'class="tag bad">worse' in page
    assert [(point["series"], point["dice"]) for point in content["points"]] == [
        (str(before), SCORES["dice"]),
        (str(after), worse["dice"]),
    ]
    assert page.count("<svg") == 2
    assert "Change control" in page
    assert text.startswith("# Worse than in")
    # The other way round it is a gain.
    better = compare_reports([after, before])
    assert better.passed
    assert "better" in better.verdict


def test_the_same_release_marks_nothing_in_20_of_20(bundle: Bundle, tmp_path: Path) -> None:
    first = write_release(tmp_path / "0", measure_scripted(bundle, 200 * US), SCORES)
    for repeat in range(1, 21):
        again = write_release(tmp_path / str(repeat), measure_scripted(bundle, 200 * US), SCORES)
        comparison = compare_reports([first, again])
        assert comparison.regressions == ()
        assert comparison.passed


def make_quantity(median: float, noise: float, number: int = 1000, seed: int = 0) -> Quantity:
    samples = median * (1 + noise * np.random.default_rng(seed).standard_normal(number))
    return Quantity(float(np.median(samples)) / 1e6, tuple(samples.astype(int).tolist()))


@pytest.mark.parametrize(
    ("factor", "noise", "verdict"),
    [
        (1.0, 0.05, "same"),
        (1.09, 0.01, "same"),
        (1.20, 0.05, "worse"),
        (0.80, 0.05, "better"),
        # A slowdown that the noise may have made is none.
        (1.13, 0.60, "same"),
    ],
)
def test_median_is_judged_by_the_interval_of_its_ratio(factor: float, noise: float, verdict: str) -> None:
    before, after = make_quantity(1e6, noise), make_quantity(1e6 * factor, noise, seed=1)
    assert judge_quantity("p50", "ms", before, after, Limits(), quiet=False) == verdict


def test_interval_of_the_ratio_covers_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(200):
        sides = [make_quantity(1e6, 0.1, 400, seed=2 * seed + side).samples_ns for side in (0, 1)]
        estimate = estimate_ratio(*sides)
        assert estimate is not None
        inside += estimate[0] - estimate[1] <= 0
    assert 0.90 <= inside / 200 <= 0.99


def test_slowdown_at_the_limit_is_called_worse_as_seldom_as_the_bound_says() -> None:
    rng = np.random.default_rng(3)
    samples = 1e6 * np.exp(0.05 * rng.standard_normal((2500, 2, 200)))
    samples[:, 1] *= 1 + Limits.max_slowdown
    worse = 0
    for sides in samples.astype(int).tolist():
        before, after = (Quantity(1.0, tuple(side)) for side in sides)
        worse += judge_quantity("p50", "ms", before, after, Limits(), quiet=True) == "worse"
    assert 0.035 <= worse / len(samples) <= 0.065


@pytest.mark.parametrize(
    ("quantity", "unit", "before", "after", "quiet", "verdict"),
    [
        ("Dice", "score", Quantity(0.75), Quantity(0.744), False, "worse"),
        ("Dice", "score", Quantity(0.75), Quantity(0.745), False, "same"),
        ("Acc", "score", Quantity(0.98), Quantity(0.9785), False, "worse"),
        ("Dice", "score", Quantity(0.75), Quantity(None), False, "not judged"),
        ("gate passed", "verdict", Quantity(1.0), Quantity(0.0), False, "worse"),
        ("paced", "rate", Quantity(0.01, (), 1, 100), Quantity(0.2, (), 20, 100), True, "worse"),
        ("paced", "rate", Quantity(0.01, (), 1, 100), Quantity(0.04, (), 4, 100), True, "same"),
        ("paced", "rate", Quantity(0.01, (), 1, 100), Quantity(0.2, (), 20, 100), False, "not judged"),
        ("offline", "1/s", Quantity(100.0, (100,) * 200), Quantity(80.0, (125,) * 200), False, "worse"),
        ("offline", "1/s", Quantity(100.0, (100,) * 200), Quantity(95.0, (105,) * 200), False, "same"),
        ("offline", "1/s", Quantity(100.0, (100,) * 20), Quantity(80.0, (125,) * 20), False, "not judged"),
        ("energy", "mJ", Quantity(10.0), Quantity(12.0), False, "worse"),
        ("energy", "mJ", Quantity(10.0), Quantity(8.0), False, "better"),
        ("max", "ms", Quantity(1.0), Quantity(9.0), True, "not judged"),
        ("p50", "ms", Quantity(1.0, (1,) * 50), Quantity(9.0, (9,) * 50), True, "not judged"),
    ],
)
def test_each_quantity_has_its_rule(
    quantity: str, unit: Any, before: Quantity, after: Quantity, quiet: bool, verdict: str
) -> None:
    assert judge_quantity(quantity, unit, before, after, Limits(), quiet=quiet) == verdict


def test_median_that_a_neighbour_moved_is_not_the_engine() -> None:
    before = make_quantity(1e6, 0.02)
    samples = np.array(before.samples_ns)
    samples[np.arange(1000) % 10 >= 3] *= 2
    after = Quantity(2.0, tuple(samples.tolist()))
    assert judge_quantity("p50", "ms", before, after, Limits(), quiet=False) == "same"
    assert judge_quantity("p50", "ms", before, after, Limits(), quiet=True) == "worse"
    assert judge_quantity("p50", "ms", after, before, Limits(), quiet=False) == "same"


def test_tail_is_judged_on_quiet_machines_only() -> None:
    before = make_quantity(1e6, 0.01, 2000)
    samples = np.array(before.samples_ns)
    samples[::50] *= 3
    after = Quantity(3.0, tuple(samples.tolist()))
    assert judge_quantity("p99", "ms", before, after, Limits(), quiet=True) == "worse"
    assert judge_quantity("p99", "ms", before, after, Limits(), quiet=False) == "not judged"
    assert judge_quantity("p99", "ms", before, before, Limits(), quiet=True) == "same"


@pytest.fixture
def latency() -> dict[str, Any]:
    samples = (1e6 * (1 + 0.01 * np.random.default_rng(0).standard_normal(1000))).astype(int).tolist()
    return {"name": "engine", "percentiles_ms": {"p50": 1.0}, "samples_ns": samples}


def slow_down(latency: dict[str, Any], factor: float) -> dict[str, Any]:
    slow = copy.deepcopy(latency)
    slow["samples_ns"] = [round(factor * sample) for sample in latency["samples_ns"]]
    slow["percentiles_ms"]["p50"] = factor
    return slow


def test_another_device_is_shown_and_not_judged(latency: dict[str, Any], tmp_path: Path) -> None:
    other = {"cpu": {"model": "B"}, "libraries": {"edgekd": "2", "onnxruntime": "1.2"}, "os": "X"}
    before = write_release(tmp_path / "a", latency, SCORES)
    after = write_release(tmp_path / "b", slow_down(latency, 5.0), SCORES, environment=other)
    comparison = compare_reports([before, after])
    assert comparison.passed
    assert any("another device" in text for text in comparison.warnings)
    changed = {row["item"] for row in comparison.changes if row["changed"]}
    assert changed == {"cpu model", "EdgeKD"}


def test_another_power_mode_or_governor_is_shown_and_not_judged(
    latency: dict[str, Any], tmp_path: Path
) -> None:
    def write(name: str, factor: float, **environment: Any) -> Path:
        libraries = {"libraries": {"edgekd": "1"}}
        described = {"cpu": {"model": "A"}, **libraries, **environment}
        return write_release(tmp_path / name, slow_down(latency, factor), SCORES, environment=described)

    modes = {
        mode: {"jetson": {"release": "R36", "power_mode": f"NV Power Mode: {mode}"}}
        for mode in ("MAXN", "15W")
    }
    before = write("a", 1.0, **modes["MAXN"])
    assert not compare_reports([before, write("b", 5.0, **modes["MAXN"])]).passed
    comparison = compare_reports([before, write("c", 5.0, **modes["15W"])])
    assert comparison.passed
    assert any("power mode NV Power Mode: 15W instead of NV" in text for text in comparison.warnings)
    before = write("d", 1.0, cpu={"model": "A", "governor": "performance"})
    comparison = compare_reports([before, write("e", 5.0, cpu={"model": "A", "governor": "powersave"})])
    assert comparison.passed
    assert any("governor powersave instead of performance" in text for text in comparison.warnings)
    # What a report does not tell is no difference: containers and older reports are judged as before.
    before = write("h", 1.0, **modes["MAXN"])
    assert not compare_reports([before, write("i", 5.0, jetson="not measured")]).passed
    before = write("j", 1.0, cpu={"model": "A", "governor": "performance"})
    for name, unknown in (("f", {"model": "A"}), ("g", {"model": "A", "governor": "not measured"})):
        assert not compare_reports([before, write(name, 5.0, cpu=unknown, jetson="not measured")]).passed


def pace(latency: dict[str, Any], missed: int, **changes: Any) -> dict[str, Any]:
    paced = {"scenario": "paced", "name": "paced, 30 fps", "percentiles_ms": {"p99": 1.0}, "num_frames": 300}
    paced |= {"missed": missed, "miss_rate": missed / 300, "deadline_ms": 33.333333, "queue": 2}
    paced |= {"drop": "oldest", "jitter": 0.0, **changes}
    return {**latency, "scenarios": [paced]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deadline_ms": 8.0}, "deadline of paced, 30 fps 8 ms instead of 33.3333 ms"),
        ({"queue": 1}, "queue of paced, 30 fps 1 instead of 2"),
        ({"drop": "newest"}, "drop of paced, 30 fps newest instead of oldest"),
        ({"jitter": 0.3}, "jitter of paced, 30 fps 0.3 instead of 0.0"),
    ],
)
def test_misses_by_other_rules_are_not_judged(
    latency: dict[str, Any], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    before = write_release(tmp_path / "a", pace(latency, 3), SCORES)
    same_rules = write_release(tmp_path / "b", pace(slow_down(latency, 2.0), 200), SCORES)
    assert "engine paced, 30 fps: missed" in compare_reports([before, same_rules]).verdict
    after = write_release(tmp_path / "c", pace(latency, 200, **changes), SCORES)
    comparison = compare_reports([before, after])
    assert comparison.passed
    assert [text for text in comparison.warnings if said in text]
    # The engine's own latency does not depend on the pace.
    slow = write_release(tmp_path / "d", pace(slow_down(latency, 2.0), 200, **changes), SCORES)
    assert compare_reports([before, slow]).regressions == (f"engine p50 in {slow}",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frame_shapes": [[768, 1024]]}, "frames 768×1024 instead of 48×64"),
        ({"facts": {"threads": 4}}, "threads 4 instead of 1"),
        ({"facts": {"threads": None}}, "threads left to the engine instead of 1"),
    ],
)
def test_latencies_of_other_frames_or_threads_are_not_judged(
    latency: dict[str, Any], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    known = {**latency, "frame_shapes": [[48, 64]], "facts": {"threads": 1}}
    before = write_release(tmp_path / "a", known, SCORES)
    assert not compare_reports([before, write_release(tmp_path / "b", slow_down(known, 2.0), SCORES)]).passed
    after = write_release(tmp_path / "c", {**slow_down(known, 2.0), **changes}, SCORES)
    comparison = compare_reports([before, after])
    assert comparison.passed
    row = next(row for row in comparison.rows if row["quantity"] == "p50")
    assert (row["values"], row["verdicts"]) == ([1.0, 2.0], [None, "not judged"])
    assert [text for text in comparison.warnings if said in text]


def test_frames_of_one_shape_may_be_any_and_of_several_must_be_the_same(
    latency: dict[str, Any], tmp_path: Path
) -> None:
    for name, shapes, judged in (("one", [[48, 64]], True), ("two", [[48, 64], [56, 64]], False)):
        known = {**latency, "frame_shapes": shapes}
        before = write_release(tmp_path / name / "a", known, SCORES, frames_sha256="a" * 64)
        slow = slow_down(known, 2.0)
        same = write_release(tmp_path / name / "b", slow, SCORES, frames_sha256="a" * 64)
        other = write_release(tmp_path / name / "c", slow, SCORES, frames_sha256="b" * 64)
        assert not compare_reports([before, same]).passed
        assert compare_reports([before, other]).passed is not judged


def test_energy_by_another_meter_is_not_judged(latency: dict[str, Any], tmp_path: Path) -> None:
    paths: list[Path] = []
    for name, joules, source in (("a", 1.0, "RAPL"), ("b", 2.0, "RAPL"), ("c", 2.0, "NVML")):
        energy = {"joules_a_frame": joules, "source": source, "covers": "a part"}
        paths.append(write_release(tmp_path / name, {**latency, "energy": energy}, SCORES))
    assert "energy a frame" in compare_reports(paths[:2]).verdict
    comparison = compare_reports(paths[::2])
    assert comparison.passed
    assert any("meter NVML (a part) instead of RAPL (a part)" in text for text in comparison.warnings)


def test_scores_of_other_data_are_not_judged(latency: dict[str, Any], tmp_path: Path) -> None:
    before = write_release(tmp_path / "a", latency, SCORES)
    after = write_release(tmp_path / "b", latency, dict.fromkeys(SCORES, 0.1))
    assert not compare_reports([before, after]).passed
    path = after / "parity" / "parity.json"
    path.write_text(path.read_text().replace('"data": "D"', '"data": "E"'))
    comparison = compare_reports([before, after])
    assert comparison.passed
    assert any("other data" in text for text in comparison.warnings)


def test_limits_are_options(latency: dict[str, Any], tmp_path: Path) -> None:
    paths = [
        str(write_release(tmp_path / name, slow_down(latency, factor), SCORES))
        for name, factor in (("a", 1.0), ("b", 1.2))
    ]
    assert CliRunner().invoke(cli.app, ["compare", *paths]).exit_code == 1
    assert CliRunner().invoke(cli.app, ["compare", *paths, "--max-slowdown", "0.3"]).exit_code == 0
    with pytest.raises(UsageError):
        compare_reports([tmp_path / "a", tmp_path / "b"], max_slowdown=float("nan"))


def test_a_comparison_is_not_compared_again(latency: dict[str, Any], tmp_path: Path) -> None:
    paths = [write_release(tmp_path / name, latency, SCORES) for name in "ab"]
    write_comparison(tmp_path / "c", compare_reports(paths))
    with pytest.raises(InputError):
        compare_reports([paths[0], tmp_path / "c" / "comparison.json"])


def test_real_files_of_both_verbs_are_compared(bundle: Bundle, add_build: Callable, tmp_path: Path) -> None:
    add_build("onnx")
    for name in "ab":
        options = ["--min-queries", "120", "--min-seconds", "0", "--fps", "2000", "--out"]
        done = CliRunner().invoke(cli.app, ["benchmark", str(bundle.path), *options, str(tmp_path / name)])
        assert done.exit_code == 0
    comparison = compare_reports([tmp_path / "a", tmp_path / "b"])
    quantities = {row["quantity"] for row in comparison.rows}
    assert {"p50", "p99", "p99.9", "paced, 2000 fps: missed", "gate passed", "pixels equal"} <= quantities
    assert {row["item"] for row in comparison.changes} >= {"manifest sha256", "frames sha256", "cpu governor"}
