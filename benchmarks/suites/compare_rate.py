"""How often `edgekd compare` marks a release against itself, and whether it marks planted losses.

    python -m edgekd.benchmarks.suites.compare_rate BUNDLE --target onnx --repeats 20 --out FILE.json

Every repeat is a process of its own, as two releases would be measured. On the scripted engine nothing may be
marked; on a real engine the rate says what the machine's own drift does to a comparison.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.benchmarks import compare_reports, describe_environment
from edgekd.benchmarks.result_files import read_result, write_result

DROP, SLOWDOWN = 0.01, 1.20


def measure_release(bundle: Path, target: str, out: Path) -> Path:
    """Measure one target in a process of its own and return the result folder."""
    command = [sys.executable, "-m", "edgekd", "benchmark", str(bundle), "--target", target, "--no-gate"]
    options = ["--scenario", "single-stream", "--threads", "1", "--quiet", "--out", str(out)]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return out


def count_marks(bundle: Path, target: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Compare ``repeats`` measurements of one release, each with the one before it."""
    runs = [measure_release(bundle, target, folder / f"{target}-{index}") for index in range(repeats + 1)]
    pairs: list[dict[str, Any]] = []
    for before, after in itertools.pairwise(runs):
        comparison = compare_reports([before, after])
        ratios = {row["quantity"]: row["ratios"][1] for row in comparison.rows}
        marks = [row["quantity"] for row in comparison.rows if row["verdicts"][1] == "worse"]
        pairs.append({"p50_ratio": ratios["p50"], "marked": marks})
    marked = sum(bool(pair["marked"]) for pair in pairs)
    return {"target": target, "repeats": repeats, "marked": marked, "pairs": pairs}


def check_planted(bundle: Path, target: str, folder: Path) -> dict[str, Any]:
    """Plant a loss of Dice and a slowdown into a copy of a measurement and return what is marked."""
    before = measure_release(bundle, target, folder / f"{target}-release-1")
    _, content = read_result(before / "benchmark.json")
    after = folder / f"{target}-release-2"
    after.mkdir()
    for result in content["results"]:
        result["samples_ns"] = [round(SLOWDOWN * sample) for sample in result["samples_ns"]]
        known = {name: value for name, value in result["percentiles_ms"].items() if value is not None}
        result["percentiles_ms"] |= {name: SLOWDOWN * value for name, value in known.items()}
    write_result(after, "benchmark", content)
    for place, dice in ((before, 0.75), (after, 0.75 - DROP)):
        scores = {"acc": 0.98, "miou": 0.85, "dice": dice, "kappa": 0.84}
        judged = {"candidate": target, "kind": "data", "passed": True, "pixel_agreement": 1.0}
        judged |= {"candidate_scores": scores, "differences": {name: {"delta": 0.0} for name in scores}}
        facts = {key: content[key] for key in ("manifest_sha256", "environment")}
        write_result(place, "parity", {**facts, "data": "one", "results": [judged]})
    comparison = compare_reports([before, after])
    marks = [row["quantity"] for row in comparison.rows if row["verdicts"][1] == "worse"]
    return {"target": target, "marked": marks, "passed": {"p50", "Dice"} <= set(marks)}


def main(
    bundle: Path,
    target: Annotated[list[str] | None, typer.Option(help="Real engines.")] = None,
    repeats: Annotated[int, typer.Option(min=1)] = 20,
    out: Annotated[Path | None, typer.Option(help="JSON file.")] = None,
) -> None:
    """Count marks and exit 1 where the scripted engine has one, or a planted loss has none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted = check_planted(bundle, "scripted", folder)
        rates = [count_marks(bundle, one, repeats, folder) for one in ["scripted", *(target or ["onnx"])]]
    report = {"planted": planted, "same_release": rates, "environment": describe_environment()}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(f"planted on {planted['target']}: marked {planted['marked']}")
    for one in rates:
        typer.echo(f"same release on {one['target']}: {one['marked']} of {one['repeats']} marked")
    raise typer.Exit(int(not planted["passed"] or rates[0]["marked"] > 0))


if __name__ == "__main__":
    typer.run(main)
