"""What the builds of a bundle make of golden frames or of a data set, and how each is judged by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.atomic import hash_file
from edgekd.benchmarks.criteria import GateConfig
from edgekd.benchmarks.frame_sizes import leave_misfits
from edgekd.benchmarks.gallery import draw_cases, draw_golden
from edgekd.benchmarks.golden import GoldenResult, compare_golden, segment_golden
from edgekd.benchmarks.overlays import Overlay
from edgekd.benchmarks.parity import ParityResult, compare_recordings
from edgekd.benchmarks.parity_report import BuildFacts
from edgekd.benchmarks.recording import hash_recording, match_cases, record_segmenter, score_at_frame_size
from edgekd.benchmarks.selection import Choice, Skipped, format_frame_size, list_own_frames
from edgekd.bundle import MIN_AGREEMENT, Bundle, JudgedFrames, Recording, read_judged_frames
from edgekd.bundle.builds import BUILD_FILE
from edgekd.data import Case, count_learned, hash_pixels, read_frame, read_image
from edgekd.progress import track
from edgekd.runtime import Segmenter


@dataclasses.dataclass(frozen=True)
class JudgedBuilds:
    """Builds that ran, and what was found.

    Attributes:
        reference: what they were compared with.
        results: one a build.
        builds: one a result, in the same order.
        overlays: pictures.
        misfits: builds that do not take these frames.
        data_sha256, reference_sha256, cases_learned_from: as in ``ParityReport``, None for golden frames.
    """

    reference: str
    results: Sequence[ParityResult | GoldenResult]
    builds: Sequence[BuildFacts]
    overlays: Sequence[Overlay]
    misfits: Sequence[Skipped] = ()
    data_sha256: str | None = None
    reference_sha256: str | None = None
    cases_learned_from: int | None = None


def judge_golden(
    bundle: Bundle, choices: Sequence[Choice], criteria: GateConfig, cache: Path | None
) -> JudgedBuilds:
    """Compare builds with the student on the golden frames of their bundle.

    Raises:
        GateFailure: there is no golden frame.
        SegmenterFault: an engine failed.
    """
    facts: list[BuildFacts] = []
    answers = _segment_golden(bundle, choices, cache, facts)
    results = [
        compare_golden(masks, golden, candidate=choice.name, min_agreement=_choose_floor(criteria, choice))
        for choice, (golden, masks) in zip(choices, answers, strict=True)
    ]
    overlays = draw_golden(bundle, answers, results)
    return JudgedBuilds(_describe_golden(bundle, choices), results, facts, overlays)


def judge_cases(
    bundle: Bundle,
    choices: Sequence[Choice],
    reference: Recording,
    data: Path,
    criteria: GateConfig,
    *,
    seed: int,
    named: bool,
    cache: Path | None,
    quiet: bool,
) -> JudgedBuilds:
    """Compare builds with the student's recording on the cases of a data set.

    Args:
        bundle: the opened bundle.
        choices: builds to run.
        reference: the student's recording.
        data: the data set it was made of.
        criteria: of the gate.
        seed: of the bootstrap.
        named: the builds were asked for by their target, so none may be left out.
        cache: where an engine may keep compiled code.
        quiet: no progress bars.

    Raises:
        InputError: the data do not hold the cases, or frames of a size that a named build, or any, does not
            take.
        IntegrityError: the files are not those that were recorded.
        GateFailure: there is nothing to compare.
        SegmenterFault: an engine failed.
    """
    facts: list[BuildFacts] = []
    cases = match_cases(reference, data)
    shapes = (read_image(case.image).shape for case in cases)
    choices, misfits = leave_misfits(bundle, choices, shapes, named=named)
    recordings = _record_builds(bundle, choices, cases, reference.data_sha256, cache, quiet, facts)
    results = _compare_on_data(bundle, choices, cases, reference, recordings, criteria, seed)
    return JudgedBuilds(
        reference.source,
        results,
        facts,
        draw_cases(cases, recordings, results, bundle, reference),
        misfits,
        reference.data_sha256,
        hash_recording(reference),
        _count_learned(bundle, cases, quiet=quiet),
    )


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


def _count_learned(bundle: Bundle, cases: Sequence[Case], *, quiet: bool) -> int | None:
    known = bundle.manifest.training.get("train_pixels_sha256")
    if known is None:
        return None
    spec = bundle.manifest.preprocess
    looked_at = track(cases, "looking for cases that were learned from", quiet=quiet)
    return count_learned((hash_pixels(read_frame(case.image, spec), spec) for case in looked_at), known)


def _choose_floor(criteria: GateConfig, choice: Choice) -> float:
    return MIN_AGREEMENT[choice.precision] if criteria.min_agreement is None else criteria.min_agreement


def _describe_build(bundle: Bundle, choice: Choice, segmenter: Segmenter) -> BuildFacts:
    build = choice.find_build(bundle)
    facts = segmenter.engine.facts()
    return BuildFacts(
        choice.name, choice.target, choice.precision, choice.device, hash_file(build.path / BUILD_FILE), facts
    )
