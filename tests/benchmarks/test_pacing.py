"""The open loop under a clock that only the test moves: exact, whatever the machine does meanwhile."""

from __future__ import annotations

import heapq
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgekd.benchmarks import pacing
from edgekd.benchmarks.paced_result import NEVER, PacedResult, find_longest_run, summarise_age_ms
from edgekd.benchmarks.pacing import PaceConfig, measure_paced, plan_arrivals_ns
from edgekd.errors import UsageError

MS = 1_000_000
TICK_NS = 100
FRAMES = [np.zeros((2, 2), np.uint8)]


class Clock:
    """Moves by a tick whenever it is read, and by as much as it is told to."""

    def __init__(self) -> None:
        self.now_ns = 5 * MS

    def perf_counter_ns(self) -> int:
        self.now_ns += TICK_NS
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class ClockedSegmenter:
    """Takes the scripted times of the test's clock; may be interrupted."""

    stages: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, clock: Clock, services_ns: Sequence[int], interrupt_at: int | None = None) -> None:
        self.clock, self.services_ns, self.interrupt_at = clock, services_ns, interrupt_at
        self.count = 0

    def segment(self, frames: Any) -> Any:
        if self.count == self.interrupt_at:
            raise KeyboardInterrupt
        self.clock.now_ns += self.services_ns[self.count % len(self.services_ns)]
        self.count += 1
        return frames

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    fake = types.SimpleNamespace(perf_counter_ns=made.perf_counter_ns, sleep=made.sleep)
    monkeypatch.setattr(pacing, "time", fake)
    return made


def simulate_queue(
    arrivals_ns: Sequence[int], services_ns: Sequence[int], size: int, drop: str
) -> list[int | None]:
    """The same queue by events: the end of every frame, None where it is dropped."""
    events: list[tuple[int, int, int]] = [(at, 1, index) for index, at in enumerate(arrivals_ns)]
    heapq.heapify(events)
    ends: list[int | None] = [None] * len(arrivals_ns)
    waiting: list[int] = []
    busy, served = False, 0
    while events:
        now, kind, index = heapq.heappop(events)
        if kind == 0:
            ends[index], busy = now, False
        elif len(waiting) < size or not busy:
            waiting.append(index)
        elif drop == "oldest":
            waiting = [*waiting[1:], index]
        if not busy and waiting:
            first, busy = waiting.pop(0), True
            heapq.heappush(events, (now + services_ns[served % len(services_ns)], 0, first))
            served += 1
    return ends


@pytest.mark.parametrize("drop", ["oldest", "newest"])
@pytest.mark.parametrize("queue", [1, 2, 5])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_queue_is_that_of_an_event_simulation(clock: Clock, drop: Any, queue: int, jitter: float) -> None:
    services_ns = (np.random.default_rng(4).gamma(0.6, 14.0, 97) * MS).astype(int).tolist()
    config = PaceConfig(fps=100, jitter=jitter, queue=queue, drop=drop, seed=3)
    result = measure_paced(ClockedSegmenter(clock, services_ns), FRAMES, config, 300)
    expected = simulate_queue(plan_arrivals_ns(config, 300).tolist(), services_ns, queue, drop)
    dropped = np.array([end is None for end in expected])
    assert 10 < dropped.sum() < 250
    assert (~result.finished == dropped).all()
    ends = np.array([end for end in expected if end is not None])
    # Each reading of the clock moves it, so the measured ends lag by a few ticks a frame.
    assert np.abs(result.ends_ns[result.finished] - ends).max() < 300 * 10 * TICK_NS


def test_stall_is_seen_as_an_open_loop_client_sees_it(clock: Clock) -> None:
    """One stall of 100 ms in 300 frames at 60 a second, all waiting: six frames are late, none is lost."""
    services_ns = [2 * MS] * 300
    services_ns[150] = 100 * MS
    config = PaceConfig(fps=60, queue=50)
    result = measure_paced(ClockedSegmenter(clock, services_ns), FRAMES, config, 300)
    waits, expected = 0.0, []
    for service in services_ns:  # Lindley's recursion
        expected.append(waits + service)
        waits = max(0.0, waits + service - config.period_ns)
    assert np.abs(result.latencies_ns - np.array(expected)).max() < 0.1 * MS
    late = result.latencies_ns > config.period_ns
    assert late.sum() == 6
    facts = result.to_dict()
    assert (facts["missed"], facts["dropped"], facts["longest_miss_run"]) == (6, 0, 6)
    assert facts["percentiles_ms"]["p99"] > 50
    # The closed loop with the same services sees one late query in 300: its p99 is that of a quiet engine.
    assert np.sort(services_ns)[int(0.99 * 300) - 1] == 2 * MS


def test_arrivals_follow_the_rate_and_stay_in_order() -> None:
    even = plan_arrivals_ns(PaceConfig(fps=50), 10)
    assert (np.diff(even) == 20 * MS).all()
    uneven = plan_arrivals_ns(PaceConfig(fps=50, jitter=0.49, seed=1), 2000)
    assert uneven[0] >= 0
    assert (np.diff(uneven) > 0).all()
    assert np.diff(uneven).std() > 2 * MS
    assert abs(int(uneven[-1]) - 1999 * 20 * MS) < 40 * MS
    assert (uneven == plan_arrivals_ns(PaceConfig(fps=50, jitter=0.49, seed=1), 2000)).all()


def test_interruption_keeps_the_frames_that_were_finished(clock: Clock) -> None:
    config = PaceConfig(fps=100, queue=3)
    segmenter = ClockedSegmenter(clock, [25 * MS], interrupt_at=20)
    result = measure_paced(segmenter, FRAMES, config, 500)
    assert result.interrupted
    assert result.finished.sum() == 20
    assert result.finished[-1]
    assert 40 < len(result.arrivals_ns) < 60
    assert "interrupted" in result.warnings[0]
    nothing = measure_paced(ClockedSegmenter(clock, [MS], interrupt_at=0), FRAMES, config, 5)
    assert len(nothing.arrivals_ns) == 0
    assert nothing.to_dict()["miss_rate_upper"] is None


def test_lateness_of_the_harness_is_told_apart(clock: Clock) -> None:
    clock.sleep = lambda seconds: setattr(clock, "now_ns", clock.now_ns + round(seconds * 1e9) + 3 * MS)  # type: ignore[method-assign]
    pacing.time.sleep = clock.sleep
    result = measure_paced(ClockedSegmenter(clock, [MS]), FRAMES, PaceConfig(fps=50), 60)
    assert "woke up more than 1 ms late" in result.warnings[0]
    assert result.to_dict()["percentiles_ms"]["p50"] == pytest.approx(3, abs=0.2)


def test_age_of_the_mask_is_integrated_over_time() -> None:
    # Masks end at 10, 20, 60 with frames of 0, 15, 50: the age runs 10 to 20, then 5 to 45, then 10.
    ages = summarise_age_ms(np.array([0, 15, 50]) * MS, np.array([10, 20, 60]) * MS)
    assert ages["mean"] == pytest.approx((15 * 10 + 25 * 40) / 50)
    assert ages["max"] == 45
    grid = np.concatenate([np.linspace(10, 20, 100_000), np.linspace(5, 45, 400_000)])
    for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert ages[name] == pytest.approx(np.quantile(grid, part), abs=0.01)
    assert summarise_age_ms(np.array([0]), np.array([1]))["mean"] is None


def make_result(ends_ns: list[int], deadline_ns: int = 5) -> PacedResult:
    ends = np.array(ends_ns, np.int64)
    arrivals = np.arange(len(ends)) * 10
    starts = np.where(ends == NEVER, NEVER, arrivals)
    return PacedResult(100.0, 0.0, 1, "oldest", deadline_ns, arrivals, starts, ends, False)


def test_drops_and_late_masks_are_misses() -> None:
    facts = make_result([5, 16, NEVER, NEVER, 45]).to_dict()
    assert (facts["dropped"], facts["missed"], facts["longest_miss_run"]) == (2, 3, 3)
    assert facts["miss_rate"] == 0.6
    assert facts["miss_rate_upper"] > 0.6
    assert find_longest_run(np.array([False, True, True, False, True])) == 2


@pytest.mark.parametrize(
    "config",
    [
        PaceConfig(fps=0),
        PaceConfig(jitter=0.5),
        PaceConfig(queue=0),
        PaceConfig(drop="random"),  # type: ignore[arg-type]
        PaceConfig(deadline_ms=0),
    ],
)
def test_paces_that_cannot_be_meant_are_refused(config: PaceConfig) -> None:
    with pytest.raises(UsageError):
        config.check()
