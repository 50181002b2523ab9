"""Segmentation scores from integer confusion matrices: Acc, mIoU, Dice, Cohen's kappa.

Everything is counted in int64 and divided in float64. A score whose denominator is zero is NaN, never 1.

    Acc    sum_k C[k,k] / sum C                                           pooled over the set
    IoU_k  C[k,k] / (row_k + col_k - C[k,k]); mIoU is the mean over the classes that occur in truth or
           prediction (Jaccard 1901; pooled over the set as in PASCAL VOC, Everingham et al. 2010)
    kappa  (p_o - p_e) / (1 - p_e), p_e = sum_k row_k col_k / (sum C)^2   (Cohen 1960), pooled
    Dice_k 2 C[k,k] / (row_k + col_k) on one image (Dice 1945); the mean over the foreground classes that
           occur in that image's truth or prediction, then over the images whose truth is not empty
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import InputError
from edgekd.json_values import replace_non_finite

METRICS = ("acc", "miou", "dice", "kappa")
"""The scores that parity is judged by."""

NUM_EXTRA_SUMS = 4
"""Columns of a case sum after the K * K counts: dice, dice defined, truth empty, empty and predicted."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of a set of images, each in 0..1 (kappa in -1..1) or NaN where undefined.

    Attributes:
        acc: pixel accuracy, pooled.
        miou: mean intersection over union, pooled, background included.
        miou_foreground: the same without the background.
        dice: mean over images with a non-empty truth of the mean over the foreground classes.
        kappa: Cohen's kappa, pooled.
        false_positive_rate: part of the images with an empty truth where any foreground was predicted.
        num_images: images counted.
        num_empty: those among them whose truth holds background only.
    """

    acc: float
    miou: float
    miou_foreground: float
    dice: float
    kappa: float
    false_positive_rate: float
    num_images: int
    num_empty: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the fields as JSON values, None for NaN."""
        return replace_non_finite(dataclasses.asdict(self))


MIN_OVERLAP_PIXELS = 16
"""Fewer than these may be noise, which rounding alone turns."""


def count_confusion(
    truth: npt.NDArray[Any], predicted: npt.NDArray[Any], num_classes: int
) -> npt.NDArray[np.int64]:
    """Count the pixels of each pair (true class, predicted class).

    Args:
        truth: class ids, any shape, integers in 0..num_classes - 1.
        predicted: class ids, the same shape.
        num_classes: K, background included.

    Returns:
        (K, K) int64, rows are the truth.

    Raises:
        InputError: the shapes differ, the ids are no integers, or an id is not a class.
    """
    if truth.shape != predicted.shape:
        raise InputError("truth and mask differ in shape", received=predicted.shape, expected=truth.shape)
    _check_ids("truth", truth, num_classes)
    _check_ids("mask", predicted, num_classes)
    pairs = truth.astype(np.int64).ravel() * num_classes + predicted.ravel()
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def count_confusions(
    truths: npt.NDArray[Any], masks: npt.NDArray[Any], num_classes: int
) -> npt.NDArray[np.int64]:
    """Count one confusion matrix an image.

    Args:
        truths: (N, h, w) class ids.
        masks: (N, h, w) class ids.
        num_classes: K.

    Returns:
        (N, K, K) int64, rows are the truth.

    Raises:
        InputError: as ``count_confusion``.
    """
    if truths.shape != masks.shape:
        raise InputError("truths and masks differ in shape", received=masks.shape, expected=truths.shape)
    counts = np.zeros((len(truths), num_classes, num_classes), np.int64)
    for index, (truth, mask) in enumerate(zip(truths, masks, strict=True)):
        counts[index] = count_confusion(truth, mask, num_classes)
    return counts


def summarise_cases(confusions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Reduce each image to numbers that may be added over images before scoring.

    Args:
        confusions: (N, K, K) int64, one matrix an image.

    Returns:
        (N, K * K + 4) float64: the matrix row by row; the image's Dice (0 where undefined); whether it is
        defined (the truth holds foreground); whether the truth is empty; whether it is empty and
        foreground was predicted (each 0 or 1).
    """
    _check_confusions(confusions)
    num_images, num_classes, _ = confusions.shape
    overlap = np.diagonal(confusions, axis1=1, axis2=2)[:, 1:]
    total = (confusions.sum(axis=2) + confusions.sum(axis=1))[:, 1:]
    class_dice = _divide(2.0 * overlap, total)
    has_truth = confusions[:, 1:, :].sum(axis=(1, 2)) > 0
    predicted_any = confusions[:, :, 1:].sum(axis=(1, 2)) > 0
    dice = np.where(has_truth, _mean_defined(class_dice), 0.0)
    columns = (dice, has_truth, ~has_truth, ~has_truth & predicted_any)
    counts = confusions.reshape(num_images, num_classes**2).astype(np.float64)
    return np.concatenate([counts, np.stack(columns, axis=1).astype(np.float64)], axis=1)


def score_sums(sums: npt.NDArray[np.float64], num_classes: int) -> dict[str, npt.NDArray[np.float64]]:
    """Score summed case sums; every leading axis is kept, so many resamples are scored at once.

    Args:
        sums: (..., K * K + 4) float64, sums of rows of ``summarise_cases``.
        num_classes: K.

    Returns:
        Arrays (...) float64, NaN where 0/0: each of METRICS, ``miou_foreground``, ``false_positive_rate``.

    Raises:
        InputError: the last axis is not K * K + 4 long.
    """
    num_counts = num_classes**2
    if sums.shape[-1] != num_counts + NUM_EXTRA_SUMS:
        raise InputError(
            "case sums of another number of classes",
            received=f"{sums.shape[-1]} columns",
            expected=num_counts + NUM_EXTRA_SUMS,
        )
    counts = sums[..., :num_counts].reshape(*sums.shape[:-1], num_classes, num_classes)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    total = rows.sum(axis=-1)
    iou = _divide(hits, rows + columns - hits)
    observed = _divide(hits.sum(axis=-1), total)
    # Integers below 2**53 stay exact, so one class alone gives 1 - expected == 0, which is 0/0.
    expected = _divide((rows * columns).sum(axis=-1), total**2)
    dice_sum, dice_count, empty, empty_predicted = np.moveaxis(sums[..., num_counts:], -1, 0)
    return {
        "acc": observed,
        "miou": _mean_defined(iou),
        "miou_foreground": _mean_defined(iou[..., 1:]),
        "dice": _divide(dice_sum, dice_count),
        "kappa": _divide(observed - expected, 1.0 - expected),
        "false_positive_rate": _divide(empty_predicted, empty),
    }


def score_cases(confusions: npt.NDArray[np.int64]) -> Scores:
    """Score a set of images given one confusion matrix each.

    Args:
        confusions: (N, K, K) int64, rows are the truth. N = 0 gives NaN everywhere.

    Raises:
        InputError: not of that shape.
    """
    cases = summarise_cases(confusions)
    scores = score_sums(cases.sum(axis=0), confusions.shape[1])
    return Scores(
        **{key: float(value) for key, value in scores.items()},
        num_images=len(cases),
        num_empty=int(cases[:, -2].sum()),
    )


def measure_overlap(
    masks: npt.NDArray[np.integer[Any]], reference: npt.NDArray[np.integer[Any]]
) -> float | None:
    """Return Dice of two sets of masks over all foreground pixels together, those of equal class counting.

    Args:
        masks, reference: class ids of the same shape; 0 is background.

    Returns:
        2 · equal / (foreground of one + foreground of the other); None where the reference has fewer than
        MIN_OVERLAP_PIXELS of it.
    """
    expected = np.count_nonzero(reference)
    if expected < MIN_OVERLAP_PIXELS:
        return None
    equal = np.count_nonzero((masks == reference) & (reference != 0))
    return 2 * equal / (np.count_nonzero(masks) + expected)


def _divide(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, np.true_divide(numerator, denominator))


def _mean_defined(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the last axis without the NaN; NaN where nothing is left (``nanmean`` warns there)."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _check_ids(name: str, ids: npt.NDArray[Any], num_classes: int) -> None:
    if not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"the {name} holds no class ids", received=ids.dtype, expected="an integer dtype")
    if ids.size and (int(ids.max()) >= num_classes or int(ids.min()) < 0):
        raise InputError(
            f"the {name} holds a value that is no class",
            received=f"{int(ids.min())}..{int(ids.max())}",
            expected=f"0..{num_classes - 1}",
        )


def _check_confusions(confusions: npt.NDArray[Any]) -> None:
    shape = confusions.shape
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 2:
        raise InputError("not a confusion matrix an image", received=shape, expected="(N, K, K) with K >= 2")
