"""Which check catches which fault of an export, and does any of them cry wolf over a faithful one?

Every fault is planted in the deploy graph of a student trained on real ultrasound, in what the device does to
a frame, or in the order of the masks, and run by ONNX Runtime on the test split. Four checks look at it:

    export  preprocessing and logits against the truth, as ``edgekd export`` measures them before writing
    golden  agreement on the golden frames of the bundle
    floor   agreement on half A of the test split
    task    non-inferiority on half A: the verdict of ``edgekd parity`` without its floor of agreement

The loss of Dice that a fault really costs is measured on half B, whose groups the gate has not seen.

    python -m edgekd.benchmarks.suites.fault_bench DATA --work WORK --out RESULTS

trains the three students under WORK where they are not there yet (a few minutes on two cores).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from edgekd.atomic import write_text_atomic
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.parity import compare_recordings
from edgekd.benchmarks.result_files import format_json
from edgekd.benchmarks.suites.fault_catalogue import Fault, list_faults, list_sound_int8
from edgekd.benchmarks.suites.fault_graphs import run_core
from edgekd.benchmarks.suites.fault_students import (
    Scene,
    Student,
    build_scene,
    find_parts,
    provide_students,
    read_calibration,
    read_truths,
)
from edgekd.bundle import MIN_AGREEMENT, Recording
from edgekd.data import Case
from edgekd.errors import GateFailure
from edgekd.export.agreement import check_core_logits, check_preprocessing
from edgekd.export.graphs import build_deploy_graph, build_preprocess_graph
from edgekd.json_values import replace_non_finite
from edgekd.metrics import count_confusions, score_cases, summarise_cases
from edgekd.runtime import load
from edgekd.runtime.frames import FramePacker
from edgekd.specs import ClassSpec
from edgekd.stats import DEFAULT_MARGINS

CHECKS = ("export", "golden", "floor", "task")
Masks = NDArray[np.uint8]
Runner = Callable[[Sequence[NDArray[Any]]], Masks]


class Bench:
    """The test split in two halves, the students, and the checks."""

    def __init__(self, data: Path, work: Path) -> None:
        """Read the data and provide the students under ``work``."""
        self.students = provide_students(data, work)
        parts = find_parts(data)
        self.cases = parts["test"]
        self.calibration = read_calibration(parts["train"], self.students["main"])
        self.stored, self.truths = read_truths(self.cases, self.students["main"])
        self.half_a = np.array([_falls_into_a(case) for case in self.cases])

    @functools.lru_cache(maxsize=8)  # noqa: B019 one bench lives as long as the process
    def find_scene(self, student: str, variant: Any) -> Scene:
        """Return the frames of a variant as a student sees them."""
        return build_scene(self.students[student], self.stored, variant)

    def record(self, masks: Masks, chosen: NDArray[np.bool_], logits: Any = None) -> Recording:
        """Return masks of the chosen cases as a recording."""
        cases = [case for case, keep in zip(self.cases, chosen, strict=True) if keep]
        names, groups = (
            tuple(case.name for case in cases),
            tuple(case.group_or_name for case in cases),
        )
        kept = None if logits is None else logits[chosen]
        return Recording("", "", "", names, groups, self.truths[chosen], masks[chosen], kept)

    def judge(self, scene: Scene, masks: Masks, golden: Masks, precision: str) -> dict[str, Any]:
        """Return what golden frames, floor and task gate say, and the loss of Dice on half B."""
        floor = MIN_AGREEMENT[precision]
        result = compare_recordings(
            self.record(scene.masks, self.half_a, scene.logits),
            self.record(masks, self.half_a),
            classes=ClassSpec(),
        )
        dice = [
            score_cases(count_confusions(self.truths[~self.half_a], one[~self.half_a], 2)).dice
            for one in (scene.masks, masks)
        ]
        return {
            "golden": float((golden == scene.golden.masks).mean()) < floor,
            "floor": result.pixel_agreement < floor,
            "task": not result.passed,
            "verdict": result.verdict.overall,
            "groups_needed": result.verdict.groups_needed,
            "pixel_agreement_a": result.pixel_agreement,
            "delta_dice_a": result.differences["dice"].delta,
            "lower_dice_a": result.differences["dice"].lower,
            "delta_dice_b": dice[1] - dice[0],
        }

    def run_fault(self, fault: Fault) -> tuple[dict[str, Any], Masks]:
        """Plant a fault and return its row of the table, and the masks on all cases."""
        scene = self.find_scene("main", fault.variant)
        run, exported = self._plant(fault, scene)
        masks, golden = run(scene.frames), run(scene.golden.frames)
        row = {"name": fault.name, "export": exported} | self.judge(scene, masks, golden, fault.precision)
        return row, masks

    def _plant(self, fault: Fault, scene: Scene) -> tuple[Runner, bool]:
        core = self.students[fault.student].core
        if fault.core is not None:
            core = fault.core(core, self.calibration)
        spec = scene.spec.model_copy(update=fault.spec or {})
        bundle = self.students["main"].bundle
        seen = _is_refused(lambda: check_core_logits(lambda value: run_core(core, value)[0], bundle))
        if fault.tensor is not None:
            tensor = fault.tensor
            seen |= _is_refused(
                lambda: check_preprocessing(
                    lambda frames: tensor(frames[0, ..., 0], scene.spec)[None], scene.spec
                )
            )
            graph = _build_session(core)

            def segment(frames: Sequence[NDArray[Any]]) -> Masks:
                tensors = np.stack([tensor(frame, scene.spec) for frame in frames])
                return _pick_masks(graph.run(None, {"image": tensors})[0])
        else:
            preprocess = _build_session(build_preprocess_graph(spec))
            seen |= _is_refused(
                lambda: check_preprocessing(
                    lambda frames: preprocess.run(None, {"frame": frames})[0], scene.spec
                )
            )
            deploy = _run_deploy(build_deploy_graph(core, spec), spec)

            def segment(frames: Sequence[NDArray[Any]]) -> Masks:
                return deploy(frames)

        def run(frames: Sequence[NDArray[Any]]) -> Masks:
            shown = [np.ascontiguousarray(fault.frame(one)) for one in frames] if fault.frame else frames
            masks = segment(shown)
            return masks if fault.masks is None else fault.masks(masks)

        return run, seen

    def list_faithful(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield name and row of every faithful export: students, frames, engines, threads, optimisation."""
        for name, student in self.students.items():
            for variant in ("gray8", "tinted", "gray16") if name == "main" else ("gray8",):
                scene = self.find_scene(name, variant)
                for label, run in _list_engines(student, scene, variant):
                    row = self.judge(scene, run(scene.frames), run(scene.golden.frames), "fp32")
                    yield f"{name}, {variant}, {label}", row


def _list_engines(student: Student, scene: Scene, variant: str) -> Iterator[tuple[str, Runner]]:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    names = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
    graph = build_deploy_graph(student.core, scene.spec)
    for name, threads in itertools.product(names, (1, 2, 3, 4)):
        yield (
            f"ONNX Runtime {name}, {threads} threads",
            _run_deploy(graph, scene.spec, getattr(levels, name), threads),
        )
    if variant != "gray16":  # the build reads 8-bit frames
        for target, threads in itertools.product(("onnx", "openvino"), (1, 2, 4)):
            yield f"{target} build, {threads} threads", functools.partial(_segment, student, target, threads)
    for batch in (1, 5, 32):
        yield f"core graph, batches of {batch}", functools.partial(_run_batches, student, scene.spec, batch)


def _segment(student: Student, target: str, threads: int, frames: Sequence[NDArray[Any]]) -> Masks:
    with load(student.bundle, target, threads=threads) as segmenter:
        return np.concatenate([segmenter.segment([frame]) for frame in frames])


def _run_batches(student: Student, spec: Any, batch: int, frames: Sequence[NDArray[Any]]) -> Masks:
    from edgekd.preprocess import preprocess_frames

    tensors, session = preprocess_frames(frames, spec), _build_session(student.core)
    parts = [tensors[start : start + batch] for start in range(0, len(tensors), batch)]
    return np.concatenate([_pick_masks(session.run(None, {"image": part})[0]) for part in parts])


def _run_deploy(graph: Any, spec: Any, level: Any = None, threads: int = 1) -> Runner:
    session, packer = _build_session(graph, level, threads), FramePacker(spec)

    def run(frames: Sequence[NDArray[Any]]) -> Masks:
        batches = (packer.pack([one])[0] for one in frames)
        return np.concatenate([session.run(None, {"frame": batch.pixels})[0] for batch in batches])

    return run


def _build_session(graph: Any, level: Any = None, threads: int = 1) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # Optimised, a pair of casts or of quantisers that is the fault might vanish.
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL if level is None else level
    )
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, ["CPUExecutionProvider"])


def _pick_masks(logits: NDArray[np.float32]) -> Masks:
    return (logits[:, 1] > logits[:, 0]).astype(np.uint8)


def _is_refused(check: Callable[[], float]) -> bool:
    try:
        check()
    except GateFailure:
        return True
    return False


def _falls_into_a(case: Case) -> bool:
    return hashlib.sha256(f"half:{case.group_or_name}".encode()).digest()[0] % 2 == 0


def run_bench(data: Path, work: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the results as JSON values, and by fault the case sums that ``gate_power`` simulates with."""
    begin = time.monotonic()
    bench = Bench(data, work)
    scene = bench.find_scene("main", "gray8")
    sums = {"reference": summarise_cases(count_confusions(bench.truths, scene.masks, 2))}
    rows: dict[str, list[dict[str, Any]]] = {"faults": [], "int8": []}
    for kind, faults in (("faults", list_faults()), ("int8", list_sound_int8())):
        for fault in faults:
            row, masks = bench.run_fault(fault)
            rows[kind].append(row)
            sums[fault.name] = summarise_cases(count_confusions(bench.truths, masks, 2))
            typer.echo(f"{row['verdict']:13} {row['delta_dice_b']:+.4f} {fault.name}")
    faithful = [{"name": name, **row} for name, row in bench.list_faithful()]
    groups = [case.group_or_name for case in bench.cases]
    halves = {
        half: {
            "images": int(chosen.sum()),
            "groups": len({group for group, keep in zip(groups, chosen, strict=True) if keep}),
        }
        for half, chosen in (("A", bench.half_a), ("B", ~bench.half_a))
    }
    results = {
        "halves": halves,
        "student": score_cases(count_confusions(bench.truths, scene.masks, 2)).to_dict(),
        "margins": dict(DEFAULT_MARGINS),
        "summary": summarise_rows(rows["faults"], faithful),
        **rows,
        "faithful": faithful,
        "seconds": round(time.monotonic() - begin),
        "environment": describe_environment(),
    }
    return replace_non_finite(results), {**sums, "groups": np.array(groups)}


def summarise_rows(faults: Sequence[dict[str, Any]], faithful: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the answers to the questions of the bench."""
    twice = 2 * DEFAULT_MARGINS["dice"]
    heavy = [row for row in faults if -row["delta_dice_b"] > twice]
    return {
        "faults": len(faults),
        "caught_by": {check: sum(bool(row[check]) for row in faults) for check in CHECKS},
        "caught_by_none": [row["name"] for row in faults if not any(row[check] for check in CHECKS)],
        "caught_by_parity_alone": sum(row["floor"] or row["task"] for row in faults),
        "lose_more_than_twice_the_margin": len(heavy),
        "of_these_missed_by_task": [row["name"] for row in heavy if not row["task"]],
        "faithful": len(faithful),
        "false_alarms": [row["name"] for row in faithful if any(row.get(check) for check in CHECKS)],
        "faithful_with_other_pixels": sum(row["pixel_agreement_a"] < 1 for row in faithful),
    }


def format_results(results: dict[str, Any]) -> str:
    """Return the table fault by check as Markdown."""
    summary, halves = results["summary"], results["halves"]
    head = ("Fault", *CHECKS, "verdict of the task", "ΔDice, half A", "lower bound", "ΔDice, half B")
    lines = [
        "# Fault bench",
        "",
        f"{summary['faults']} planted faults, {summary['faithful']} faithful exports; half A "
        f"{halves['A']['images']} images in {halves['A']['groups']} groups, "
        f"half B {halves['B']['images']} in "
        f"{halves['B']['groups']}; student's Dice {results['student']['dice']:.4f}.",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in summary.items()),
    ]
    for title, key in (("Faults", "faults"), ("int8 as it should be, no fault", "int8")):
        lines += ["", f"## {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        lines += [_format_row(row) for row in sorted(results[key], key=lambda row: row["delta_dice_b"])]
    return "\n".join(lines) + "\n"


def _format_row(row: dict[str, Any]) -> str:
    marks = ["caught" if row[check] else "–" for check in CHECKS]
    figures = ["–" if row[key] is None else f"{row[key]:+.4f}" for key in _FIGURES]
    return "| " + " | ".join([row["name"], *marks, row["verdict"], *figures]) + " |"


_FIGURES = ("delta_dice_a", "lower_dice_a", "delta_dice_b")


def main(
    data: Path,
    work: Annotated[Path, typer.Option(help="Folder of the trained students.")],
    out: Annotated[Path, typer.Option(help="Folder for fault_bench.json and fault_bench.md.")],
) -> None:
    """Run the bench and write its tables; case sums for gate_power go to WORK/case_sums.npz."""
    results, sums = run_bench(data, work)
    np.savez_compressed(work / "case_sums.npz", **sums)  # pyright: ignore[reportArgumentType]
    write_text_atomic(out / "fault_bench.json", format_json(results))
    write_text_atomic(out / "fault_bench.md", format_results(results))
    typer.echo(format_results(results))


if __name__ == "__main__":
    typer.run(main)
