"""The losses that compare the student's logits with the teacher's.

Each is exactly 0 where both are equal. ``weight`` (N, h, w) says how much a pixel counts: 0 outside the image
after augmentation, between 0 and 1 where a teacher's answer is trusted in part, above 1 at a boundary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

DICE_SMOOTHING = 1.0
EPSILON = 1e-8
# Of the logits of a pixel; so small that those of two classes, a few thousandths apart, still count as ±1.
VARIANCE_EPSILON = 1e-12
# A class map with a smaller norm is constant up to rounding, and has no direction to compare.
RELATION_EPSILON = 1e-4


def pixel_kl(student_logits: Tensor, teacher_logits: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Return T² KL(teacher || student) of the softened pixels: sum over classes, weighted mean over pixels.

    ``T² mean_pixels sum_k t_k (log t_k - log s_k)``, t and s the softmax of the logits over T (Hinton et
    al., 2015, per pixel as Liu et al., CVPR 2019). T² keeps the gradient's size nearly independent of T.

    Args:
        student_logits: (N, K, h, w).
        teacher_logits: (N, K, h, w), without gradient.
        weight: (N, h, w), not negative.
        temperature: T > 0.
    """
    student_log = functional.log_softmax(student_logits.float() / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * _average(_sum_divergence(student_log, teacher_log, dim=1), weight)


def standardised_kl(
    student_logits: Tensor, teacher_logits: Tensor, weight: Tensor, temperature: float
) -> Tensor:
    """Return ``pixel_kl`` of logits that were brought to mean 0 and standard deviation 1 at each pixel.

    Logit standardisation (Sun et al., CVPR 2024): the student need not copy the size of the teacher's logits.
    With two classes every pixel becomes (-1, 1) or (1, -1) and no gradient is left, so K >= 3 is needed.

    Args:
        student_logits, teacher_logits, weight, temperature: see ``pixel_kl``.
    """
    student, teacher = (_standardise(logits.float()) for logits in (student_logits, teacher_logits))
    return pixel_kl(student, teacher, weight, temperature)


def channel_kl(student_maps: Tensor, teacher_maps: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Return T² KL(teacher || student) of each channel as a distribution over the pixels, mean over channels.

    ``T²/C sum_c sum_i t_ci (log t_ci - log s_ci)``, t and s the softmax of a channel over its pixels at T
    (channel-wise distillation, Shu et al., ICCV 2021), mean over images. Pixels of weight 0 are no part of
    the distributions; other weights do not count here. Images without a pixel count 0.

    Args:
        student_maps: (N, C, h, w), logits or features.
        teacher_maps: (N, C, h, w), without gradient.
        weight: (N, h, w).
        temperature: T > 0; the paper uses 4.
    """
    outside = (weight <= 0).flatten(1).unsqueeze(1)
    # A finite floor: minus infinity would make 0 · (-inf) of a pixel that counts in neither.
    student, teacher = (
        (maps.float().flatten(2) / temperature).masked_fill(outside, -1e4)
        for maps in (student_maps, teacher_maps)
    )
    divergence = _sum_divergence(student.log_softmax(dim=2), teacher.log_softmax(dim=2), dim=2)
    return temperature**2 * divergence.mean()


def teacher_dice(student_logits: Tensor, teacher_logits: Tensor, weight: Tensor) -> Tensor:
    """Return 1 minus the soft Dice between both networks' foreground probabilities, over the whole batch.

    ``1 - mean_k (2 sum w s t + e) / (sum w s² + sum w t² + e)``, e = DICE_SMOOTHING pixels: the form with
    squares (Milletari et al., 3DV 2016), which is 0 for equal soft maps where that without squares is not.

    Args:
        student_logits, teacher_logits, weight: see ``pixel_kl``.
    """
    student, teacher = (logits.float().softmax(dim=1)[:, 1:] for logits in (student_logits, teacher_logits))
    weights = weight.unsqueeze(1)
    overlap = (weights * student * teacher).sum(dim=(0, 2, 3))
    total = (weights * student * student).sum(dim=(0, 2, 3)) + (weights * teacher * teacher).sum(
        dim=(0, 2, 3)
    )
    return 1 - ((2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


def relation_distance(student_logits: Tensor, teacher_logits: Tensor, weight: Tensor) -> Tensor:
    """Return DIST: 1 minus Pearson's correlation between classes at each pixel, plus the same within classes.

    Huang et al., NeurIPS 2022, with both of its factors at 1: the inter-class term correlates the class
    probabilities of one pixel (weighted mean over pixels), the intra-class term those of one class over the
    pixels of the batch (mean over classes). With two classes the first is always 0 or 2, a constant without
    gradient, so K >= 3 is needed.

    Args:
        student_logits, teacher_logits, weight: see ``pixel_kl``.
    """
    student, teacher = (logits.float().softmax(dim=1) for logits in (student_logits, teacher_logits))
    between = _average(_correlation_distance(student, teacher, dim=1), weight)
    counted = weight > 0
    within = _correlation_distance(
        student.movedim(1, 0)[:, counted], teacher.movedim(1, 0)[:, counted], dim=1
    )
    return between + within.mean()


def find_boundary(logits: Tensor) -> Tensor:
    """Return where the mask of ``logits`` (N, K, h, w) changes: (N, h, w) bool, both sides, one pixel each.

    A pixel lies at the boundary if another class occurs in the 3×3 pixels around it.
    """
    mask = logits.argmax(dim=1, keepdim=True).float()
    highest = functional.max_pool2d(mask, kernel_size=3, stride=1, padding=1)
    lowest = -functional.max_pool2d(-mask, kernel_size=3, stride=1, padding=1)
    return (highest != lowest).squeeze(1)


def _average(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of ``values``, 0 where nothing counts."""
    return (values * weight).sum() / weight.sum().clamp(min=EPSILON)


def _sum_divergence(student_log: Tensor, teacher_log: Tensor, dim: int) -> Tensor:
    return (teacher_log.exp() * (teacher_log - student_log)).sum(dim=dim)


def _standardise(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=1, keepdim=True)
    # Added inside the root, whose slope is infinite at 0: pixels of equal logits would get 0 · inf = NaN.
    return centred / (centred.square().mean(dim=1, keepdim=True) + VARIANCE_EPSILON).sqrt()


def _correlation_distance(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    # 1 - cos(a, b) as half the squared distance of unit vectors: exactly 0 for equal ones.
    student, teacher = (
        functional.normalize(x - x.mean(dim=dim, keepdim=True), dim=dim, eps=RELATION_EPSILON)
        for x in (student, teacher)
    )
    return 0.5 * (student - teacher).square().sum(dim=dim)
