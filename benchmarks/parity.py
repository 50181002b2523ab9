"""Does an engine still do what the student did? Two recordings of one data set compared."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.changes import CaseChange, Changes, describe_suspicions, measure_changes
from edgekd.bootstrap import Difference, paired_bootstrap
from edgekd.bundle import Recording
from edgekd.class_scores import ClassScores, score_classes
from edgekd.errors import GateFailure, InputError, IntegrityError
from edgekd.metrics import METRICS, Scores, count_confusions, score_cases, score_sums, summarise_cases
from edgekd.specs import ClassSpec
from edgekd.stats import DEFAULT_MARGINS, MIN_GROUPS, Verdict, decide_non_inferiority
from edgekd.tables import format_agreement, format_floor

NUM_WORST_CASES = 5


@dataclasses.dataclass(frozen=True)
class CaseAgreement:
    """One case whose masks differ.

    Attributes:
        name: of the case.
        agreement: part of its pixels with equal class.
        dice_reference, dice_candidate: its Dice on both sides, None where its truth is empty.
        change: flips, border distance, area, regions that vanished or appeared.
    """

    name: str
    agreement: float
    dice_reference: float | None
    dice_candidate: float | None
    change: CaseChange


@dataclasses.dataclass(frozen=True)
class ParityResult:
    """A candidate compared with its reference on a data set.

    Attributes:
        reference, candidate: sources of the recordings.
        num_images, num_groups: what was compared.
        margins: largest loss accepted, by score.
        differences: by score, see ``stats.Difference``.
        verdict: non-inferiority by score and together; the agreement floor counts as well.
        reference_scores, candidate_scores: at the tensor's size.
        reference_classes, candidate_classes: the same of each class, the background first.
        reference_frame_scores, candidate_frame_scores: at frame size, None where not measured.
        pixel_agreement: part of all pixels with equal class.
        min_agreement: the floor it had to reach, None where there was none.
        num_different: images whose masks differ in any pixel.
        changes: what changed between the masks of both sides, whatever the truth is; decides nothing.
        worst_cases: those with the lowest agreement, worst first.
    """

    reference: str
    candidate: str
    num_images: int
    num_groups: int
    margins: dict[str, float]
    differences: dict[str, Difference]
    verdict: Verdict
    reference_scores: Scores
    candidate_scores: Scores
    reference_classes: tuple[ClassScores, ...]
    candidate_classes: tuple[ClassScores, ...]
    pixel_agreement: float
    min_agreement: float | None
    num_different: int
    changes: Changes
    worst_cases: tuple[CaseAgreement, ...]
    reference_frame_scores: Scores | None = None
    candidate_frame_scores: Scores | None = None

    @property
    def passed(self) -> bool:
        """Whether every score passed."""
        return self.verdict.overall == "pass"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass."""
        return self.verdict.reasons

    @property
    def conclusion(self) -> str:
        """``non-inferior``, ``not shown to be non-inferior`` or ``inconclusive``."""
        return {"pass": "non-inferior", "fail": "not shown to be non-inferior"}.get(
            self.verdict.overall, "inconclusive"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["kind"] = "data"
        fields |= {"conclusion": self.conclusion, "passed": self.passed, "reasons": list(self.reasons)}
        fields["differences"] = {name: one.to_dict() for name, one in self.differences.items()}
        fields["verdict"] = dataclasses.asdict(self.verdict)
        fields["changes"] = dataclasses.asdict(self.changes)
        fields["worst_cases"] = [dataclasses.asdict(case) for case in self.worst_cases]
        for name in ("reference_classes", "candidate_classes"):
            fields[name] = [one.to_dict() for one in fields[name]]
        for name in fields:
            if isinstance(fields[name], Scores):
                fields[name] = fields[name].to_dict()
        return fields


def compare_recordings(
    reference: Recording,
    candidate: Recording,
    margins: Mapping[str, float] = DEFAULT_MARGINS,
    *,
    classes: ClassSpec,
    min_agreement: float | None = None,
    min_groups: int = MIN_GROUPS,
    num_resamples: int = 10000,
    seed: int = 0,
) -> ParityResult:
    """Compare two recordings of the same cases: differences with their bounds, and the verdict.

    Args:
        reference: what the PyTorch student made of the data.
        candidate: what an engine made of it.
        margins: largest loss accepted, by score.
        classes: of the masks.
        min_agreement: part of equal pixels below which the verdict is ``fail`` whatever the scores say.
        min_groups: fewer groups decide nothing.
        num_resamples, seed: of the bootstrap.

    Raises:
        IntegrityError: the recordings belong to different bundles or different data.
        InputError: their cases or mask sizes differ.
        GateFailure: there is no image to compare, or the student's logits are not finite.
    """
    check_same_cases(reference, candidate)
    _check_finite(reference)
    confusions = [count_confusions(one.truths, one.masks, classes.count) for one in (reference, candidate)]
    sums = [summarise_cases(counts) for counts in confusions]
    agreements = (reference.masks == candidate.masks).mean(axis=(1, 2))
    differences = paired_bootstrap(
        sums[0],
        sums[1],
        reference.groups,
        functools.partial(score_sums, num_classes=classes.count),
        names=METRICS,
        num_resamples=num_resamples,
        seed=seed,
    )
    agreement = float(agreements.mean())
    verdict = decide_non_inferiority(
        differences, margins, min_groups=min_groups, identical=bool((agreements == 1).all())
    )
    changes, changed = measure_changes(reference.masks, candidate.masks, reference.logits)
    if verdict.overall != "pass":
        reasons = (*describe_suspicions(changes, len(reference.names)), *verdict.reasons)
        verdict = dataclasses.replace(verdict, reasons=reasons)
    return ParityResult(
        reference=reference.source,
        candidate=candidate.source,
        num_images=len(reference.names),
        num_groups=len(set(reference.groups)),
        margins=dict(margins),
        differences=differences,
        verdict=_apply_agreement_floor(verdict, agreement, min_agreement),
        reference_scores=score_cases(confusions[0]),
        candidate_scores=score_cases(confusions[1]),
        reference_classes=score_classes(confusions[0], classes.names),
        candidate_classes=score_classes(confusions[1], classes.names),
        pixel_agreement=agreement,
        min_agreement=min_agreement,
        num_different=int((agreements < 1).sum()),
        changes=changes,
        worst_cases=_list_worst_cases(reference.names, agreements, sums, changed),
    )


def check_same_cases(reference: Recording, candidate: Recording) -> None:
    """Raise unless both recordings are of one bundle and of the same cases in the same order.

    Raises:
        IntegrityError, InputError, GateFailure: as ``compare_recordings``.
    """
    check_same_bundle(reference.manifest_sha256, candidate.manifest_sha256)
    if reference.data_sha256 != candidate.data_sha256:
        raise _build_mismatch_error("data", reference.data_sha256, candidate.data_sha256)
    if reference.names != candidate.names or reference.groups != candidate.groups:
        raise InputError(
            "the recordings list different cases",
            received=f"{len(candidate.names)} cases",
            expected=f"the {len(reference.names)} of the reference, in its order and groups",
        )
    if reference.masks.shape != candidate.masks.shape or not np.array_equal(
        reference.truths, candidate.truths
    ):
        raise InputError(
            "the recordings differ in size or truth",
            received=candidate.masks.shape,
            expected=f"{reference.masks.shape} and equal truths",
        )
    if len(reference.names) == 0:
        raise GateFailure("no image to compare", expected="at least one", action="record a split with cases")


def check_same_bundle(reference_sha256: str, candidate_sha256: str) -> None:
    """Raise IntegrityError where the sha256 of two manifests differ."""
    if reference_sha256 != candidate_sha256:
        raise _build_mismatch_error("bundles", reference_sha256, candidate_sha256)


def _check_finite(reference: Recording) -> None:
    """Raise GateFailure where the student's logits are not finite: masks made from them mean nothing."""
    if reference.logits is None or np.isfinite(reference.logits).all():
        return
    bad = np.atleast_1d(~np.isfinite(reference.logits).all(axis=(1, 2, 3)))
    raise GateFailure(
        f"the logits of {reference.source} are not finite",
        received=f"NaN or infinity in {int(bad.sum())} of {len(bad)} images, such as "
        f"{reference.names[int(bad.argmax())]!r}",
        expected="finite numbers",
        action="look for overflow in the network",
    )


def _build_mismatch_error(what: str, reference: str, candidate: str) -> IntegrityError:
    return IntegrityError(
        f"the recordings are of different {what}",
        received=f"sha256 {candidate[:12]}…",
        expected=f"{reference[:12]}… as in the reference",
        action=f"name a recording of the same {what} (edgekd evaluate --record), or record it again",
    )


def _apply_agreement_floor(verdict: Verdict, agreement: float, floor: float | None) -> Verdict:
    if floor is None or agreement >= floor:
        return verdict
    shown = format_agreement(agreement)
    reason = f"pixel agreement {shown} is below {format_floor(floor)}: the engine computes something else"
    return dataclasses.replace(
        verdict, overall="fail", reasons=(reason, *verdict.reasons), groups_needed=None
    )


def _list_worst_cases(
    names: tuple[str, ...],
    agreements: npt.NDArray[np.float64],
    sums: list[npt.NDArray[np.float64]],
    changes: Mapping[int, CaseChange],
) -> tuple[CaseAgreement, ...]:
    order = [int(index) for index in np.argsort(agreements, kind="stable") if agreements[index] < 1]
    return tuple(
        CaseAgreement(
            names[index],
            float(agreements[index]),
            dice_reference=_read_dice(sums[0][index]),
            dice_candidate=_read_dice(sums[1][index]),
            change=changes[index],
        )
        for index in order[:NUM_WORST_CASES]
    )


def _read_dice(case_sums: npt.NDArray[np.float64]) -> float | None:
    dice, defined = case_sums[-4:-2]
    return float(dice) if defined else None
