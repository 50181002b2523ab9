"""The whole way once, on synthetic ultrasound: distil, export, parity, benchmark, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.answer_tables import SCORE_COLUMNS, format_scores
from edgekd.answers import describe_verdict, list_networks
from edgekd.atomic import check_output_is_new
from edgekd.benchmarks import (
    BenchmarkReport,
    ParityReport,
    ScenarioConfig,
    run_acceptance,
    run_parity,
    write_report,
)
from edgekd.bundle import Build, Bundle
from edgekd.config import DistillConfig
from edgekd.config_reader import build_config
from edgekd.console import Answer, print_notice
from edgekd.data import write_phantom
from edgekd.export import export_bundle
from edgekd.tables import Table, format_bytes, format_count, format_ms

if TYPE_CHECKING:
    from edgekd.distill import DistillResult

NUM_FRAMES = 320
TARGETS = ("onnx", "openvino", "tensorrt")
# A short run for two cores without bf16: small images, the half-width teacher, few epochs and therefore high
# learning rates, no mixtures, which would double phase 2. A quarter of the frames are kept for the test, so
# that parity has the 20 groups it needs.
CHOICES: dict[str, Any] = {
    "image_size": 96,
    "teacher": "unet-wide-s",
    "student": "unet-narrow-xs",
    "batch_size": 4,
    "epochs": 12,
    "distill_epochs": 8,
    "teacher_lr": 3e-3,
    "lr": 1e-2,
    "mix": False,
    "split": {"fractions": (0.6, 0.15, 0.25)},
}


def run_demo(out: Path, *, seed: int, quiet: bool = False) -> Answer:
    """Run the main job from synthetic frames to ``out/report.html`` and return its table.

    Writes ``data/``, ``run/`` (with the bundle), ``parity/``, ``latency/`` and ``report.html``.

    Raises:
        UsageError: ``out`` exists or cannot be written.
        MachineError: a package of the extra ``all`` is missing.
    """
    from edgekd.distill import distill

    check_output_is_new(out)
    print_notice(f"1/5 writing {NUM_FRAMES} synthetic frames to {out / 'data'}", quiet=quiet)
    write_phantom(out / "data", NUM_FRAMES, seed, quiet=quiet)
    print_notice("2/5 training teacher and student, then distilling; the control beside it", quiet=quiet)
    config = build_config(DistillConfig, {**CHOICES, "seed": seed})
    result = distill(config, out / "data", out / "run", control=True, quiet=quiet)
    print_notice(f"3/5 exporting to {', '.join(TARGETS)}", quiet=quiet)
    bundle = Bundle.open(result.bundle)
    builds = export_bundle(bundle, TARGETS, quiet=quiet)
    print_notice("4/5 parity of every engine on the test split", quiet=quiet)
    parity = run_parity(bundle, data=out / "data", out=out / "parity", seed=seed, quiet=quiet)
    print_notice("5/5 latency of every engine", quiet=quiet)
    paced = ScenarioConfig(("single-stream", "paced"))
    latency = run_acceptance(bundle, scenarios=paced, gate=False, out=out / "latency", quiet=quiet).benchmark
    report = _write_demo_report(out, result, parity, latency)
    return _show_demo(result, builds, parity, latency, report)


def _write_demo_report(
    out: Path, result: DistillResult, parity: ParityReport, latency: BenchmarkReport
) -> Path:
    return write_report(
        out,
        title="EdgeKD demo: distilled on synthetic ultrasound",
        models=_list_models(result),
        parity=parity.to_dict(),
        latency=latency.to_dict(),
        overlays=parity.overlays,
        legend=parity.legend,
        environment=latency.environment,
        commands=[f"edgekd demo --out NEW_FOLDER --seed {result.record.config['seed']}"],
    )


def _list_models(result: DistillResult) -> list[Mapping[str, Any]]:
    return [
        {
            "name": f"{role} ({network.model.name})",
            **network.test,
            "parameters": network.model.parameters,
            "macs": network.model.macs,
            "size_bytes": (result.out / network.file).stat().st_size,
        }
        for role, network in list_networks(result).items()
    ]


def _show_demo(
    result: DistillResult,
    builds: Sequence[Build],
    parity: ParityReport,
    latency: BenchmarkReport,
    report: Path,
) -> Answer:
    from edgekd.distill import describe_gain

    models = _list_models(result)
    latency_ms = {name: one.percentiles_ms["p50"] for name, one in latency.results}
    targets = [f"{build.record.target} ms" for build in builds]
    columns = (
        "network",
        *SCORE_COLUMNS,
        "parameters",
        "MACs",
        "size",
        *targets,
    )
    rows = tuple(
        (
            row["name"],
            *format_scores(row),
            format_count(row["parameters"]),
            format_count(row["macs"]),
            format_bytes(row["size_bytes"]),
            *(_show_latency(row["name"], build, latency_ms.get(build.name)) for build in builds),
        )
        for row in models
    )
    table = Table("Test split; p50 latency of the student, one frame, end to end", columns, rows)
    data = {
        "networks": models,
        "untrained_student": result.record.untrained_test,
        "gain": result.record.gain,
        "engines": {
            build.name: {"p50_ms": latency_ms.get(build.name), "status": build.record.status}
            for build in builds
        },
        "parity": parity.to_dict(),
        "bundle": result.bundle,
        "report": report,
    }
    untrained = result.record.untrained_test["dice"] or 0.0
    lines = [
        f"an untrained student has Dice {100 * untrained:.1f} %",
        *([] if result.record.gain is None else [describe_gain(result.record.gain)]),
        describe_verdict(parity),
        f"bundle: {result.bundle}",
        f"report: {report}",
    ]
    return Answer(data, [table], lines, exit_code=int(not parity.passed))


def _show_latency(network: str, build: Build, p50_ms: float | None) -> str:
    if not network.startswith("student"):
        return "–"
    return build.record.status if p50_ms is None else format_ms(p50_ms)
