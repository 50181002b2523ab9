"""The segmenter lets good frames through, and after an error nothing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgekd.bundle import Build, Bundle
from edgekd.errors import InputError, SegmenterFault, UsageError
from edgekd.runtime import MaskRing, Segmenter, load
from edgekd.runtime.base import Stage


class StubbornEngine:
    """Answers with ones, and fails or answers wrongly when told to."""

    name = "stubborn"
    synchronisation = "none"

    def __init__(self, height: int, width: int) -> None:
        self.size = (height, width)
        self.error: BaseException | None = None
        self.wrong_result: Any = None
        self.closed = 0
        self.users = 0
        self.most_users = 0

    @classmethod
    def find_obstacle(cls, build: Build, device: str) -> str | None:
        return None

    def stages(self) -> Mapping[str, Stage]:
        return {"infer": self._infer}

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed += 1

    def _infer(self, frames: Any) -> Any:
        self.users += 1
        self.most_users = max(self.users, self.most_users)
        threading.Event().wait(0.002)
        self.users -= 1
        if self.error is not None:
            raise self.error
        return (
            np.ones((len(frames), *self.size), np.uint8) if self.wrong_result is None else self.wrong_result
        )


@pytest.fixture
def engine(student_bundle: Bundle) -> StubbornEngine:
    spec = student_bundle.manifest.preprocess
    return StubbornEngine(spec.height, spec.width)


@pytest.fixture
def segmenter(engine: StubbornEngine, student_bundle: Bundle) -> Segmenter:
    return Segmenter(engine, student_bundle.manifest.preprocess, student_bundle.manifest.classes)


FRAME = np.zeros((40, 50), np.uint8)


def test_after_an_error_no_mask_is_returned_until_reloaded(
    segmenter: Segmenter, engine: StubbornEngine
) -> None:
    assert segmenter.segment([FRAME]).all()
    engine.error = RuntimeError("out of memory")
    with pytest.raises(SegmenterFault, match=r"failed in infer.*out of memory"):
        segmenter.segment([FRAME])
    engine.error = None
    with pytest.raises(SegmenterFault, match=r"failed in an earlier call.*edgekd\.runtime\.load"):
        segmenter.segment([FRAME])
    with pytest.raises(SegmenterFault):
        segmenter.stages["infer"]([FRAME])


def test_an_interrupted_engine_is_faulty_too(segmenter: Segmenter, engine: StubbornEngine) -> None:
    engine.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        segmenter.segment([FRAME])
    engine.error = None
    with pytest.raises(SegmenterFault):
        segmenter.segment([FRAME])


@pytest.mark.parametrize(
    "result",
    [None, np.ones((1, 3, 3), np.uint8), np.ones((1, 32, 48), np.int64), np.ones((2, 32, 48), np.uint8), "x"],
)
def test_a_wrong_result_is_a_fault(segmenter: Segmenter, engine: StubbornEngine, result: Any) -> None:
    engine.wrong_result = [] if result is None else result
    with pytest.raises(SegmenterFault, match="its result"):
        segmenter.segment([FRAME])
    engine.wrong_result = None
    with pytest.raises(SegmenterFault, match="an earlier call"):
        segmenter.segment([FRAME])


@pytest.mark.parametrize(
    "frames",
    [
        [],
        FRAME,
        [FRAME.astype(np.uint16)],
        [FRAME.astype(np.float32)],
        [np.zeros((1, 1), np.uint8)],
        [np.zeros((4, 5, 4), np.uint8)],
        [FRAME, FRAME.tolist()],
    ],
)
def test_a_bad_frame_is_refused_and_does_no_harm(segmenter: Segmenter, frames: Any) -> None:
    with pytest.raises(InputError):
        segmenter.segment(frames)
    assert segmenter.segment([FRAME]).shape == (1, 32, 48)


def test_masks_are_written_into_the_callers_array(segmenter: Segmenter) -> None:
    out = np.zeros((2, 32, 48), np.uint8)
    assert segmenter.segment([FRAME, FRAME], out) is out
    assert out.all()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((2, 32, 48), np.uint8),
        np.zeros((1, 32, 47), np.uint8),
        np.zeros((1, 32, 48), np.int8),
        np.broadcast_to(np.uint8(0), (1, 32, 48)),
        [[[0]]],
    ],
)
def test_an_array_that_cannot_hold_the_masks(segmenter: Segmenter, engine: StubbornEngine, out: Any) -> None:
    with pytest.raises(UsageError, match=r"do not fit into out|out is no array: received list"):
        segmenter.segment([FRAME], out=out)
    # It is refused before the engine runs, and does no harm.
    assert engine.most_users == 0
    assert segmenter.status == "ready"


def test_an_error_leaves_the_callers_array_alone(segmenter: Segmenter, engine: StubbornEngine) -> None:
    out = np.full((1, 32, 48), 7, np.uint8)
    engine.error = RuntimeError("out of memory")
    with pytest.raises(SegmenterFault):
        segmenter.segment([FRAME], out=out)
    assert (out == 7).all()


def test_status_tells_what_can_be_done(segmenter: Segmenter, engine: StubbornEngine) -> None:
    assert (segmenter.status, segmenter.fault) == ("ready", None)
    with pytest.raises(InputError):
        segmenter.segment([FRAME[0]])
    assert segmenter.status == "ready"
    engine.error = RuntimeError("out of memory")
    with pytest.raises(SegmenterFault):
        segmenter.segment([FRAME])
    assert (segmenter.status, segmenter.fault) == ("failed", engine.error)
    segmenter.close()
    assert segmenter.status == "closed"


def test_closing_waits_for_the_call_that_runs(segmenter: Segmenter, engine: StubbornEngine) -> None:
    begun, may_end = threading.Event(), threading.Event()
    seen: list[int] = []

    def infer(frames: Any) -> Any:
        begun.set()
        may_end.wait(10)
        seen.append(engine.closed)
        return np.ones((len(frames), *engine.size), np.uint8)

    segmenter._stages = {"infer": segmenter._guard("infer", infer)}
    results: list[Any] = []
    caller = threading.Thread(target=lambda: results.append(segmenter.segment([FRAME])))
    caller.start()
    assert begun.wait(10)
    closer = threading.Thread(target=segmenter.close)
    closer.start()
    closer.join(0.02)
    may_end.set()
    caller.join(10)
    closer.join(10)
    assert (seen, engine.closed, len(results)) == ([0], 1, 1)


def test_a_ring_hands_out_its_buffers_in_turn(null_segmenter: Segmenter) -> None:
    ring = MaskRing(null_segmenter, slots=3, frames=2)
    first = [ring.take() for _ in range(3)]
    assert [slot.shape for slot in first] == [(2, 32, 48)] * 3
    assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(first))
    assert [ring.take() is slot for slot in first] == [True] * 3
    with pytest.raises(UsageError, match="0 slots"):
        MaskRing(null_segmenter, slots=0)


def test_threads_take_turns(segmenter: Segmenter, engine: StubbornEngine) -> None:
    threads = [threading.Thread(target=segmenter.segment, args=([FRAME],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.most_users == 1


def test_a_closed_segmenter_says_so(segmenter: Segmenter, engine: StubbornEngine) -> None:
    with segmenter:
        segmenter.segment([FRAME])
    segmenter.close()
    assert engine.closed == 1
    with pytest.raises(UsageError, match="closed"):
        segmenter.segment([FRAME])


def test_frames_as_an_array(null_segmenter: Segmenter) -> None:
    assert null_segmenter.segment(np.zeros((4, 40, 50), np.uint8)).shape == (4, 32, 48)
    assert null_segmenter.segment(np.zeros((2, 40, 50, 3), np.uint8)).shape == (2, 32, 48)


def test_a_bundle_is_loaded_by_path_too(student_bundle: Bundle) -> None:
    with load(str(student_bundle.path), "null") as segmenter:
        assert not segmenter.segment([FRAME]).any()
