"""The suite's statistics: the mean over sets and structures, its interval, and the price of trying many."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.benchmarks.suites.distillation.gains import (
    Pair,
    adjust_holm,
    build_pair,
    describe_scope,
    estimate_gains,
)
from edgekd.errors import InputError

PIXELS = 1000


def draw_counts(rng: np.random.Generator, hits: np.ndarray) -> list[list[int]]:
    """Return confusion counts of images with 200 lesion pixels of which ``hits`` were found."""
    found = np.clip(hits, 0, 200).astype(int)
    return [[PIXELS - 200 - 20, 20, 200 - hit, hit] for hit in found.tolist()]


def build_pairs(
    seed: int, shift: float, *, sets: int = 2, seeds: int = 3, groups: int = 25, seed_noise: float = 4.0
) -> list[Pair]:
    """Return runs whose hits differ by ``shift`` on average, with noise of images and of runs."""
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for index in range(sets):
        names = [f"g{case // 2}" for case in range(2 * groups)]
        base = rng.normal(140, 25, 2 * groups)
        for student in ("one", "two"):
            for run in range(seeds):
                noise = [rng.normal(0, 10, 2 * groups) + rng.normal(0, seed_noise) for _ in range(2)]
                counts = [draw_counts(rng, base + noise[0]), draw_counts(rng, base + shift + noise[1])]
                pairs.append(build_pair(f"set{index}", student, run, names, counts[0], counts[1]))
    return pairs


def test_equal_runs_gain_nothing() -> None:
    pairs = build_pairs(0, 0.0)
    same = [Pair(one.set, one.student, one.seed, one.groups, one.control, one.control, 2) for one in pairs]
    for gain in estimate_gains(same, num_resamples=200).values():
        assert (gain.delta, gain.low, gain.high, gain.p_value) == (0, 0, 0, 1)


def test_the_gain_is_the_mean_over_sets_and_structures_whatever_their_sizes() -> None:
    large = build_pairs(1, 8.0, sets=1, seeds=1, groups=40)
    small = [
        Pair("other", one.student, one.seed, one.groups, one.control, one.method, 2)
        for one in build_pairs(2, -2.0, sets=1, seeds=4, groups=10)
    ]
    apart = [estimate_gains(part, num_resamples=50)["dice"].delta for part in (large, small)]
    together = estimate_gains([*large, *small], num_resamples=50)["dice"].delta
    assert together == pytest.approx(sum(apart) / 2)


def test_dice_by_hand() -> None:
    control, method = [[90, 0, 5, 5], [80, 0, 10, 10]], [[90, 0, 0, 10], [80, 0, 10, 10]]
    pair = build_pair("set", "one", 0, ["a", "b"], control, method)
    gain = estimate_gains([pair], num_resamples=100)
    assert gain["dice"].delta == pytest.approx((1 - 2 / 3) / 2)
    assert gain["acc"].delta == pytest.approx(5 / 200)


def test_a_planted_gain_is_found_and_no_gain_is_seldom_claimed() -> None:
    found = [estimate_gains(build_pairs(seed, 12.0), num_resamples=300)["dice"].low > 0 for seed in range(20)]
    assert sum(found) >= 19
    claims = [estimate_gains(build_pairs(seed, 0.0), num_resamples=300)["dice"] for seed in range(100, 180)]
    wrong = sum(gain.low > 0 or gain.high < 0 for gain in claims)
    assert wrong <= 8  # of 80 at the level of 5 percent


def draw_runs(rng: np.random.Generator, *, seeds: int) -> list[Pair]:
    """Return runs of four structures that gain nothing on average, alike in all cases: seeds differ."""
    pairs: list[Pair] = []
    for student in range(4):
        for run in range(seeds):
            counts = [draw_counts(rng, np.full(3, hits)) for hits in (100, 100 + round(rng.normal(0, 20)))]
            pairs.append(build_pair("set", str(student), run, ["a", "b", "c"], counts[0], counts[1]))
    return pairs


def test_the_interval_over_seeds_covers_what_it_should() -> None:
    rng = np.random.default_rng(0)
    gains = [estimate_gains(draw_runs(rng, seeds=3), num_resamples=200)["acc"] for _ in range(200)]
    # Three of three seeds drawn, the variance a third too little, covered 0.88 of them.
    assert np.mean([gain.low <= 0 <= gain.high for gain in gains]) > 0.91
    assert {gain.num_seeds for gain in gains} == {3}


def test_of_one_seed_the_interval_is_about_cases_alone() -> None:
    gain = estimate_gains(draw_runs(np.random.default_rng(0), seeds=1), num_resamples=50)["acc"]
    assert gain.low == gain.delta == gain.high
    assert describe_scope([gain]) == "cases alone, as of one seed"


def test_the_fewest_seeds_of_a_place_count() -> None:
    pairs = draw_runs(np.random.default_rng(0), seeds=3)
    whole, part = (estimate_gains(some, num_resamples=50)["acc"] for some in (pairs, pairs[:-2]))
    assert [(gain.num_seeds, gain.most_seeds) for gain in (whole, part)] == [(3, 3), (1, 3)]
    assert describe_scope([whole]) == "cases and seeds"
    assert describe_scope([part]) == "cases, and seeds where there are several"
    assert describe_scope([whole, part]) == "cases, and seeds where there are several"


def test_runs_that_were_judged_by_other_masks_are_refused() -> None:
    with pytest.raises(InputError, match="different masks"):
        build_pair("set", "one", 0, ["a"], [[90, 0, 5, 5]], [[89, 0, 5, 6]])
    with pytest.raises(InputError, match="not paired"):
        build_pair("set", "one", 0, ["a"], [[90, 0, 5, 5]], [[90, 0, 5, 5]] * 2)
    with pytest.raises(InputError, match="no run beside a control"):
        estimate_gains([])


def test_holm_by_hand() -> None:
    # 4 · 0.005; 3 · 0.01; 2 · 0.03; then 0.04, which may not fall below the one before.
    adjusted = adjust_holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}, 4)
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert adjust_holm({"a": 0.9, "b": 0.8}, 2) == {"a": 1.0, "b": 1.0}


def test_methods_that_have_not_finished_count_too() -> None:
    assert adjust_holm({"a": 0.01, "b": 0.02}, 10) == pytest.approx({"a": 0.1, "b": 0.18})
    # Whatever the others turn out to be, no value rises.
    rng = np.random.default_rng(0)
    for _ in range(50):
        everything = {str(index): float(value) for index, value in enumerate(rng.uniform(0, 0.2, 6))}
        early = adjust_holm({name: everything[name] for name in "024"}, 6)
        late = adjust_holm(everything, 6)
        assert all(late[name] <= early[name] + 1e-12 for name in early)
