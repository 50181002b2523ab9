"""How often does the gate pass an engine that loses just the margin, and how often one that loses less?

The patients are real: groups of the fault bench's test split with what the student and a faulty engine made
of them. A study draws groups with replacement; each meets the faulty engine with the probability at which the
*expected* loss of one score is exactly the one wanted, and the student itself otherwise. So the true loss is
known for pooled scores too, and the losses are as skewed as real ones.

    python -m edgekd.benchmarks.suites.gate_power WORK/case_sums.npz --out RESULTS
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from edgekd.atomic import write_text_atomic
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.result_files import format_json
from edgekd.bootstrap import paired_bootstrap
from edgekd.metrics import METRICS, score_sums
from edgekd.stats import DEFAULT_MARGINS, decide_non_inferiority

GROUPS = (20, 40, 80, 160)
KINDS = {"dense": 1.0, "half": 2.0, "sparse": 5.0}
"""How many margins of Dice a fault shall lose where every group meets it, so that all, half or a fifth of the
groups meet it when it loses one margin in all."""
CHANGED_PART = 0.9
CELLS = (
    *((kind, "dice", GROUPS) for kind in KINDS),
    *((kind, metric, (20, 40, 80)) for kind in ("half", "sparse") for metric in ("miou", "kappa", "acc")),
)
"""Kind of fault (see `choose_faults`), score and numbers of groups whose error at the margin is measured."""
LOSSES = (0.05, 0.1, 0.25, 0.5, 1.0)
"""True losses of Dice of the power curve, in margins."""
NUM_RESAMPLES = 400
GATE = "gate"
"""The verdict on all four scores, beside those on each of them."""

Sums = NDArray[np.float64]
score = functools.partial(score_sums, num_classes=2)


def choose_faults(sums: dict[str, Any]) -> dict[str, str]:
    """Return the fault of each kind: the one that loses its number of margins or as little more as any.

    All change at least CHANGED_PART of the groups. Of a fault that shows in one patient of 30, most studies
    of 20 see nothing at all; no gate can find it there, so it tells nothing of this one.
    """
    reference = sums["reference"]
    before = score(reference.mean(axis=0))["dice"]
    losses = {
        name: (before - score(values.mean(axis=0))["dice"]) / DEFAULT_MARGINS["dice"]
        for name, values in sums.items()
        if (values != reference).any(axis=1).mean() >= CHANGED_PART
    }
    return {
        kind: min((name for name in losses if losses[name] >= least), key=lambda name: losses[name])
        for kind, least in KINDS.items()
    }


def find_probability(reference: Sums, faulty: Sums, metric: str, loss: float) -> float | None:
    """Return the part of faulty groups at which a score loses ``loss``; None where all together lose less.

    Args:
        reference, faulty: (G, S) float64, sums of each group.
        metric: name of the score.
        loss: above or equal 0, in the score's own unit.
    """
    before = float(score(reference.mean(axis=0))[metric])

    def measure(part: float) -> float:
        return before - float(score(((1 - part) * reference + part * faulty).mean(axis=0))[metric])

    if measure(1.0) < loss:
        return None
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle) < loss else (low, middle)
    return (low + high) / 2


def simulate(
    reference: Sums, faulty: Sums, part: float, count: int, studies: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return how often studies of ``count`` groups end in each decision: of each score, and of the gate."""
    rng = np.random.default_rng(seed)
    parts = {GATE: DEFAULT_MARGINS} | {name: {name: DEFAULT_MARGINS[name]} for name in METRICS}
    decisions = {name: {"pass": 0, "fail": 0, "inconclusive": 0} for name in parts}
    names = [str(index) for index in range(count)]
    for study in range(studies):
        drawn = rng.integers(0, len(reference), count)
        met = rng.random(count) < part
        candidate = np.where(met[:, None], faulty[drawn], reference[drawn])
        differences = paired_bootstrap(
            reference[drawn],
            candidate,
            names,
            score,
            names=METRICS,
            num_resamples=NUM_RESAMPLES,
            seed=study,
        )
        same = bool((candidate == reference[drawn]).all())
        for name, margins in parts.items():
            judged = {key: differences[key] for key in margins}
            decisions[name][decide_non_inferiority(judged, margins, identical=same).overall] += 1
    return {
        name: {key: value / studies for key, value in counts.items()} for name, counts in decisions.items()
    }


def measure_type_one_errors(sums: dict[str, Any], studies: int) -> list[dict[str, Any]]:
    """Return, for each fault, score and number of groups, how often score and gate pass at its margin."""
    rows: list[dict[str, Any]] = []
    faults = choose_faults(sums)
    for kind, metric, counts in CELLS:
        fault = faults[kind]
        part = find_probability(sums["reference"], sums[fault], metric, DEFAULT_MARGINS[metric])
        if part is None:
            continue
        for count in counts:
            found = simulate(sums["reference"], sums[fault], part, count, studies, seed=count)
            rows.append(
                {
                    "kind": kind,
                    "fault": fault,
                    "score": metric,
                    "groups": count,
                    "faulty_part": part,
                    "studies": studies,
                }
                | found[metric]
                | {"gate_pass": found[GATE]["pass"]}
            )
            sys.stderr.write(f"{fault}, {metric}, {count} groups: gate passes {found[GATE]['pass']:.3f}\n")
    return rows


def measure_power(sums: dict[str, Any], studies: int) -> list[dict[str, Any]]:
    """Return how often the whole gate passes, fails or stays open, by true loss of Dice and groups."""
    rows: list[dict[str, Any]] = []
    fault = choose_faults(sums)["dense"]
    for loss in LOSSES:
        part = find_probability(sums["reference"], sums[fault], "dice", loss * DEFAULT_MARGINS["dice"])
        if part is None:
            continue
        for count in GROUPS:
            found = simulate(sums["reference"], sums[fault], part, count, studies, seed=count)
            rows.append({"loss_in_margins": loss, "groups": count, "studies": studies} | found[GATE])
    return rows


def add_up_groups(archive: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return sums of groups (G, S) from sums of cases (N, S)."""
    _, index = np.unique(archive["groups"], return_inverse=True)
    summed: dict[str, NDArray[Any]] = {}
    for name, values in archive.items():
        if name != "groups":
            summed[name] = np.zeros((int(index.max()) + 1, values.shape[1]))
            np.add.at(summed[name], index, values)
    return summed


def format_results(results: dict[str, Any]) -> str:
    """Return both tables as Markdown."""
    lines = [
        "# The gate at its margin",
        "",
        "One score truly loses its margin. So often the whole gate passes (beside: this score alone would):",
    ]
    lines += ["", "| Losses like | Score | " + " | ".join(f"{count} groups" for count in GROUPS) + " |"]
    lines += ["|" + " --- |" * (2 + len(GROUPS))]
    for fault, metric in dict.fromkeys((row["fault"], row["score"]) for row in results["type_one"]):
        rows = [row for row in results["type_one"] if (row["fault"], row["score"]) == (fault, metric)]
        found = {row["groups"]: f"{row['gate_pass']:.1%} ({row['pass']:.1%})" for row in rows}
        lines.append(
            f"| {fault} ({rows[0]['faulty_part']:.0%} of the groups) | {metric} | "
            + " | ".join(found.get(count, "–") for count in GROUPS)
            + " |"
        )
    lines += ["", "The whole gate, by the true loss of Dice in margins (pass / fail / inconclusive):", ""]
    lines += ["| True loss | " + " | ".join(f"{count} groups" for count in GROUPS) + " |"]
    lines += ["|" + " --- |" * (1 + len(GROUPS))]
    for loss in dict.fromkeys(row["loss_in_margins"] for row in results["power"]):
        rows = [row for row in results["power"] if row["loss_in_margins"] == loss]
        cells = [f"{row['pass']:.0%} / {row['fail']:.0%} / {row['inconclusive']:.0%}" for row in rows]
        lines.append(f"| {loss:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(
    case_sums: Path,
    out: Annotated[Path, typer.Option(help="Folder for gate_power.json and gate_power.md.")],
    studies: Annotated[int, typer.Option(min=10, help="Studies for each type-I error.")] = 2000,
    power_studies: Annotated[int, typer.Option(min=10, help="Studies for each point of the curve.")] = 150,
) -> None:
    """Simulate and write both tables."""
    begin = time.monotonic()
    with np.load(case_sums) as archive:
        sums = add_up_groups({name: archive[name] for name in archive.files})
    results: dict[str, Any] = {
        "num_resamples": NUM_RESAMPLES,
        "type_one": measure_type_one_errors(sums, studies),
        "power": measure_power(sums, power_studies),
    }
    results |= {"seconds": round(time.monotonic() - begin), "environment": describe_environment()}
    write_text_atomic(out / "gate_power.json", format_json(results))
    write_text_atomic(out / "gate_power.md", format_results(results))
    typer.echo(format_results(results))


if __name__ == "__main__":
    typer.run(main)
