"""Running real cases through an engine, at their own size, one frame at a time, as a device would."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.bundle import Recording
from edgekd.data import Case, find_cases, hash_cases, read_case, read_mask
from edgekd.errors import GateFailure, InputError, IntegrityError
from edgekd.metrics import Scores, count_confusion, score_cases
from edgekd.preprocess import prepare_truth, restore_mask
from edgekd.progress import track
from edgekd.runtime import Segmenter
from edgekd.specs import ClassSpec, PreprocessSpec


def record_segmenter(
    segmenter: Segmenter,
    cases: Sequence[Case],
    *,
    source: str,
    manifest_sha256: str,
    data_sha256: str,
    quiet: bool = False,
) -> Recording:
    """Segment every case and return its masks with the truths at the tensor's size.

    Args:
        segmenter: a loaded engine; its spec and classes say how frames and masks are read.
        cases: the cases in the order to be recorded.
        source: name of the engine in reports.
        manifest_sha256: of the bundle the engine came from.
        data_sha256: ``hash_cases(cases)``, computed once by the caller for all engines.
        quiet: no progress bar.

    Raises:
        GateFailure: there is no case.
        InputError: an image or mask is not what the spec says.
        SegmenterFault: the engine failed.
    """
    if not cases:
        raise GateFailure("no image to record", expected="at least one case")
    spec, classes = segmenter.spec, segmenter.classes
    truths = np.zeros((len(cases), spec.height, spec.width), np.uint8)
    masks = np.zeros_like(truths)
    for index, case in enumerate(track(cases, f"running {source}", quiet=quiet)):
        frame, truth = read_case(case, spec, classes)
        truths[index] = prepare_truth(truth, spec)
        masks[index] = segmenter.segment([frame])[0]
    return Recording(
        source=source,
        manifest_sha256=manifest_sha256,
        data_sha256=data_sha256,
        names=tuple(case.name for case in cases),
        groups=tuple(case.group_or_name for case in cases),
        truths=truths,
        masks=masks,
    )


def hash_recording(recording: Recording) -> str:
    """Return the sha256 (hex) of what a recording says: names, groups, truths and masks."""
    digest = hashlib.sha256()
    for text in (recording.manifest_sha256, recording.data_sha256, *recording.names, *recording.groups):
        digest.update(f"{text}\0".encode())
    for array in (recording.truths, recording.masks):
        digest.update(f"{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def match_cases(reference: Recording, data: Path) -> list[Case]:
    """Return the cases of a data set that a recording lists, in its order, after checking their content.

    Args:
        reference: the recording that says which cases are compared.
        data: path of the data set.

    Raises:
        InputError: no data set there, or a case of the recording is not in it.
        IntegrityError: the files are not those that were recorded.
    """
    known = {case.name: case for case in find_cases(data).cases}
    missing = [name for name in reference.names if name not in known]
    if missing:
        others = sorted(known.keys() - set(reference.names))
        raise InputError(
            f"{data} lacks cases of the reference",
            received=f"{len(missing)} missing, such as {missing[0]!r}"
            + (f"; it has others, such as {others[0]!r}" if others else ""),
            expected=f"the {len(reference.names)} cases that were recorded",
            action="name the data set in the form it was recorded in: its manifest or its folders name cases"
            if others
            else "restore the missing files, or record the reference again",
        )
    cases = [known[name] for name in reference.names]
    if cases and hash_cases(cases) != reference.data_sha256:
        raise IntegrityError(
            f"the files in {data} are not those of the reference",
            received="another sha256 over names and contents",
            expected=f"{reference.data_sha256[:12]}…",
            action="name the data the reference was recorded from, or record it again",
        )
    return cases


def score_at_frame_size(
    cases: Sequence[Case],
    masks: Sequence[npt.NDArray[np.uint8]],
    spec: PreprocessSpec,
    classes: ClassSpec,
) -> list[Scores]:
    """Score several sets of masks against the annotations at their own size.

    Args:
        cases: N cases.
        masks: for each set (N, h, w) uint8 class ids; they are enlarged by ``restore_mask``.
        spec, classes: of the bundle.

    Raises:
        InputError: a mask file cannot be read.
    """
    counts = np.zeros((len(masks), len(cases), classes.count, classes.count), np.int64)
    for index, case in enumerate(cases):
        truth = read_mask(case.masks, classes.count)
        for which, recorded in enumerate(masks):
            restored = restore_mask(recorded[index], truth.shape, spec)
            counts[which, index] = count_confusion(truth, restored, classes.count)
    return [score_cases(one) for one in counts]
