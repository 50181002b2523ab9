"""The bootstrap against hand calculation and simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgekd.bootstrap import paired_bootstrap
from edgekd.errors import InputError, UsageError
from edgekd.metrics import METRICS, count_confusions, score_sums, summarise_cases
from edgekd.stats import decide_non_inferiority


def score_mean(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of the first column by the count in the second; NaN where the count is zero."""
    with np.errstate(invalid="ignore"):
        return {"mean": sums[..., 0] / sums[..., 1]}


def make_sums(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


def test_bounds_are_those_of_a_loop_over_resamples() -> None:
    rng = np.random.default_rng(5)
    reference, candidate = rng.normal(0.8, 0.1, 30), rng.normal(0.79, 0.1, 30)
    result = paired_bootstrap(
        make_sums(reference), make_sums(candidate), [str(i) for i in range(30)], score_mean, names=["mean"]
    )["mean"]
    difference = candidate - reference
    largest = np.abs(difference).max()
    for sign, bounds in (
        (-1, {"lower": 0.05, "interval_low": 0.025}),
        (1, {"upper": 0.95, "interval_high": 0.975}),
    ):
        values = np.append(difference, [sign * largest] * 3)
        mean, error = values.mean(), values.std(ddof=1) / math.sqrt(33)
        samples = [values[rng.integers(0, 33, 33)] for _ in range(20000)]
        found = [mean - error * (one.mean() - mean) / (one.std(ddof=1) / math.sqrt(33)) for one in samples]
        for bound, part in bounds.items():
            assert getattr(result, bound) == pytest.approx(np.quantile(found, part), abs=0.1 * error), bound
    assert result.delta == pytest.approx(difference.mean())
    assert result.interval_low < result.lower < result.delta < result.upper < result.interval_high


@pytest.mark.parametrize("count", [20, 60])
def test_a_loss_at_the_margin_passes_in_one_of_twenty_studies_at_most_though_losses_are_rare(
    count: int,
) -> None:
    # One patient in ten loses a lot: with 20 of them 12 % of the studies meet none of these.
    rng = np.random.default_rng(6)
    margin, studies, passed = 0.01, 500, 0
    for study in range(studies):
        losses = np.where(rng.random(count) < 0.1, np.abs(rng.normal(0.06, 0.03, count)), 0.0)
        difference = 0.1 * 0.0607 - margin - losses + rng.normal(0, 0.01, count)
        result = paired_bootstrap(
            make_sums(np.full(count, 0.8)),
            make_sums(0.8 + difference),
            [str(i) for i in range(count)],
            score_mean,
            names=["mean"],
            num_resamples=400,
            seed=study,
        )
        passed += decide_non_inferiority(result, {"mean": margin}, identical=False).overall == "pass"
    # 5 % are 25 studies; two binomial standard errors are 10.
    assert passed <= 35


def test_a_difference_of_one_case_keeps_a_bound_of_its_own_size() -> None:
    # Two of three resamples hold the only case that differs; the others would have no spread at all.
    reference = np.full(80, 0.9)
    candidate = reference.copy()
    candidate[7] -= 1e-4
    result = paired_bootstrap(
        make_sums(reference), make_sums(candidate), [str(i) for i in range(80)], score_mean, names=["mean"]
    )["mean"]
    assert not result.degenerate
    assert -3e-5 < result.lower < result.delta


def test_groups_are_resampled_whole() -> None:
    # Ten copies of each patient's image carry no more evidence than one.
    rng = np.random.default_rng(0)
    reference, candidate = rng.random(25), rng.random(25)
    names = [f"p{i}" for i in range(25)]
    once = paired_bootstrap(make_sums(reference), make_sums(candidate), names, score_mean, names=["mean"])[
        "mean"
    ]
    copied = paired_bootstrap(
        np.repeat(make_sums(reference), 10, axis=0),
        np.repeat(make_sums(candidate), 10, axis=0),
        [name for name in names for _ in range(10)],
        score_mean,
        names=["mean"],
    )["mean"]
    assert copied.num_groups == 25
    assert copied.lower == pytest.approx(once.lower, abs=1e-9)


def test_result_depends_on_the_seed_alone_and_not_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    sums = make_sums(rng.random(12)), make_sums(rng.random(12))
    groups = [str(i) for i in range(12)]
    whole = paired_bootstrap(*sums, groups, score_mean, names=["mean"], num_resamples=500, seed=7)
    other = paired_bootstrap(*sums, groups, score_mean, names=["mean"], num_resamples=500, seed=8)
    monkeypatch.setattr("edgekd.bootstrap._BLOCK_ELEMENTS", 12 * 37)
    assert paired_bootstrap(*sums, groups, score_mean, names=["mean"], num_resamples=500, seed=7) == whole
    assert whole["mean"].lower != other["mean"].lower


def test_bounds_cover_the_true_difference_at_least_as_often_as_they_say() -> None:
    # 400 simulated studies of 40 patients with 1 to 4 images, patients differ more than images do.
    rng = np.random.default_rng(11)
    true_delta, covered_lower, covered_interval, studies = -0.02, 0, 0, 400
    for study in range(studies):
        sizes = rng.integers(1, 5, 40)
        groups = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
        patient = np.repeat(rng.normal(true_delta, 0.05, 40), sizes)
        delta = patient + rng.normal(0, 0.01, len(groups))
        reference = rng.normal(0.8, 0.1, len(groups))
        result = paired_bootstrap(
            make_sums(reference),
            make_sums(reference + delta),
            groups,
            score_mean,
            names=["mean"],
            num_resamples=400,
            seed=study,
        )["mean"]
        covered_lower += result.lower <= true_delta
        covered_interval += result.interval_low <= true_delta <= result.interval_high
    # The groups that are added for what 40 cannot show make both bounds hold more often than they say.
    assert covered_lower / studies >= 0.95
    assert covered_interval / studies >= 0.95


def test_identical_masks_have_no_difference_in_any_score() -> None:
    rng = np.random.default_rng(2)
    truths = rng.integers(0, 2, (24, 8, 8)).astype(np.uint8)
    masks = rng.integers(0, 2, (24, 8, 8)).astype(np.uint8)
    sums = summarise_cases(count_confusions(truths, masks, 2))
    results = paired_bootstrap(
        sums,
        sums.copy(),
        [str(i) for i in range(24)],
        lambda s: score_sums(s, 2),
        names=METRICS,
        num_resamples=300,
    )
    for result in results.values():
        assert (result.delta, result.lower, result.interval_high) == (0.0, 0.0, 0.0)
        assert not result.degenerate


def test_one_group_with_a_difference_is_degenerate() -> None:
    result = paired_bootstrap(
        make_sums(np.array([0.8, 0.9])),
        make_sums(np.array([0.7, 0.8])),
        ["p", "p"],
        score_mean,
        names=["mean"],
    )["mean"]
    assert result.degenerate
    assert result.num_groups == 1


def test_undefined_resamples_make_it_degenerate_and_never_help() -> None:
    counts = np.zeros(30)
    counts[0] = 1  # one image in thirty has a lesion: a third of the resamples miss it
    reference, candidate = np.stack([counts, counts], axis=1), np.stack([counts * 0.9, counts], axis=1)
    result = paired_bootstrap(reference, candidate, [str(i) for i in range(30)], score_mean, names=["mean"])[
        "mean"
    ]
    assert result.degenerate
    assert result.lower == -math.inf
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["lower"] is None


def test_few_undefined_resamples_are_the_worst_case_and_not_degenerate() -> None:
    rng = np.random.default_rng(4)
    counts = np.zeros(30)
    counts[:5] = 1  # (25/30)**30 = 0.4 % of the resamples miss all five
    reference = np.stack([counts * rng.random(30), counts], axis=1)
    result = paired_bootstrap(
        reference, reference * [0.9, 1], [str(i) for i in range(30)], score_mean, names=["mean"]
    )["mean"]
    assert not result.degenerate
    assert math.isfinite(result.lower)


def test_score_undefined_everywhere_is_degenerate() -> None:
    zeros = np.zeros((25, 2))
    result = paired_bootstrap(zeros, zeros, [str(i) for i in range(25)], score_mean, names=["mean"])["mean"]
    assert result.degenerate
    assert math.isnan(result.delta)


def test_cases_that_are_not_paired_are_refused() -> None:
    sums = make_sums(np.ones(3))
    for reference, candidate, groups in [
        (sums, sums[:2], ["a"] * 3),
        (sums, sums, ["a"] * 2),
        (sums[:0], sums[:0], []),
    ]:
        with pytest.raises(InputError):
            paired_bootstrap(reference, candidate, groups, score_mean, names=["mean"])
    with pytest.raises(UsageError):
        paired_bootstrap(sums, sums, ["a"] * 3, score_mean, names=["mean"], confidence=95)
