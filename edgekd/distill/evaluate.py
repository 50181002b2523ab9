"""`evaluate`: the scores of a run or a bundle in PyTorch, and the recording that parity refers to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.atomic import check_output_is_new
from edgekd.bundle import save_recording
from edgekd.class_scores import ClassScores, score_classes
from edgekd.console import print_notice
from edgekd.data import SPLITS, Case, assign_splits, count_learned, find_cases, hash_cases, load_cases
from edgekd.distill.predict import predict_masks, predict_recording
from edgekd.distill.results import TrainedNetwork, load_trained_model
from edgekd.errors import InputError, UsageError, build_unknown_name_error
from edgekd.metrics import Scores, count_confusions, score_cases
from edgekd.specs import ModelSpec

ALL = "all"


@dataclass(frozen=True)
class EvaluationResult:
    """The scores of a network on a split.

    Attributes:
        model: the network.
        split: ``train``, ``val``, ``test`` or ``all``.
        scores: at tensor size.
        class_scores: of each class, the background first.
        data_sha256: hash of the cases.
        cases_learned_from: how many of the cases the network learned from: their scores are too good.
        recording: where the masks and logits were written; None where they were not.
    """

    model: ModelSpec
    split: str
    scores: Scores
    class_scores: tuple[ClassScores, ...]
    data_sha256: str
    cases_learned_from: int
    recording: Path | None


def evaluate(
    model: Path, data: Path, *, split: str = "test", record: Path | None = None, quiet: bool = False
) -> EvaluationResult:
    """Score a trained network on a data set with the preprocessing and division it was trained with.

    Args:
        model: a bundle, or the folder of a finished run.
        data: a data set.
        split: ``train``, ``val``, ``test``, or ``all`` for every case.
        record: write masks and logits to this new ``.npz`` file; needs a bundle.
        quiet: show no bar.

    Raises:
        UsageError: unknown split, or ``record`` exists or has no bundle to name.
        InputError: no case falls into ``split``; see also ``load_trained_model`` and ``load_cases``.
    """
    if split not in (*SPLITS, ALL):
        raise build_unknown_name_error("split", split, (*SPLITS, ALL))
    if record is not None:
        check_output_is_new(record)
    trained = load_trained_model(model)
    if record is not None and trained.bundle is None:
        raise UsageError(
            "a recording refers to a bundle", received=f"the run {model} without one", action="name a bundle"
        )
    cases = _find_split(data, split, trained)
    loaded = load_cases(cases, trained.preprocess, trained.classes, quiet=quiet)
    learned = count_learned(loaded.pixels_sha256, trained.learned)
    if learned:
        print_notice(
            f"the network learned from {learned} of these {len(cases)} cases: their scores are too good",
            quiet=quiet,
        )
    sha256 = hash_cases(cases)
    if record is None or trained.bundle is None:
        masks = predict_masks(trained.network, loaded.images)
    else:
        recording = predict_recording(
            trained.network, loaded, manifest_sha256=trained.bundle.manifest_sha256, data_sha256=sha256
        )
        save_recording(record, recording)
        masks = recording.masks
    confusions = count_confusions(loaded.truths, masks, trained.classes.count)
    return EvaluationResult(
        trained.model,
        split,
        score_cases(confusions),
        score_classes(confusions, trained.classes.names),
        sha256,
        learned,
        record,
    )


def _find_split(data: Path, split: str, trained: TrainedNetwork) -> tuple[Case, ...]:
    """Return the cases of a split as the network's own run divides; other splits may be empty here."""
    dataset, division = find_cases(data), trained.split
    if split == ALL:
        return dataset.cases
    parts = assign_splits(dataset, fractions=division.fractions, salt=division.salt, allow_empty=True)
    if not parts[split]:
        raise InputError(
            f"no case of {data} falls into the {split} split of the network's run",
            received=", ".join(f"{len(parts[name])} in {name}" for name in SPLITS),
            expected=f"at least one in {split}",
            action="evaluate every case with --split all",
        )
    return parts[split]
