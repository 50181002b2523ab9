"""Every way a verdict can come out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.bootstrap import Difference, paired_bootstrap
from edgekd.errors import UsageError
from edgekd.metrics import METRICS
from edgekd.stats import DEFAULT_MARGINS, decide_non_inferiority


def count_cases(values: np.ndarray) -> np.ndarray:
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
            count_cases(np.full(count, 0.8)),
            count_cases(0.8 + difference),
            [str(i) for i in range(count)],
            lambda sums: {"mean": sums[..., 0] / sums[..., 1]},
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
        np.full((1, 1), 0.8), np.full((1, 1), 0.7), ["a"], lambda sums: {"mean": sums[..., 0]}, names=["mean"]
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
