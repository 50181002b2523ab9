"""The bootstrap against hand calculation and simulation, and every way a verdict can come out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgekd.errors import InputError, UsageError
from edgekd.metrics import METRICS, count_confusions, score_sums, summarise_cases
from edgekd.stats import DEFAULT_MARGINS, Difference, decide_non_inferiority, paired_bootstrap


def score_mean(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of the first column by the count in the second; NaN where the count is zero."""
    with np.errstate(invalid="ignore"):
        return {"mean": sums[..., 0] / sums[..., 1]}


def make_sums(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


def make_difference(**changes: float | bool) -> Difference:
    fields: dict = {
        "reference": 0.8,
        "candidate": 0.8,
        "delta": 0.0,
        "lower": -0.001,
        "upper": 0.0015,
        "interval_low": -0.002,
        "interval_high": 0.002,
        "num_groups": 40,
        "degenerate": False,
    }
    return Difference(**(fields | changes))


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
    monkeypatch.setattr("edgekd.stats._BLOCK_ELEMENTS", 12 * 37)
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


def test_all_scores_within_their_margins_pass() -> None:
    differences = {name: make_difference() for name in METRICS}
    verdict = decide_non_inferiority(differences, identical=False)
    assert verdict.overall == "pass"
    assert verdict.reasons == ()
    assert DEFAULT_MARGINS == {"acc": 0.002, "miou": 0.01, "dice": 0.01, "kappa": 0.01}


@pytest.mark.parametrize("name", METRICS)
def test_one_score_beyond_its_margin_fails_all(name: str) -> None:
    differences = {key: make_difference() for key in METRICS}
    margin = DEFAULT_MARGINS[name]
    differences[name] = make_difference(delta=-2 * margin, lower=-3 * margin, upper=-1.1 * margin)
    verdict = decide_non_inferiority(differences, identical=False)
    assert verdict.overall == "fail"
    assert verdict.groups_needed is None
    assert [key for key, value in verdict.metrics.items() if value == "fail"] == [name]
    assert name in verdict.reasons[0]


@pytest.mark.parametrize("name", METRICS)
def test_a_bound_on_the_margin_does_not_pass(name: str) -> None:
    differences = {key: make_difference() for key in METRICS}
    differences[name] = make_difference(lower=-DEFAULT_MARGINS[name])
    assert decide_non_inferiority(differences, identical=False).overall == "inconclusive"


def test_between_the_bounds_nothing_is_decided_and_the_groups_that_would_are_named() -> None:
    # The bound lies 0.04 below the estimate and may lie 0.02: with a chance of one half four times the groups
    # would do, with 80 % (1.645 + 0.842)² / 1.645² = 2.285 times as many again.
    differences = {"dice": make_difference(delta=0.01, lower=-0.03, upper=0.05)}
    verdict = decide_non_inferiority(differences, {"dice": 0.01}, identical=False)
    assert verdict.overall == "inconclusive"
    assert verdict.groups_needed == math.ceil(40 * 4 * 2.2853)
    assert str(verdict.groups_needed) in verdict.reasons[0]
    worse = {"dice": make_difference(delta=-0.03, lower=-0.09, upper=0.01)}
    assert decide_non_inferiority(worse, {"dice": 0.01}, identical=False).groups_needed == math.ceil(
        40 * 4 * 2.2853
    )
    on_it = {"dice": make_difference(delta=-0.01, lower=-0.09, upper=0.01)}
    assert decide_non_inferiority(on_it, {"dice": 0.01}, identical=False).groups_needed is None


def test_as_many_groups_as_were_named_decide_in_four_of_five_studies() -> None:
    rng = np.random.default_rng(8)

    def judge(count: int, seed: int) -> tuple[str, int | None]:
        difference = rng.normal(-0.002, 0.03, count)
        result = paired_bootstrap(
            make_sums(np.full(count, 0.8)),
            make_sums(0.8 + difference),
            [str(i) for i in range(count)],
            score_mean,
            names=["mean"],
            num_resamples=400,
            seed=seed,
        )
        verdict = decide_non_inferiority(result, {"mean": 0.01}, identical=False)
        return verdict.overall, verdict.groups_needed

    named = [count for seed in range(40) for _, count in [judge(40, seed)] if count is not None]
    typical = int(np.median(named))
    assert 87 < typical < 400  # (0.03 (1.645 + 0.842) / 0.008)² = 87 by the normal theory alone
    decided = sum(judge(typical, seed)[0] == "pass" for seed in range(200))
    assert decided / 200 >= 0.75


@pytest.mark.parametrize("change", [{"num_groups": 19}, {"degenerate": True}])
def test_few_groups_or_a_degenerate_bootstrap_decide_nothing(change: dict) -> None:
    differences = {name: make_difference(**change) for name in METRICS}
    verdict = decide_non_inferiority(differences, identical=False)
    assert verdict.overall == "inconclusive"
    assert verdict.groups_needed == (20 if "num_groups" in change else None)
    assert decide_non_inferiority(differences, identical=True).overall == "pass"


def test_number_of_groups_is_claimed_only_where_every_count_is_known() -> None:
    known, unknown = make_difference(num_groups=19), make_difference(num_groups=19, degenerate=True)
    verdict = decide_non_inferiority({**dict.fromkeys(METRICS, known), "dice": unknown}, identical=False)
    assert verdict.groups_needed is None
    assert verdict.reasons == (
        "19 groups decide nothing, at least 20 are needed; no number of groups is known to decide",
    )
    # One group: nothing is seen of how groups differ.
    one = paired_bootstrap(
        make_sums(np.full(1, 0.8)), make_sums(np.full(1, 0.7)), ["a"], score_mean, names=["mean"]
    )
    alone = decide_non_inferiority(one, {"mean": 0.01}, identical=False)
    assert (alone.overall, alone.groups_needed) == ("inconclusive", None)
    assert "would decide" not in alone.reasons[0]


def test_twenty_groups_are_enough() -> None:
    differences = {name: make_difference(num_groups=20) for name in METRICS}
    assert decide_non_inferiority(differences, identical=False).overall == "pass"


@pytest.mark.parametrize("margins", [{}, {"dice": 0.0}, {"dice": -0.01}, {"dice": math.nan}, {"auc": 0.01}])
def test_margins_that_cannot_be_meant_are_refused(margins: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        decide_non_inferiority({"dice": make_difference()}, margins, identical=True)


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
