"""The parity gate: run a bundle's builds, compare each with its reference, write down the verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.atomic import check_output_is_new, staged_folder, write_text_atomic
from edgekd.benchmarks import tables
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.gallery import draw_cases, draw_golden
from edgekd.benchmarks.golden import MIN_AGREEMENT, GoldenResult, compare_golden
from edgekd.benchmarks.overlays import Color, Overlay, list_legend
from edgekd.benchmarks.parity import ParityResult, check_same_bundle, compare_recordings
from edgekd.benchmarks.recording import match_cases, record_segmenter, score_at_frame_size
from edgekd.benchmarks.report import write_report
from edgekd.benchmarks.result_files import write_result
from edgekd.benchmarks.selection import Choice, Skipped, choose_builds
from edgekd.bundle import Bundle, GoldenFrames, Recording, load_recording, read_golden
from edgekd.data import Case
from edgekd.errors import InputError, UsageError
from edgekd.stats import DEFAULT_MARGINS

REFERENCE_FILE = "reference.npz"


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """Every build that was compared, and every one that was not.

    Attributes:
        bundle: path of the bundle.
        manifest_sha256: of its manifest.
        data: path of the data set, None for golden frames.
        reference: what the builds were compared with.
        results: one a build.
        skipped: builds that did not run, with the reason.
        environment: the machine.
        overlays: pictures for a page, not part of the JSON form.
        legend: what their colours mean.
    """

    bundle: str
    manifest_sha256: str
    data: str | None
    reference: str
    results: tuple[ParityResult | GoldenResult, ...]
    skipped: tuple[Skipped, ...]
    environment: dict[str, Any]
    overlays: tuple[Overlay, ...]
    legend: tuple[tuple[str, Color], ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "bundle": self.bundle,
            "manifest_sha256": self.manifest_sha256,
            "data": self.data,
            "reference": self.reference,
            "passed": self.passed,
            "results": [result.to_dict() for result in self.results],
            "skipped": [dataclasses.asdict(one) for one in self.skipped],
            "environment": self.environment,
        }


def run_parity(
    bundle: Bundle | Path,
    *,
    data: Path | None = None,
    reference: Path | Recording | None = None,
    targets: Sequence[str] | None = None,
    precision: str | None = None,
    device: str | None = None,
    margins: Mapping[str, float] = DEFAULT_MARGINS,
    seed: int = 0,
    out: Path | None = None,
    cache: Path | None = None,
    quiet: bool = False,
) -> ParityReport:
    """Compare builds of a bundle with its PyTorch student, on data or on the golden frames.

    Args:
        bundle: an opened bundle or its path.
        data: the data set the reference was recorded from; None compares golden frames.
        reference: the student's recording; None takes ``reference.npz`` beside the bundle.
        targets: builds to compare; empty takes every build that can run here and lists the others.
        precision, device: narrow the builds; None takes all, each on its own device.
        margins: largest loss accepted, by score.
        seed: of the bootstrap.
        out: new folder for ``parity.json``, ``parity.md`` and ``report.html``; None writes nothing.
        cache: where an engine may keep compiled code.
        quiet: no progress bars.

    Raises:
        UsageError: ``out`` exists, or a reference is given without data.
        InputError: no reference, or data that does not hold its cases.
        IntegrityError: the reference belongs to another bundle or other files.
        MachineError: a named target cannot run here, or no build can.
        GateFailure: there is nothing to compare.
    """
    if out is not None:
        check_output_is_new(out)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if data is None and reference is not None:
        raise UsageError(
            "a reference without its data",
            expected="--data, the data set it was recorded from",
            action="add it",
        )
    choices, skipped = choose_builds(opened, targets or (), precision, device)
    if data is None:
        golden = read_golden(opened)
        results: Sequence[ParityResult | GoldenResult] = _compare_on_golden(opened, golden, choices, cache)
        overlays = draw_golden(opened, golden)
        source = f"golden frames of {opened.manifest.name}"
    else:
        recorded = _find_reference(opened, reference)
        cases = match_cases(recorded, data)
        recordings = _record_builds(opened, choices, cases, recorded.data_sha256, cache, quiet)
        results = _compare_on_data(opened, choices, cases, recorded, recordings, margins, seed)
        overlays = draw_cases(cases, recordings, results, opened)
        source = recorded.source
    report = ParityReport(
        bundle=str(opened.path),
        manifest_sha256=opened.manifest_sha256,
        data=None if data is None else str(data),
        reference=source,
        results=tuple(results),
        skipped=tuple(skipped),
        environment=describe_environment(),
        overlays=tuple(overlays),
        legend=tuple(list_legend(opened.manifest.classes, has_truth=True)),
    )
    if out is not None:
        write_parity(out, report)
    return report


def write_parity(out: Path, report: ParityReport) -> None:
    """Write ``parity.json``, ``parity.md`` and ``report.html`` into a new folder, all or nothing.

    Args:
        out: the folder.
        report: what was compared.

    Raises:
        UsageError: ``out`` exists.
        MachineError: the disk is full.
    """
    content = report.to_dict()
    builders = (tables.build_difference_table, tables.build_worst_table, tables.build_skipped_table)
    shown = [tables.build_parity_table(content), *(build(content) for build in builders)]
    shown = [table for table in shown if table.rows]
    reasons = [f"- {one.candidate}: {text}" for one in report.results for text in one.reasons]
    with staged_folder(out) as folder:
        write_result(folder, "parity", content)
        lines = [f"# Parity of {report.bundle}: {'passed' if report.passed else 'not passed'}\n"]
        lines += [*reasons, *([""] if reasons else []), *map(tables.format_markdown, shown)]
        write_text_atomic(folder / "parity.md", "\n".join(lines))
        data = "" if report.data is None else f" --data {report.data}"
        write_report(
            folder,
            title=f"Parity of {Path(report.bundle).name}",
            parity=content,
            overlays=report.overlays,
            legend=report.legend,
            environment=report.environment,
            commands=[f"edgekd parity {report.bundle}{data} --out NEW_FOLDER"],
        )


def _compare_on_golden(
    bundle: Bundle, golden: GoldenFrames, choices: Sequence[Choice], cache: Path | None
) -> list[GoldenResult]:
    results: list[GoldenResult] = []
    for choice in choices:
        with choice.load(bundle, cache) as segmenter:
            results.append(
                compare_golden(
                    segmenter, golden, candidate=choice.name, min_agreement=MIN_AGREEMENT[choice.precision]
                )
            )
    return results


def _record_builds(
    bundle: Bundle,
    choices: Sequence[Choice],
    cases: Sequence[Case],
    data_sha256: str,
    cache: Path | None,
    quiet: bool,
) -> list[Recording]:
    recordings: list[Recording] = []
    for choice in choices:
        with choice.load(bundle, cache) as segmenter:
            recordings.append(
                record_segmenter(
                    segmenter,
                    cases,
                    source=choice.name,
                    manifest_sha256=bundle.manifest_sha256,
                    data_sha256=data_sha256,
                    quiet=quiet,
                )
            )
    return recordings


def _compare_on_data(
    bundle: Bundle,
    choices: Sequence[Choice],
    cases: Sequence[Case],
    reference: Recording,
    recordings: Sequence[Recording],
    margins: Mapping[str, float],
    seed: int,
) -> list[ParityResult]:
    spec, classes = bundle.manifest.preprocess, bundle.manifest.classes
    masks = [reference.masks, *(one.masks for one in recordings)]
    reference_scores, *candidate_scores = score_at_frame_size(cases, masks, spec, classes)
    results: list[ParityResult] = []
    for choice, recording, scores in zip(choices, recordings, candidate_scores, strict=True):
        result = compare_recordings(
            reference,
            recording,
            margins,
            num_classes=classes.count,
            min_agreement=MIN_AGREEMENT[choice.precision],
            seed=seed,
        )
        results.append(
            dataclasses.replace(
                result, reference_frame_scores=reference_scores, candidate_frame_scores=scores
            )
        )
    return results


def _find_reference(bundle: Bundle, reference: Path | Recording | None) -> Recording:
    if isinstance(reference, Recording):
        recorded = reference
    else:
        path = bundle.path.parent / REFERENCE_FILE if reference is None else reference
        if reference is None and not path.is_file():
            raise InputError(
                f"no reference to compare with, and no {path} beside the bundle",
                expected="a recording of the PyTorch student on the data",
                action=f"on the workstation: edgekd evaluate {bundle.path} DATA --record {REFERENCE_FILE}",
            )
        recorded = load_recording(path)
    check_same_bundle(recorded.manifest_sha256, bundle.manifest_sha256)
    return recorded
