"""Finding a data set's faults before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.cases import Case, Dataset, Scan
from edgekd.data.duplicates import find_near_duplicates
from edgekd.data.frame_check import report_crop, report_depth, report_range
from edgekd.data.inspection import (
    UNDECLARED_CLASSES,
    CaseFacts,
    Finding,
    inspect_case,
    is_lossy,
    list_names,
)
from edgekd.data.layouts import scan_dataset
from edgekd.data.splits import DEFAULT_FRACTIONS, DEFAULT_SALT, SPLITS, assign_splits, find_crossing_groups
from edgekd.data.summary import describe_division, summarise_dataset
from edgekd.errors import InputError
from edgekd.progress import Progress
from edgekd.specs import CropBox

SHOWN_PAIRS = 40
_READERS = 4


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found.

    Attributes:
        findings: faults first, then warnings.
        summary: counts of cases, groups, splits, sizes, kinds of pixels and class shares, and how the
            splits were made.
    """

    findings: tuple[Finding, ...]
    summary: dict[str, Any]

    @property
    def has_faults(self) -> bool:
        """Whether anything must be repaired before training."""
        return any(finding.severity == "fault" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"findings": [asdict(finding) for finding in self.findings], "summary": self.summary}


def check_dataset(
    path: Path,
    num_classes: int = 2,
    *,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    salt: str = DEFAULT_SALT,
    frame_dtype: str = "uint8",
    bits_stored: int | None = None,
    crop: CropBox | None = None,
    quiet: bool = False,
) -> CheckReport:
    """Return everything worth knowing about the data set at ``path``; a bad file does not end the search.

    Args:
        path: folder or CSV table.
        num_classes: K, background included.
        fractions, salt: how the splits will be made, see `assign_splits`.
        frame_dtype, bits_stored, crop: what images will be read as, see FitConfig.
        quiet: show no progress bar.

    Raises:
        InputError: there is no data set at all at ``path``.
    """
    scan = scan_dataset(Path(path))
    findings = _report_scan(scan)
    facts, found = _inspect_all(scan.dataset.cases, num_classes, crop, quiet=quiet)
    findings += found
    splits, found = _find_splits(scan.dataset, fractions, salt)
    findings += found
    findings += _report_duplicates(facts, splits)
    findings += _report_classes(facts, splits, num_classes)
    findings += _report_lossy_masks(facts)
    findings += report_depth(facts, frame_dtype)
    findings += report_range(facts, frame_dtype, bits_stored)
    findings += report_crop(facts, crop)
    findings.sort(key=lambda finding: finding.severity != "fault")
    summary = summarise_dataset(scan.dataset, facts, splits, num_classes)
    summary["division"] = describe_division(scan.dataset, fractions, salt)
    return CheckReport(tuple(findings), summary)


def _report_scan(scan: Scan) -> list[Finding]:
    findings = [Finding("fault", problem.kind, problem.case, problem.detail) for problem in scan.problems]
    if scan.unknown_columns:
        detail = (
            f"there is no column group, and these are not used: {', '.join(scan.unknown_columns)}; where one "
            "names the patient, or what else must not cross a split, call it group"
        )
        findings.append(Finding("warning", "unknown columns", None, detail))
    if scan.ignored:
        names = list_names(file.name for file in scan.ignored)
        findings.append(
            Finding("warning", "ignored files", None, f"neither image nor mask by suffix: {names}")
        )
    return findings


def _inspect_all(
    cases: Sequence[Case], num_classes: int, crop: CropBox | None, *, quiet: bool
) -> tuple[list[CaseFacts], list[Finding]]:
    facts: list[CaseFacts] = []
    findings: list[Finding] = []
    needed_classes: list[int] = []
    # Pillow and NumPy let go of the interpreter while they decode and count.
    with ThreadPoolExecutor(_READERS) as pool, Progress(quiet=quiet) as progress:
        bar = progress.add("checking cases", len(cases))
        for one in pool.map(lambda case: inspect_case(case, num_classes, crop), cases):
            facts += [] if one.facts is None else [one.facts]
            findings += one.findings
            needed_classes += [] if one.needed_classes is None else [one.needed_classes]
            progress.advance(bar)
    return facts, _hint_at_classes(findings, needed_classes)


def _hint_at_classes(findings: list[Finding], needed_classes: Sequence[int]) -> list[Finding]:
    if not needed_classes:
        return findings
    needed = max(needed_classes)
    hint = (
        f"`--classes {needed}` (in a configuration, {needed} names in classes.names) would fit every "
        "such mask, if its values are class ids"
    )
    return [
        replace(finding, detail=f"{finding.detail}; {hint}")
        if finding.kind == UNDECLARED_CLASSES
        else finding
        for finding in findings
    ]


def _report_lossy_masks(facts: Sequence[CaseFacts]) -> list[Finding]:
    lossy = [fact.case.name for fact in facts if is_lossy(fact.case)]
    if not lossy:
        return []
    detail = (
        f"masks as JPEG in {len(lossy)} of {len(facts)} cases: {list_names(lossy)}; JPEG changes values at "
        "every edge, so that outlines are not those that were drawn; export the masks as PNG"
    )
    return [Finding("warning", "masks with loss", None, detail)]


def _find_splits(
    dataset: Dataset, fractions: Sequence[float], salt: str
) -> tuple[dict[str, str], list[Finding]]:
    """Return the split of each case by name, and what is wrong with the division."""
    crossing = [
        Finding("fault", "group crosses splits", group, "its cases are in " + " and ".join(splits))
        for group, splits in find_crossing_groups(dataset.cases).items()
    ]
    if not dataset.cases:
        return {}, crossing
    try:
        parts = assign_splits(dataset, fractions=fractions, salt=salt)
    except InputError as error:
        names = {case.name: case.split for case in dataset.cases if case.split is not None}
        # A name that is none shows as a group in two splits too; where known ones cross, that says it all.
        is_named = all(case.split in SPLITS for case in dataset.cases if case.split is not None)
        fault = crossing if crossing and is_named else [Finding("fault", "splits", None, str(error))]
        if names:
            return names, fault
        # Only an empty split is left as the reason: the table shows how the cases fall all the same.
        parts = assign_splits(dataset, fractions=fractions, salt=salt, allow_empty=True)
        return _map_cases(parts), fault
    return _map_cases(parts), crossing


def _map_cases(parts: Mapping[str, Sequence[Case]]) -> dict[str, str]:
    return {case.name: split for split, cases in parts.items() for case in cases}


def _report_duplicates(facts: Sequence[CaseFacts], splits: Mapping[str, str]) -> list[Finding]:
    if not facts:
        return []
    findings: list[Finding] = []
    near: list[Finding] = []
    for first, second, correlation in find_near_duplicates(np.stack([fact.thumbnail for fact in facts])):
        one, other = facts[first], facts[second]
        crosses = splits.get(one.case.name) != splits.get(other.case.name)
        is_equal = one.pixel_hash == other.pixel_hash
        if is_equal:
            findings.append(_report_duplicate(one.case, other.case, splits, crosses=crosses))
        elif crosses:
            near.append(_report_near_duplicate(one.case, other.case, splits, correlation))
    if len(near) > SHOWN_PAIRS:
        detail = f"pairs not listed: {len(near) - SHOWN_PAIRS}; does each patient have a group?"
        near[SHOWN_PAIRS:] = [Finding("warning", "near-duplicate across splits", None, detail)]
    return findings + near


def _report_duplicate(one: Case, other: Case, splits: Mapping[str, str], *, crosses: bool) -> Finding:
    place = _name_splits(one, other, splits)
    if crosses:
        advice = "the score would count what was learnt by heart; remove one, or give both one group"
        return Finding(
            "fault", "duplicate across splits", one.name, f"equals {other.name} ({place}): {advice}"
        )
    return Finding("warning", "duplicate", one.name, f"equals {other.name} ({place})")


def _report_near_duplicate(one: Case, other: Case, splits: Mapping[str, str], correlation: float) -> Finding:
    detail = (
        f"correlates {correlation:.3f} with {other.name} ({_name_splits(one, other, splits)}); "
        "if both show one patient, give them one group"
    )
    return Finding("warning", "near-duplicate across splits", one.name, detail)


def _name_splits(one: Case, other: Case, splits: Mapping[str, str]) -> str:
    return f"{splits.get(one.name, 'no split')} and {splits.get(other.name, 'no split')}"


def _report_classes(facts: Sequence[CaseFacts], splits: Mapping[str, str], num_classes: int) -> list[Finding]:
    findings: list[Finding] = []
    empty = [fact.case.name for fact in facts if fact.class_pixels[1:].sum() == 0]
    if empty:
        detail = (
            f"all background in {len(empty)} of {len(facts)} masks: {list_names(empty)}; "
            "right if nothing is there to see"
        )
        findings.append(Finding("warning", "empty masks", None, detail))
    for split in SPLITS:
        inside = [fact.class_pixels for fact in facts if splits.get(fact.case.name) == split]
        counts = np.sum(inside, axis=0) if inside else np.zeros(num_classes)
        absent = [str(index) for index in range(num_classes) if counts[index] == 0]
        if inside and absent:
            detail = f"no pixel of class {' and '.join(absent)} in {split}"
            findings.append(Finding("warning", "class absent", None, detail))
    return findings
