"""How long is long enough, and how sure a rate is."""

from __future__ import annotations

import time
import types

import numpy as np
import pytest

from edgekd.benchmarks import stopping
from edgekd.benchmarks.latency import measure_latency
from edgekd.benchmarks.pacing import PaceConfig
from edgekd.benchmarks.quantiles import bound_rate
from edgekd.benchmarks.scenarios import ScenarioConfig
from edgekd.benchmarks.stopping import StopRule, Stopwatch, measure_instability
from edgekd.errors import UsageError

FRAMES = [np.zeros((2, 2), np.uint8)]


class Segmenter:
    stages: dict = {}  # noqa: RUF012

    def segment(self, frames: object) -> object:
        return frames

    def close(self) -> None:
        pass


def test_instability_is_the_interval_of_the_median() -> None:
    rng = np.random.default_rng(0)
    # Independent samples: the half width is about 1.96 * 1.2533 * sd / sqrt(n).
    widths = [measure_instability((1000 + rng.normal(0, 50, 4000)).tolist()) for _ in range(40)]
    expected = 1.96 * 1.2533 * 50 / np.sqrt(4000) / 1000
    assert np.mean([width for width in widths if width is not None]) == pytest.approx(expected, rel=0.25)
    assert measure_instability([1000] * 99) is None
    assert measure_instability([1000] * 100) == 0.0
    # A drift makes neighbours alike: the interval must grow although the values are the same.
    drifting = np.sort(1000 + rng.normal(0, 50, 4000)).tolist()
    assert (measure_instability(drifting) or 0) > 10 * expected


def test_stability_prolongs_a_measurement_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [0]
    monkeypatch.setattr(stopping, "time", types.SimpleNamespace(perf_counter_ns=lambda: now_ns[0]))
    settled, drifting = [1000] * 200, list(range(1000, 1200))
    rule = StopRule(min_queries=150, min_seconds=1, stability=0.001, max_seconds=5)
    watch = Stopwatch(rule)
    now_ns[0] = 999_999_999
    assert not watch.is_done(settled)
    now_ns[0] = 1_000_000_000
    assert not watch.is_done(settled[:149])
    assert watch.is_done(settled)
    assert not Stopwatch(rule).is_done(settled)
    watch = Stopwatch(rule)
    now_ns[0] += 4_900_000_000
    assert not watch.is_done(drifting)
    now_ns[0] += 200_000_000
    assert watch.is_done(drifting)


class SlowingSegmenter(Segmenter):
    """Takes a microsecond more at every call, so that no two medians are equal, however coarse the clock."""

    calls = 0

    def segment(self, frames: object) -> object:
        self.calls += 1
        end = time.perf_counter_ns() + 1000 * self.calls
        while time.perf_counter_ns() < end:
            pass
        return frames


def test_median_that_did_not_settle_is_said() -> None:
    result = measure_latency(
        SlowingSegmenter, FRAMES, min_queries=1, min_seconds=0, stability=1e-9, max_seconds=0.02, num_warmup=0
    )
    assert any("not settled" in text for text in result.warnings)


@pytest.mark.parametrize(
    "rule",
    [
        StopRule(min_queries=0),
        StopRule(min_seconds=-1),
        StopRule(stability=0),
        StopRule(stability=1.5),
        StopRule(stability=0.1, max_seconds=-1),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rule: StopRule) -> None:
    with pytest.raises(UsageError):
        rule.check()


def test_end_of_a_wait_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(UsageError, match="max-seconds would do nothing"):
        StopRule(max_seconds=60.0).check()
    StopRule(stability=0.1, max_seconds=60.0).check()
    StopRule(stability=0.1).check()


@pytest.mark.parametrize(
    ("events", "trials", "bound"),
    [
        # Closed forms: none in n is 1 - 0.05^(1/n); all but one in n is 0.95^(1/n).
        (0, 100, 1 - 0.05**0.01),
        (99, 100, 0.95**0.01),
        (100, 100, 1.0),
        # Tables of Clopper and Pearson, one-sided 95 %.
        (1, 10, 0.3942),
        (3, 100, 0.0757),
        (30, 3000, 0.013557),
    ],
)
def test_upper_bound_of_a_rate(events: int, trials: int, bound: float) -> None:
    assert bound_rate(events, trials) == pytest.approx(bound, rel=2e-3)


def test_upper_bound_covers_the_rate_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    bounds = {k: bound_rate(k, 200) or 0 for k in range(40)}
    covered = [bounds[int(k)] >= 0.03 for k in rng.binomial(200, 0.03, 4000)]
    assert 0.95 <= np.mean(covered) < 0.99


def test_frames_that_come_in_time_meet_both_minima() -> None:
    def count(rule: StopRule, fps: float) -> int:
        scenarios = ScenarioConfig(("paced",), paces=(PaceConfig(fps=fps),))
        result = measure_latency(
            Segmenter,
            FRAMES,
            min_queries=rule.min_queries,
            min_seconds=rule.min_seconds,
            num_warmup=0,
            scenarios=scenarios,
        )
        return result.to_dict()["scenarios"][0]["num_frames"]

    assert count(StopRule(350, 0), 2000) == 350
    assert count(StopRule(7, 0), 2000) == 7
    assert count(StopRule(7, 0.01), 2000) == 20
    # Nothing asked for: what p99 needs, since 200 frames at 30 a second would take 7 s.
    assert count(StopRule(min_seconds=0), 2000) == 100


def test_rule_tells_its_default_by_value() -> None:
    assert StopRule().to_dict()["min_queries"] == StopRule().num_queries == 200
    assert StopRule(5).to_dict()["min_queries"] == 5
    assert StopRule().to_dict()["max_seconds"] == StopRule(stability=0.1).longest_seconds == 60
    assert StopRule(stability=0.1, max_seconds=5).to_dict()["max_seconds"] == 5
