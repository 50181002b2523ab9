"""The harness against engines whose latencies are known."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekd.benchmarks.latency import LatencyResult, measure_latency
from edgekd.benchmarks.quantiles import summarise_samples_ms, take_quantile_ns
from edgekd.bundle import Bundle
from edgekd.errors import InputError, UsageError
from edgekd.runtime import LoadRequest, Segmenter, load
from edgekd.runtime.scripted import ScriptedEngine

FRAMES = [np.zeros((8, 8), np.uint8)]
MS = 1_000_000


def load_scripted(bundle: Bundle, latencies_ns: dict[str, tuple[int, ...]]) -> Segmenter:
    manifest = bundle.manifest
    request = LoadRequest(bundle, "scripted", "fp32", "CPU")
    return Segmenter(ScriptedEngine(request, latencies_ns), manifest.preprocess, manifest.classes)


class CountingSegmenter:
    """Counts queries and may be interrupted at one of them."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.count, self.interrupt_at, self.closed = 0, interrupt_at, False
        self.collector_states: list[bool] = []
        self.seen: list[int] = []

    @property
    def stages(self) -> dict[str, Callable[[Any], Any]]:
        return {"infer": self.segment}

    def segment(self, frames: Any) -> Any:
        self.count += 1
        self.seen.append(int(frames[0][0, 0]))
        self.collector_states.append(gc.isenabled())
        if self.count == self.interrupt_at:
            raise KeyboardInterrupt
        return frames

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("part", "number", "expected"),
    [
        (0.5, 1, None),
        (0.5, 2, 1),
        (0.5, 5, 3),
        (0.9, 9, None),
        (0.9, 10, 9),
        (0.99, 99, None),
        (0.99, 1000, 990),
        (0.999, 999, None),
        (0.999, 1000, 999),
    ],
)
def test_quantile_is_the_nearest_rank_and_needs_a_sample_beyond_it(
    part: float, number: int, expected: int | None
) -> None:
    samples = np.random.default_rng(0).permutation(np.arange(1, number + 1))
    assert take_quantile_ns(samples, part) == expected


def test_summary_is_in_ms_and_says_what_is_not_measured() -> None:
    two = summarise_samples_ms(np.array([3 * MS, MS]))
    assert two == {"p50": 1.0, "p90": None, "p99": None, "p99.9": None, "max": 3.0}
    assert summarise_samples_ms(np.zeros(0, np.int64)) == dict.fromkeys(two)


def test_known_latencies_are_found_end_to_end_and_by_stage(bundle: Bundle) -> None:
    script = {"preprocess": (MS // 2,), "infer": (2 * MS, 2 * MS, 2 * MS, 6 * MS)}
    result = measure_latency(
        lambda: load_scripted(bundle, script), FRAMES, min_queries=96, min_seconds=0, num_warmup=4
    )
    # Sample i is call 1 + 4 + i of a script of four. Other work can only lengthen a call, so the shortest of
    # the 24 calls at each place of the script is what the script says.
    assert result.samples_ns.min() >= 2.5 * MS
    shortest_ms = result.samples_ns.reshape(24, 4).min(axis=0) / MS
    assert shortest_ms == pytest.approx([2.5, 2.5, 6.5, 2.5], rel=0.1)
    infer_ms = result.stage_samples_ns["infer"].reshape(24, 4).min(axis=0) / MS
    assert infer_ms == pytest.approx([2, 2, 6, 2], rel=0.1)
    assert result.stage_samples_ns["preprocess"].min() / MS == pytest.approx(0.5, rel=0.1)
    assert result.percentiles_ms["p99"] is None
    assert result.facts["synchronisation"].startswith("spins")


def test_overhead_of_harness_and_segmenter_is_far_below_a_millisecond(bundle: Bundle) -> None:
    result = measure_latency(lambda: load(bundle, "null"), FRAMES, min_queries=300, min_seconds=0)
    assert np.median(result.samples_ns) < 0.3 * MS
    assert sum(np.median(samples) for samples in result.stage_samples_ns.values()) < 0.3 * MS
    assert list(result.stage_samples_ns) == ["preprocess", "upload", "infer", "download", "postprocess"]


def test_both_minima_hold_in_both_loops() -> None:
    by_number = measure_latency(CountingSegmenter, FRAMES, min_queries=25, min_seconds=0, num_warmup=0)
    assert len(by_number.samples_ns) == len(by_number.stage_samples_ns["infer"]) == 25
    by_time = measure_latency(CountingSegmenter, FRAMES, min_queries=1, min_seconds=0.05, num_warmup=0)
    assert len(by_time.samples_ns) > 25
    assert by_time.samples_ns.sum() < 0.08e9


def test_first_query_and_warm_up_are_kept_out_and_frames_take_turns() -> None:
    segmenter = CountingSegmenter()
    frames = [np.full((2, 2), value, np.uint8) for value in (1, 2, 3)]
    result = measure_latency(lambda: segmenter, frames, min_queries=6, min_seconds=0, num_warmup=5)
    assert segmenter.count == 1 + 2 * (5 + 6)
    assert segmenter.seen[:7] == [1, 1, 2, 3, 1, 2, 1]
    assert (result.num_frames, result.frame_shapes) == (3, ((2, 2),))
    assert segmenter.closed


def test_garbage_collector_rests_while_samples_are_taken_and_works_again() -> None:
    segmenter = CountingSegmenter()
    measure_latency(lambda: segmenter, FRAMES, min_queries=3, min_seconds=0, num_warmup=2)
    assert segmenter.collector_states == [True] * 3 + [False] * 3 + [True] * 2 + [False] * 3
    assert gc.isenabled()


def test_interruption_keeps_what_was_measured() -> None:
    segmenter = CountingSegmenter(interrupt_at=1 + 2 + 31)
    result = measure_latency(lambda: segmenter, FRAMES, min_queries=1000, min_seconds=0, num_warmup=2)
    assert result.interrupted
    assert len(result.samples_ns) == 30
    assert result.stage_samples_ns == {}
    assert any("interrupted" in text for text in result.warnings)
    assert segmenter.closed
    with pytest.raises(KeyboardInterrupt):
        measure_latency(lambda: CountingSegmenter(interrupt_at=1), FRAMES)


def make_result(samples_ms: list[float], load_average: float = 0.0) -> LatencyResult:
    return LatencyResult(
        load_ns=1,
        first_ns=1,
        samples_ns=(np.array(samples_ms) * MS).astype(np.int64),
        stage_samples_ns={},
        num_warmup=0,
        num_frames=1,
        frame_shapes=((2, 2),),
        interrupted=False,
        conditions={"before": {"load_average_1min": load_average}, "after": {}},
        facts={},
    )


def test_numbers_are_doubted_where_they_deserve_it() -> None:
    assert make_result([1.0] * 200).warnings == ()
    assert "not measured" in make_result([1.0] * 50).warnings[0]
    assert "unstable" in make_result([1.0] * 190 + [5.0] * 10).warnings[0]
    assert "drifting" in make_result([1.0] * 100 + [1.3] * 100).warnings[0]
    assert "busy" in make_result([1.0] * 200, load_average=1000.0).warnings[0]


def test_measurements_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(InputError):
        measure_latency(CountingSegmenter, [])
    with pytest.raises(UsageError):
        measure_latency(CountingSegmenter, FRAMES, min_queries=0)
    with pytest.raises(UsageError):
        measure_latency(CountingSegmenter, FRAMES, min_seconds=-1)
