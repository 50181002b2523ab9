"""The tables of an experiment as Markdown, and its gains as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgekd.atomic import write_json_atomic, write_text_atomic
from edgekd.benchmarks.suites.distillation.chart import draw_gains
from edgekd.benchmarks.suites.distillation.gains import Gain, adjust_holm, describe_scope, estimate_gains
from edgekd.benchmarks.suites.distillation.results import Results, average
from edgekd.metrics import METRICS
from edgekd.tables import Table, format_count, format_markdown

PICTURE = "gains.png"
SPLITS = {"val": "validation", "test": "test"}
NONE = "–"
NAMES = {"acc": "Acc", "miou": "mIoU", "dice": "Dice", "kappa": "kappa"}
# Percentage points of Liu et al. 2023 (doi 10.1007/978-3-031-51455-5_21), mean over its sets and structures.
PAPER = {"acc": 0.18, "miou": 1.25, "dice": 1.62, "kappa": 0.79}
LONGER_LIMIT = 0.3  # points of validation Dice that twice the steps may add before the budget is too short


def write_report(results: Results, out: Path) -> str:
    """Write ``report.md``, ``gains.json`` and, of one method, ``gains.png`` to ``out``; return the Markdown.

    A plan of several methods, an ablation, is reported on the validation split alone: a method chosen by the
    test split would have none left to be judged by.
    """
    is_ablation = len(results.plan.methods) > 1
    parts = ["# Does distillation help?\n", _describe_experiment(results)]
    text, gains = _report_methods(results) if is_ablation else _report_test(results, out)
    parts += [*text, format_markdown(_build_scores(results, "val" if is_ablation else "test"))]
    if is_ablation:
        # Of an earlier report, whose picture showed the test split.
        (out / PICTURE).unlink(missing_ok=True)
    longer = results.list_longer_pairs()
    if longer:
        gain = estimate_gains(longer)
        gains["twice the steps, validation"] = _to_dict(gain)
        parts.append(_describe_longer(gain["dice"]))
    if results.missing:
        parts.append(f"Not run yet: {', '.join(results.missing)}.\n")
    whole = "\n".join(parts)
    write_text_atomic(out / "report.md", whole)
    write_json_atomic(out / "gains.json", gains)
    return whole


def describe_verdict(total: Mapping[str, Gain]) -> str:
    """Return in a sentence whether distillation helped, by the interval of the Dice gain."""
    dice = total["dice"]
    size = (
        f"Dice {100 * dice.delta:+.2f} points (95 % interval {100 * dice.low:+.2f} to {100 * dice.high:+.2f})"
    )
    if dice.low > 0:
        return f"Distillation helped: {size}."
    if dice.high < 0:
        return f"Distillation did harm: {size}."
    return f"Distillation is not shown to help: {size}."


def _describe_experiment(results: Results) -> str:
    plan = results.plan
    machines = dict.fromkeys(_describe_machine(content["environment"]) for content in results.cells.values())
    masks = (
        ""
        if plan.mask_part == 1
        else f" with the masks of {plan.mask_part:.0%} of the training groups, by hash"
    )
    return (
        f"Sets {', '.join(plan.sets)}{masks}; seeds {', '.join(map(str, plan.seeds))}; "
        f"common choices `{json.dumps(plan.common)}`, teacher `{json.dumps(plan.teacher)}`, "
        f"students `{json.dumps(plan.distill)}`; everything else is the default. "
        f"Run on {'; '.join(machines)}. "
        "Student and control share initial weights, order of the data, augmentation, steps and learning "
        "rates. Gains are student − control in percentage points with a 95 % interval over cases and, of "
        "what has several, seeds.\n"
    )


def _describe_machine(environment: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in environment["libraries"].items())
    processor = environment.get("processor", environment["machine"])
    return f"{environment['cores']} cores ({processor}), Python {environment['python']}, {libraries}"


def _report_test(results: Results, out: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the text and the gains of the one method on the test split, and draw them."""
    pairs = results.list_pairs(results.plan.base_method, "test")
    if not pairs:
        return [], {}
    total, rows = estimate_gains(pairs), _estimate_rows(results)
    named = {**{f"{s}, {n}": gain for (s, n), gain in rows.items()}, "mean": total}
    draw_gains(out / PICTURE, named)
    parts = [
        f"**{describe_verdict(total)}**\n",
        format_markdown(_build_table(results, rows, total)),
        _describe_single_seeds(named),
        f"![gains]({PICTURE})\n",
    ]
    return parts, {"mean": _to_dict(total)} | {label: _to_dict(gain) for label, gain in named.items()}


def _report_methods(results: Results) -> tuple[list[str], dict[str, Any]]:
    """Return the text and the gains of several methods on the validation split."""
    methods, beside = _estimate_methods(results), _compare_with_base(results)
    gains = {
        "methods, validation": {name: _to_dict(gain) for name, gain in methods.items()},
        "methods, p of Dice (Holm)": _adjust_p_values(results, methods),
        f"methods beside {results.plan.base_method}, validation": {
            name: _to_dict(gain) for name, gain in beside.items()
        },
    }
    table = _build_ablation(results, methods, beside)
    return [format_markdown(table), _describe_single_seeds(methods)], gains


def _estimate_rows(results: Results) -> dict[tuple[str, str], dict[str, Gain]]:
    pairs = results.list_pairs(results.plan.base_method, "test")
    keys = dict.fromkeys((pair.set, pair.student) for pair in pairs)
    return {key: estimate_gains([pair for pair in pairs if (pair.set, pair.student) == key]) for key in keys}


def _build_table(
    results: Results, rows: Mapping[tuple[str, str], Mapping[str, Gain]], total: Mapping[str, Gain]
) -> Table:
    lines = [
        (set_name, student, *(_format_gain(gain[metric]) for metric in METRICS))
        for (set_name, student), gain in rows.items()
    ]
    lines.append(("mean", "", *(_format_gain(total[metric]) for metric in METRICS)))
    lines.append(("Liu et al. 2023", "", *(f"{PAPER[metric]:+.2f}" for metric in METRICS)))
    return Table("Gain on the test split", ("set", "student", *NAMES.values()), tuple(lines))


def _build_scores(results: Results, split: str) -> Table:
    rows: list[tuple[str, ...]] = []
    for set_name in results.plan.sets:
        teachers = results.find_network(set_name, "teacher")
        rows.append(_format_network(set_name, "teacher", teachers, split))
        for student in results.plan.students:
            for role in ("control", "student"):
                runs = results.find_network(set_name, role, student.label)
                rows.append(_format_network(set_name, f"{role} {student.label}", runs, split))
    beside = ("Dice on val",) if split == "test" else ()
    columns = ("set", "network", *NAMES.values(), *beside, "parameters", "MACs", "runs")
    title = f"Scores on the {SPLITS[split]} split, mean over seeds, percent"
    return Table(title, columns, tuple(rows))


def _format_network(
    set_name: str, label: str, runs: Sequence[Mapping[str, Any]], split: str
) -> tuple[str, ...]:
    scores = [_format_percent(average(runs, split, metric)) for metric in METRICS]
    beside = (_format_percent(average(runs, "val", "dice")),) if split == "test" else ()
    model = runs[0]["model"] if runs else {"parameters": None, "macs": None}
    size = (format_count(model["parameters"]), format_count(model["macs"]))
    return (set_name, label, *scores, *beside, *size, str(len(runs)))


def _estimate_methods(results: Results) -> dict[str, dict[str, Gain]]:
    """Return the gains of each method with any finished run, without a p-value where runs are missing."""
    estimated: dict[str, dict[str, Gain]] = {}
    for method in results.plan.methods:
        pairs = results.list_pairs(method, "val")
        if pairs:
            gains = estimate_gains(pairs)
            is_complete = len(pairs) == results.plan.num_runs
            estimated[method] = gains if is_complete else _drop_p_values(gains)
    return estimated


def _drop_p_values(gains: Mapping[str, Gain]) -> dict[str, Gain]:
    return {metric: replace(gain, p_value=None) for metric, gain in gains.items()}


def _adjust_p_values(results: Results, methods: Mapping[str, Mapping[str, Gain]]) -> dict[str, float]:
    """Return the p-value of Dice of each finished method, adjusted for every method of the plan."""
    known = {name: gain["dice"].p_value for name, gain in methods.items()}
    finished = {name: value for name, value in known.items() if value is not None}
    return adjust_holm(finished, len(results.plan.methods))


def _build_ablation(
    results: Results,
    methods: Mapping[str, Mapping[str, Gain]],
    beside: Mapping[str, Mapping[str, Gain]],
) -> Table:
    adjusted = _adjust_p_values(results, methods)
    begun = sorted(methods, key=lambda name: -methods[name]["dice"].delta)
    waiting = [name for name in results.plan.methods if name not in methods]
    rows = tuple(
        (
            name,
            json.dumps(results.plan.methods[name]),
            *(_format_gain(methods[name][metric]) if name in methods else NONE for metric in METRICS),
            _format_gain(beside[name]["dice"]) if name in beside else NONE,
            f"{len(results.list_pairs(name, 'val'))} of {results.plan.num_runs}",
            f"{adjusted[name]:.3f}" if name in adjusted else NONE,
        )
        for name in (*begun, *waiting)
    )
    compared = f"Dice − {results.plan.base_method}'s, same runs"
    columns = ("method", "changes", *NAMES.values(), compared, "runs", "p of Dice (Holm)")
    return Table("Methods on the validation split, gain over the control", columns, rows)


def _compare_with_base(results: Results) -> dict[str, dict[str, Gain]]:
    """Return the scores of each method's students minus the first method's, of the runs that both have."""
    plan = results.plan
    pairs = {name: results.list_pairs(name, "val", "student") for name in plan.methods}
    return {name: estimate_gains(runs) for name, runs in pairs.items() if runs and name != plan.base_method}


def _describe_single_seeds(gains: Mapping[str, Mapping[str, Gain]]) -> str:
    """Return lines for the gains whose intervals do not hold for other seeds, "" where all do."""
    single = [label for label, gain in gains.items() if gain["dice"].most_seeds == 1]
    mixed = [label for label, gain in gains.items() if gain["dice"].num_seeds == 1 < gain["dice"].most_seeds]
    lines = []
    if single:
        lines.append(f"One seed only, so that the interval is about cases alone: {'; '.join(single)}.\n")
    if mixed:
        lines.append(f"One seed of a set and student, where it is about cases alone: {'; '.join(mixed)}.\n")
    return "\n".join(lines)


def _describe_longer(dice: Gain) -> str:
    enough = "long enough" if 100 * dice.delta < LONGER_LIMIT else "too short"
    return (
        f"Twice the steps change the control's validation Dice by {_format_gain(dice)} points "
        f"(interval over {describe_scope([dice])}): "
        f"by the limit of {LONGER_LIMIT} the budget is {enough}.\n"
    )


def _format_gain(gain: Gain) -> str:
    return f"{100 * gain.delta:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"


def _format_percent(value: float) -> str:
    return NONE if math.isnan(value) else f"{100 * value:.2f}"


def _to_dict(gains: Mapping[str, Gain]) -> dict[str, Any]:
    return {metric: asdict(gain) for metric, gain in gains.items()}
