"""Several frames a query, and all scenarios in one measurement."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgekd.benchmarks.latency import measure_latency
from edgekd.benchmarks.pacing import PaceConfig
from edgekd.benchmarks.scenarios import ScenarioConfig, measure_batches
from edgekd.benchmarks.stopping import StopRule
from edgekd.errors import UsageError

FRAMES = [np.full((2, 2), value, np.uint8) for value in (1, 2, 3)]
ALL = ScenarioConfig(("single-stream", "offline", "multi-stream", "paced"), streams=2, batch=5)


class Recorder:
    """Remembers the frames of each query and may be interrupted at one."""

    stages: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.queries: list[list[int]] = []
        self.interrupt_at, self.closed = interrupt_at, False

    def segment(self, frames: Any) -> Any:
        if len(self.queries) == self.interrupt_at:
            raise KeyboardInterrupt
        self.queries.append([int(frame[0, 0]) for frame in frames])
        return frames

    def close(self) -> None:
        self.closed = True


def test_queries_take_the_frames_in_turn() -> None:
    recorder = Recorder()
    result = measure_batches(
        recorder, FRAMES, scenario="offline", frames_a_query=2, rule=StopRule(4, 0), num_warmup=1
    )
    assert recorder.queries == [[1, 2], [1, 2], [3, 1], [2, 3], [1, 2]]
    assert len(result.samples_ns) == 4
    expected = 8 / (result.wall_ns / 1e9)
    assert result.frames_per_second == pytest.approx(expected)
    assert result.wall_ns >= result.samples_ns.sum()


def test_all_scenarios_come_from_one_loaded_engine() -> None:
    recorder = Recorder()
    result = measure_latency(
        lambda: recorder,
        FRAMES,
        min_queries=6,
        min_seconds=0,
        num_warmup=0,
        scenarios=ScenarioConfig(ALL.names, streams=2, batch=5, paces=(PaceConfig(fps=2000),)),
    )
    assert [one.to_dict()["scenario"] for one in result.scenarios] == ["offline", "multi-stream", "paced"]
    sizes = [len(query) for query in recorder.queries]
    assert sizes == [1] * 7 + [5] * 6 + [2] * 6 + [1] * sizes[19:].count(1)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["scenarios"][0]["frames_a_query"] == 5
    assert len(content["scenarios"][2]["arrivals_ns"]) == 6
    assert recorder.closed


@pytest.mark.parametrize(("at", "kept"), [(4, []), (9, ["offline"]), (14, ["offline", "multi-stream"])])
def test_interruption_keeps_the_scenarios_until_then(at: int, kept: list[str]) -> None:
    result = measure_latency(
        lambda: Recorder(interrupt_at=at),
        FRAMES,
        min_queries=5,
        min_seconds=0,
        num_warmup=0,
        scenarios=ScenarioConfig(ALL.names, 2, 5),
    )
    assert result.interrupted
    assert [one.to_dict()["scenario"] for one in result.scenarios] == kept
    assert len(result.samples_ns) == min(at - 1, 5)
    if kept:
        assert any(kept[-1] in text for text in result.warnings)


@pytest.mark.parametrize(
    "config",
    [
        ScenarioConfig(("ofline",)),
        ScenarioConfig(streams=0),
        ScenarioConfig(batch=0),
        # Numbers of scenarios that are not asked for.
        ScenarioConfig(("offline",), streams=5),
        ScenarioConfig(("multi-stream",), batch=5),
        ScenarioConfig(("single-stream",), paces=(PaceConfig(fps=77),)),
    ],
)
def test_scenarios_that_cannot_be_meant_are_refused(config: ScenarioConfig) -> None:
    with pytest.raises(UsageError):
        config.check()
