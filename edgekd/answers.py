"""Results of the rooms as answers for people and machines; nothing is measured or decided here.

Only what a verb has loaded already is imported: every other import is for types alone.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekd.answer_tables import (
    build_builds_table,
    build_networks_table,
    build_score_table,
    list_class_tables,
)
from edgekd.console import INTERRUPTED, Answer
from edgekd.errors import UsageError
from edgekd.tables import Table, format_count

if TYPE_CHECKING:
    from edgekd.benchmarks import (
        AcceptanceReport,
        CertificateCheck,
        Comparison,
        ParityReport,
        PredictionReport,
    )
    from edgekd.bundle import Build, Bundle
    from edgekd.data import CheckReport
    from edgekd.distill import DistillResult, EvaluationResult, NetworkResult, TrainResult
    from edgekd.doctor import Capability
    from edgekd.models import NetworkFacts


def show_data_check(report: CheckReport) -> Answer:
    """Return the findings, faults first; exit code 1 where there is a fault."""
    from edgekd.data import tables

    shown = [tables.build_facts_table(report.summary), tables.build_splits_table(report.summary)]
    if report.findings:
        shown.append(tables.build_findings_table(report.findings))
    verdict = tables.format_verdict(report.findings)
    return Answer(report.to_dict(), shown, [verdict], exit_code=int(report.has_faults))


def show_models(networks: Sequence[NetworkFacts], image_size: int) -> Answer:
    """Return the catalogue with parameters and MACs."""
    rows = tuple(
        (one.name, one.role, format_count(one.parameters), _format_macs(one), one.note) for one in networks
    )
    columns = ("Network", "Role", "Parameters", "MACs", "What it is")
    table = Table(f"Networks, grey images of {image_size}×{image_size}", columns, rows)
    return Answer({"image_size": image_size, "networks": [one._asdict() for one in networks]}, [table])


def _format_macs(network: NetworkFacts) -> str:
    return "–" if network.macs is None else format_count(network.macs)


def show_training(result: TrainResult) -> Answer:
    """Return the scores of the trained network."""
    table = build_score_table({"untrained": result.record.untrained_test, "trained": result.model.test})
    data = {"run": result.out, **result.record.model_dump(mode="json")}
    tables = [table, *list_class_tables(result.model.test_classes)]
    return Answer(data, tables, [f"the run is in {result.out}"])


def show_distillation(result: DistillResult) -> Answer:
    """Return the scores of teacher, control and student, what was gained, and where the bundle is."""
    from edgekd.distill import describe_gain

    data = {"run": result.out, "bundle": result.bundle, **result.record.model_dump(mode="json")}
    lines = [
        *([] if result.record.gain is None else [describe_gain(result.record.gain)]),
        f"bundle: {result.bundle}",
        f"next: edgekd export {shlex.quote(str(result.bundle))} --target onnx --target openvino",
    ]
    tables = [build_networks_table(list_networks(result))]
    tables += list_class_tables(result.student.test_classes, "Classes of the student, test split")
    return Answer(data, tables, lines)


def show_scores(result: EvaluationResult) -> Answer:
    """Return the scores of one network on one split."""
    tables = [build_score_table({f"{result.model.name} on {result.split}": result.scores.to_dict()})]
    classes = [one.to_dict() for one in result.class_scores]
    tables += list_class_tables(classes)
    data = {
        "model": result.model.model_dump(mode="json"),
        "split": result.split,
        "scores": result.scores.to_dict(),
        "class_scores": classes,
        "data_sha256": result.data_sha256,
        "cases_learned_from": result.cases_learned_from,
        "recording": result.recording,
    }
    lines = [] if result.recording is None else [f"recorded in {result.recording}"]
    return Answer(data, tables, lines)


def show_builds(bundle: Bundle, builds: Sequence[Build]) -> Answer:
    """Return what was built, in which precision, and whether it was run."""
    tables = [build_builds_table(bundle, builds)]
    notices = [f"{one.name}: {text}" for one in builds for text in one.record.facts.get("notices", ())]
    data = {
        "bundle": bundle.path,
        "builds": [
            {"name": one.name, "path": one.path, **one.record.model_dump(mode="json")} for one in builds
        ],
    }
    return Answer(data, tables, notices)


def show_parity(report: ParityReport) -> Answer:
    """Return verdict and differences of each build; exit code 1 unless every one passed."""
    from edgekd.benchmarks import tables
    from edgekd.benchmarks.report_verdict import describe_blind_spot

    content = report.to_dict()
    shown = [tables.build_parity_table(content)]
    builders = (tables.build_difference_table, tables.build_class_table, tables.build_change_table)
    shown += [table for table in (build(content) for build in builders) if table.rows]
    if report.skipped:
        shown.append(tables.build_skipped_table(content))
    lines = [f"{one.candidate}: {text}" for one in report.results for text in one.reasons]
    lines += content["doubts"]
    lines += [*(describe_blind_spot(content) if report.passed else ()), describe_verdict(report)]
    return Answer(content, shown, lines, exit_code=int(not report.passed))


def show_certificate(check: CertificateCheck) -> Answer:
    """Return what changed since a certificate was issued; exit code 1 where anything did."""
    builds = ", ".join(check.builds)
    verdict = f"the certificate holds for {builds}" if check.holds else f"the certificate of {builds} is void"
    return Answer(check.to_dict(), lines=[*check.changes, verdict], exit_code=int(not check.holds))


def describe_verdict(report: ParityReport) -> str:
    """Return the verdict in a line; golden frames alone never show more than agreement."""
    if report.data is None:
        found = {result.conclusion for result in report.results}
        if "inconclusive" in found and "inconsistent" not in found:
            return "inconclusive: the student marks next to nothing on the golden frames"
        return f"{'consistent' if report.passed else 'inconsistent'} with the golden frames"
    return "parity passed" if report.passed else "parity did not pass"


def show_acceptance(report: AcceptanceReport) -> Answer:
    """Return verdict, latencies and every reason to doubt them; 1 where the gate said no."""
    from edgekd.benchmarks import latency_tables, tables

    content, measured = report.to_dict(), report.benchmark
    shown = [] if report.parity is None else [tables.build_parity_table(report.parity.to_dict())]
    shown += latency_tables.list_latency_tables(content)
    if measured.skipped:
        shown.append(tables.build_skipped_table(content))
    doubts = [f"{name}: {text}" for name, result in measured.results for text in result.warnings]
    gate = content["gate"]
    missing = latency_tables.describe_missing_energy(content)
    facts = [f"frames timed: {measured.frames}", *([missing] if missing else [])]
    lines = [*facts, *doubts, f"gate: {gate['note']}", gate["verdict"]]
    exit_code = INTERRUPTED if report.interrupted else int(not report.passed)
    return Answer(content, shown, lines, exit_code)


def show_comparison(comparison: Comparison) -> Answer:
    """Return the reports side by side and what changed between them; exit code 1 where one is worse."""
    lines = [*comparison.warnings, comparison.verdict]
    return Answer(comparison.to_dict(), comparison.list_tables(), lines, int(not comparison.passed))


def show_predictions(report: PredictionReport) -> Answer:
    """Return how many masks were written, by which engine, where; exit code 2 where images were left out."""
    lines = [one["reason"] for one in report.failed]
    count = len(report.cases)
    made = "1 mask and overlay" if count == 1 else f"{count} masks and overlays"
    lines.append(
        f"{made} by {report.engine} in {report.out}; masks hold class ids, which viewers show as black"
    )
    if report.failed:
        lines.append(f"left out: {len(report.failed)} of the images, for the reasons above")
    if report.interrupted:
        lines.append("interrupted before the last image")
    code = INTERRUPTED if report.interrupted else UsageError.exit_code if report.failed else 0
    return Answer(report.to_dict(), lines=lines, exit_code=code)


def show_bundle(bundle: Bundle, builds: Sequence[Build]) -> Answer:
    """Return what a bundle holds; the caller has checked every hash."""
    from edgekd.bundle import format_export

    manifest = bundle.manifest
    spec, model = manifest.preprocess, manifest.model
    cost = f"{format_count(model.parameters)} parameters, {format_count(model.macs)} MACs"
    facts = (
        ("name", manifest.name),
        (
            "created",
            f"{manifest.created} by EdgeKD {manifest.edgekd_version}, schema {manifest.schema_version}",
        ),
        ("manifest sha256", bundle.manifest_sha256),
        ("network", f"{model.name}, {cost}"),
        ("classes", ", ".join(manifest.classes.names)),
        ("input", f"{spec.color} {spec.height}×{spec.width} from {spec.frame_dtype} frames"),
        ("preprocessing", f"hash {spec.compute_hash()[:16]}…, antialias {'on' if spec.antialias else 'off'}"),
    )
    tables = [Table(str(bundle.path), ("Fact", "Value"), facts)]
    tables.append(build_score_table({split: scores for split, scores in manifest.metrics.items() if scores}))
    lines = ["every hash agrees"]
    if builds:
        tables.append(build_builds_table(bundle, builds))
    else:
        lines.append(f"no build yet: {format_export(bundle.path, 'onnx')}")
    data = {
        "path": bundle.path,
        "manifest_sha256": bundle.manifest_sha256,
        "manifest": manifest.model_dump(mode="json"),
        "builds": [{"name": one.name, **one.record.model_dump(mode="json")} for one in builds],
    }
    return Answer(data, tables, lines)


def show_doctor(capabilities: Sequence[Capability]) -> Answer:
    """Return the table of what this machine can run."""
    rows = tuple(
        (one.name, "yes" if one.available else "no", one.serves, one.detail, one.remedy or "")
        for one in capabilities
    )
    table = Table("This machine", ("What", "Here", "Serves", "Detail", "To add it"), rows)
    return Answer({"capabilities": [one.to_dict() for one in capabilities]}, [table])


def list_networks(result: DistillResult) -> dict[str, NetworkResult]:
    """Return the networks of a run by role, the control only where it was trained."""
    roles = {**result.teachers, "control": result.control, "student": result.student}
    return {role: network for role, network in roles.items() if network is not None}
