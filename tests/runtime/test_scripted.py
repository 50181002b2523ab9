"""The fake engines take the time they say."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgekd.errors import UsageError
from edgekd.runtime import STAGES

FRAME = np.zeros((40, 50), np.uint8)


def test_each_stage_takes_its_scripted_time_in_turn(build_scripted_segmenter) -> None:
    script = {"infer": (4_000_000, 1_000_000), "upload": (2_000_000,)}
    segmenter = build_scripted_segmenter(script)
    assert list(segmenter.stages) == ["upload", "infer"]
    for call in range(4):
        for stage, latencies in script.items():
            start_ns = time.perf_counter_ns()
            segmenter.stages[stage]([FRAME])
            taken_ns = time.perf_counter_ns() - start_ns
            # Never shorter; how much longer is up to the machine.
            assert taken_ns >= latencies[call % len(latencies)]


def test_the_script_is_among_the_facts(build_scripted_segmenter) -> None:
    assert build_scripted_segmenter({"infer": (5,)}).engine.facts()["latencies_ns"] == {"infer": [5]}


@pytest.mark.parametrize("script", [{"infr": (1,)}, {"infer": ()}, {"infer": (5, -1)}])
def test_a_script_that_cannot_be_played(build_scripted_segmenter, script: dict) -> None:
    with pytest.raises(UsageError):
        build_scripted_segmenter(script)


def test_the_null_engine_has_every_stage_and_answers_with_background(null_segmenter) -> None:
    assert tuple(null_segmenter.stages) == STAGES
    masks = null_segmenter.segment([FRAME, FRAME])
    assert masks.shape == (2, 32, 48)
    assert not masks.any()
