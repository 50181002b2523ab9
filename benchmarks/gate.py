"""The parity gate: run a bundle's builds and compare each with its reference."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.atomic import check_output_is_new, hash_file, write_text_atomic
from edgekd.benchmarks.certificate import write_certificate
from edgekd.benchmarks.criteria import GateConfig, replace_margins
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.frame_sizes import leave_misfits
from edgekd.benchmarks.gallery import draw_cases, draw_golden
from edgekd.benchmarks.golden import GoldenResult, compare_golden, segment_golden
from edgekd.benchmarks.junit import build_junit
from edgekd.benchmarks.overlays import list_legend
from edgekd.benchmarks.parity import ParityResult, check_same_bundle, compare_recordings
from edgekd.benchmarks.parity_report import BuildFacts, ParityReport, write_parity
from edgekd.benchmarks.recording import hash_recording, match_cases, record_segmenter, score_at_frame_size
from edgekd.benchmarks.selection import (
    Choice,
    choose_builds,
    format_command,
    format_frame_size,
    list_own_frames,
)
from edgekd.bundle import (
    MIN_AGREEMENT,
    Bundle,
    JudgedFrames,
    Recording,
    load_recording,
    read_judged_frames,
)
from edgekd.bundle.builds import BUILD_FILE
from edgekd.config_reader import load_config
from edgekd.console import print_notice
from edgekd.data import Case, count_learned, hash_pixels, read_frame, read_image
from edgekd.errors import InputError, UsageError
from edgekd.runtime import Segmenter

REFERENCE_FILE = "reference.npz"


def run_parity(
    bundle: Bundle | Path,
    *,
    data: Path | None = None,
    reference: Path | Recording | None = None,
    targets: Sequence[str] | None = None,
    precision: str | None = None,
    device: str | None = None,
    margins: Mapping[str, float] | None = None,
    config: GateConfig | Path | None = None,
    seed: int = 0,
    out: Path | None = None,
    junit: Path | None = None,
    certificate: Path | None = None,
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
        margins: largest loss accepted, by score; what it leaves out is as in ``config``.
        config: the criteria, or the TOML or JSON file that holds them; None takes the defaults.
        seed: of the bootstrap.
        out: new folder for the files of ``write_parity``; None writes nothing.
        junit: new file for the verdicts as JUnit XML.
        certificate: new file, written only where every build that ran passed on data.
        cache: where an engine may keep compiled code.
        quiet: no progress bars.

    Raises:
        UsageError: ``out`` exists or cannot be written, or a reference is given without data.
        InputError: no reference, data that does not hold its cases, or frames of a size that a named build,
            or any build, does not take.
        IntegrityError: the reference belongs to another bundle or other files.
        MachineError: a named target cannot run here, or no build can.
        GateFailure: there is nothing to compare.
    """
    for path in (out, junit, certificate):
        if path is not None:
            check_output_is_new(path)
    if certificate is not None and data is None:
        raise UsageError(
            "golden frames alone give no certificate",
            expected="--data, the data set the reference was recorded from",
            action="add it",
        )
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if data is None and reference is not None:
        raise UsageError(
            "a reference without its data",
            expected="--data, the data set it was recorded from",
            action="add it",
        )
    criteria = replace_margins(_read_criteria(config), margins or {})
    options = {"data": data, "target": targets, "precision": precision, "device": device}
    options |= {"cache": cache, "config": config if isinstance(config, Path) else None}
    options |= {"reference": None if isinstance(reference, Recording) else reference}
    options |= {"margin": [f"{name}={margin:g}" for name, margin in (margins or {}).items()], "seed": seed}
    facts: list[BuildFacts] = []
    choices, skipped = choose_builds(opened, targets or (), precision, device)
    if certificate is not None:
        # It vouches for every file, not only for those that an engine reads.
        for choice in choices:
            choice.find_build(opened).check_files()
    if data is None:
        answers = _segment_golden(opened, choices, cache, facts)
        results: Sequence[ParityResult | GoldenResult]
        results = [
            compare_golden(
                masks, golden, candidate=choice.name, min_agreement=_choose_floor(criteria, choice)
            )
            for choice, (golden, masks) in zip(choices, answers, strict=True)
        ]
        overlays = draw_golden(opened, answers, results)
        source, data_sha256 = _describe_golden(opened, choices), None
        reference_sha256 = learned = None
    else:
        recorded = _find_reference(opened, reference)
        cases = match_cases(recorded, data)
        shapes = (read_image(case.image).shape for case in cases)
        choices, misfits = leave_misfits(opened, choices, shapes, named=bool(targets))
        skipped += misfits
        recordings = _record_builds(opened, choices, cases, recorded.data_sha256, cache, quiet, facts)
        results = _compare_on_data(opened, choices, cases, recorded, recordings, criteria, seed)
        overlays = draw_cases(cases, recordings, results, opened, recorded)
        source, data_sha256 = recorded.source, recorded.data_sha256
        reference_sha256 = hash_recording(recorded)
        learned = _count_learned(opened, cases)
    report = ParityReport(
        bundle=str(opened.path),
        manifest_sha256=opened.manifest_sha256,
        data=None if data is None else str(data),
        data_sha256=data_sha256,
        reference=source,
        reference_sha256=reference_sha256,
        cases_learned_from=learned,
        criteria=criteria,
        results=tuple(results),
        skipped=tuple(skipped),
        builds=tuple(facts),
        environment=describe_environment(),
        command=format_command("parity", opened.path, options),
        overlays=tuple(overlays),
        legend=tuple(list_legend(opened.manifest.classes, has_truth=True)),
    )
    if out is not None:
        write_parity(out, report)
    if junit is not None:
        write_text_atomic(junit, build_junit(report.to_dict()))
    if certificate is not None and report.passed:
        write_certificate(certificate, report)
    elif certificate is not None:
        print_notice(f"no certificate was written to {certificate}: not every build passed", quiet=quiet)
    return report


def _segment_golden(
    bundle: Bundle, choices: Sequence[Choice], cache: Path | None, facts: list[BuildFacts]
) -> list[tuple[JudgedFrames, npt.NDArray[np.uint8]]]:
    answers: list[tuple[JudgedFrames, npt.NDArray[np.uint8]]] = []
    for choice in choices:
        golden = read_judged_frames(bundle, choice.find_build(bundle))
        with choice.load(bundle, cache) as segmenter:
            answers.append((golden, segment_golden(segmenter, golden)))
            facts.append(_describe_build(bundle, choice, segmenter))
    return answers


def _describe_golden(bundle: Bundle, choices: Sequence[Choice]) -> str:
    text = f"golden frames of {bundle.manifest.name}"
    for name, build in list_own_frames(bundle, choices).items():
        text += f"; for {name} at {format_frame_size(build)}, against the float32 graph"
    return text


def _record_builds(
    bundle: Bundle,
    choices: Sequence[Choice],
    cases: Sequence[Case],
    data_sha256: str,
    cache: Path | None,
    quiet: bool,
    facts: list[BuildFacts],
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
            facts.append(_describe_build(bundle, choice, segmenter))
    return recordings


def _compare_on_data(
    bundle: Bundle,
    choices: Sequence[Choice],
    cases: Sequence[Case],
    reference: Recording,
    recordings: Sequence[Recording],
    criteria: GateConfig,
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
            criteria.margins.model_dump(),
            classes=classes,
            min_agreement=_choose_floor(criteria, choice),
            min_groups=criteria.min_groups,
            num_resamples=criteria.num_resamples,
            seed=seed,
        )
        results.append(
            dataclasses.replace(
                result, reference_frame_scores=reference_scores, candidate_frame_scores=scores
            )
        )
    return results


def _count_learned(bundle: Bundle, cases: Sequence[Case]) -> int | None:
    known = bundle.manifest.training.get("train_pixels_sha256")
    if known is None:
        return None
    spec = bundle.manifest.preprocess
    return count_learned((hash_pixels(read_frame(case.image, spec), spec) for case in cases), known)


def _choose_floor(criteria: GateConfig, choice: Choice) -> float:
    return MIN_AGREEMENT[choice.precision] if criteria.min_agreement is None else criteria.min_agreement


def _read_criteria(config: GateConfig | Path | None) -> GateConfig:
    return config if isinstance(config, GateConfig) else load_config(GateConfig, config)


def _describe_build(bundle: Bundle, choice: Choice, segmenter: Segmenter) -> BuildFacts:
    build = choice.find_build(bundle)
    facts = segmenter.engine.facts()
    return BuildFacts(
        choice.name, choice.target, choice.precision, choice.device, hash_file(build.path / BUILD_FILE), facts
    )


def _find_reference(bundle: Bundle, reference: Path | Recording | None) -> Recording:
    if isinstance(reference, Recording):
        recorded = reference
    else:
        path = bundle.path.parent / REFERENCE_FILE if reference is None else reference
        if reference is None and not path.is_file():
            command = shlex.join(["edgekd", "evaluate", str(bundle.path), "DATA", "--record", str(path)])
            raise InputError(
                f"no reference to compare with, and no {path} beside the bundle",
                expected="a recording of the PyTorch student on the data",
                action=f"on the workstation: {command}",
            )
        recorded = load_recording(path)
    check_same_bundle(recorded.manifest_sha256, bundle.manifest_sha256)
    return recorded
