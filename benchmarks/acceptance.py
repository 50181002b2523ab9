"""Gate and benchmark in one run and one folder: does each engine do what the student did, and how fast is it?

The latencies come first, because they take a known time; the gate on many images may be cut short by Ctrl-C,
and what was measured before it is kept. What the gate needs is looked up before anything is measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edgekd.atomic import check_output_is_new, staged_folder, write_text_atomic
from edgekd.benchmarks import tables
from edgekd.benchmarks.benchmark import BenchmarkReport, run_benchmark
from edgekd.benchmarks.gate import REFERENCE_FILE, run_parity
from edgekd.benchmarks.latency_tables import describe_missing_energy, list_latency_tables
from edgekd.benchmarks.parity import check_same_bundle
from edgekd.benchmarks.parity_report import ParityReport
from edgekd.benchmarks.recording import match_cases
from edgekd.benchmarks.report import write_report
from edgekd.benchmarks.report_verdict import describe_gate
from edgekd.benchmarks.result_files import GATE_FAILED, write_result
from edgekd.benchmarks.scenarios import ScenarioConfig
from edgekd.benchmarks.selection import PROBES
from edgekd.benchmarks.stopping import StopRule
from edgekd.bundle import Bundle, load_recording
from edgekd.errors import EdgeKDError, UsageError
from edgekd.tables import Table, format_markdown

GateMode = Literal["data", "golden", "none"]
PARITY_FOLDER = "parity"


@dataclasses.dataclass(frozen=True)
class AcceptanceReport:
    """Both answers of one run.

    Attributes:
        benchmark: the latencies.
        parity: the gate's report, None where it was not run or did not end.
        gate_note: what the gate was or why there is none, in words.
        gate_fault: the error that ended the gate.
    """

    benchmark: BenchmarkReport
    parity: ParityReport | None
    gate_note: str
    gate_fault: EdgeKDError | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended a part of it."""
        return self.benchmark.interrupted or self.gate_note.startswith("interrupted")

    @property
    def passed(self) -> bool:
        """Whether the gate, where there was one, passed."""
        return self.parity is None or self.parity.passed

    @property
    def fault(self) -> EdgeKDError | None:
        """The first error that ended a part of it."""
        return self.benchmark.fault or self.gate_fault

    def to_dict(self) -> dict[str, Any]:
        """Return the benchmark's JSON form with the gate's verdict; ``parity.json`` holds the rest."""
        gate = {"note": self.gate_note, "passed": None if self.parity is None else self.parity.passed}
        gate["verdict"] = describe_gate(self._parity_dict(), self.gate_note)[1]
        return {**self.benchmark.to_dict(), "interrupted": self.interrupted, "gate": gate}

    def _parity_dict(self) -> Mapping[str, Any] | None:
        return None if self.parity is None else self.parity.to_dict()


def run_acceptance(
    bundle: Bundle | Path,
    *,
    data: Path | None = None,
    reference: Path | None = None,
    targets: Sequence[str] | None = None,
    precision: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    rule: StopRule | None = None,
    scenarios: ScenarioConfig | None = None,
    gate: bool = True,
    seed: int = 0,
    out: Path | None = None,
    cache: Path | None = None,
    quiet: bool = False,
) -> AcceptanceReport:
    """Measure builds of a bundle, judge them, and write both into one folder. Never imports torch.

    With data and a recording of the student, given or beside the bundle, the gate is the full one. Without,
    it is the agreement on the golden frames, and says so. Probes (``null``, ``scripted``) are never judged.

    Args:
        bundle, data, targets, precision, device, threads: see ``run_benchmark``.
        rule, scenarios, cache, quiet: see there too.
        reference: the student's recording; None takes ``reference.npz`` beside the bundle where it is.
        gate: False measures only.
        seed: of the gate's bootstrap.
        out: new folder for ``benchmark.json``, ``benchmark.md``, ``report.html`` and the gate's ``parity/``;
            None writes nothing.

    Raises:
        UsageError: ``out`` exists or cannot be written, a reference without data, or options that cannot be
            meant.
        InputError, IntegrityError: data and reference do not belong together or to the bundle.
        MachineError: a named target cannot run here, or no build can.
        EdgeKDError: an engine failed; what was measured before is written first.
        KeyboardInterrupt: Ctrl-C came before anything was measured.
    """
    if out is not None:
        check_output_is_new(out)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    mode, note, recording = _plan_gate(opened, data, reference, targets, gate)
    measured = run_benchmark(
        opened,
        data=data,
        targets=targets,
        precision=precision,
        device=device,
        threads=threads,
        rule=rule,
        scenarios=scenarios,
        cache=cache,
        quiet=quiet,
    )
    measured = dataclasses.replace(
        measured, command=_add_gate_options(measured.command, reference, gate, seed)
    )
    with _place(out) as folder:
        report = AcceptanceReport(measured, None, note)
        if mode != "none" and not measured.interrupted and measured.fault is None:
            report = _run_gate(
                report,
                opened,
                data=data if mode == "data" else None,
                reference=recording,
                targets=[target for target in targets or () if target not in PROBES],
                precision=precision,
                device=device,
                seed=seed,
                out=None if folder is None else folder / PARITY_FOLDER,
                cache=cache,
                quiet=quiet,
            )
        elif mode != "none":
            cause = "interrupted" if measured.interrupted else "the benchmark ended by an error"
            report = dataclasses.replace(report, gate_note=f"{cause} before the gate")
        if folder is not None:
            _write_files(folder, report)
    if report.fault is not None:
        raise report.fault
    return report


def _run_gate(report: AcceptanceReport, bundle: Bundle, **options: Any) -> AcceptanceReport:
    try:
        return dataclasses.replace(report, parity=run_parity(bundle, **options))
    except KeyboardInterrupt:
        return dataclasses.replace(report, gate_note="interrupted in the gate: nothing is decided")
    except EdgeKDError as error:
        return dataclasses.replace(report, gate_note=f"{GATE_FAILED}: {error}", gate_fault=error)


def _plan_gate(
    bundle: Bundle, data: Path | None, reference: Path | None, targets: Sequence[str] | None, gate: bool
) -> tuple[GateMode, str, Path | None]:
    """Return which gate is run, why, and its recording, after a look at all that it needs."""
    if reference is not None and data is None:
        raise UsageError("a reference without its data", expected="--data", action="add the data set")
    if not gate:
        return "none", "the gate was not asked for", None
    if targets and all(target in PROBES for target in targets):
        return "none", "probes are not judged: their masks mean nothing", None
    beside = bundle.path.parent / REFERENCE_FILE
    recording = reference or (beside if beside.is_file() else None)
    if data is None:
        return "golden", "golden frames only: agreement, no statement about accuracy", None
    if recording is None:
        return "golden", f"golden frames only: no --reference was given and there is no {beside}", None
    recorded = load_recording(recording)
    check_same_bundle(recorded.manifest_sha256, bundle.manifest_sha256)
    match_cases(recorded, data)
    return "data", f"{len(recorded.names)} recorded cases of {data}", recording


def _add_gate_options(command: str, reference: Path | None, gate: bool, seed: int) -> str:
    words = [] if reference is None else ["--reference", str(reference)]
    words += [] if gate else ["--no-gate"]
    words += ["--seed", str(seed)] if seed else []
    return " ".join([command, shlex.join(words)]) if words else command


@contextlib.contextmanager
def _place(out: Path | None) -> Iterator[Path | None]:
    if out is None:
        yield None
        return
    with staged_folder(out) as folder:
        yield folder


def _write_files(folder: Path, report: AcceptanceReport) -> None:
    measured, parity = report.benchmark, report.parity
    content = report.to_dict()
    write_result(folder, "benchmark", content)
    write_text_atomic(folder / "benchmark.md", format_summary(report))
    write_report(
        folder,
        title=f"Benchmark of {Path(measured.bundle).name}",
        parity=None if parity is None else parity.to_dict(),
        gate_note=report.gate_note,
        latency=content,
        overlays=None if parity is None else parity.overlays,
        legend=() if parity is None else parity.legend,
        environment=measured.environment,
        commands=[measured.command],
    )


def format_summary(report: AcceptanceReport) -> str:
    """Return the run as Markdown for the summary of a CI job: verdict, doubts, tables."""
    measured, content = report.benchmark, report.to_dict()
    shown: list[Table] = []
    if report.parity is not None:
        judged = report.parity.to_dict()
        differences = tables.build_difference_table(judged)
        shown += [tables.build_parity_table(judged), *([differences] if differences.rows else [])]
    shown += list_latency_tables(content)
    shown += [tables.build_skipped_table(content)] if measured.skipped else []
    shown.append(tables.build_environment_table(measured.environment))
    doubts = [f"- {name}: {text}" for name, result in measured.results for text in result.warnings]
    state = ["**Interrupted: what was measured until then.**\n"] if report.interrupted else []
    state += [f"**Ended by an error: {measured.fault}**\n"] if measured.fault is not None else []
    missing = describe_missing_energy(content)
    return "\n".join(
        [
            f"# Benchmark of {measured.bundle}: {content['gate']['verdict']}\n",
            *state,
            f"Gate: {report.gate_note}. Frames timed: {measured.frames}.\n",
            *(["## Reasons to doubt the latencies\n", *doubts, ""] if doubts else []),
            *map(format_markdown, shown),
            *([f"{missing[0].upper()}{missing[1:]}.\n"] if missing else []),
            f"## How to repeat\n\n    {measured.command}\n",
        ]
    )
