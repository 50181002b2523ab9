"""Energy of a frame: queries back to back in a loop of their own while a meter runs; idle power before.

Readings need a thread where the source gives power and no counter, and a thread would disturb latencies: so
nothing of this loop is used for them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.jetson_power import sum_rails
from edgekd.benchmarks.loops import TimedSegmenter
from edgekd.benchmarks.power import PowerMeter

READING_S = 0.05
MIN_READINGS = 5
IDLE_S = 1.0
NO_METER = "no meter here (INA3221, tegrastats, NVML, RAPL) tells it"
INTERRUPTED = "Ctrl-C ended the run first"
"""Why there is no energy, beside what a meter itself gives as a reason."""


@dataclasses.dataclass(frozen=True)
class EnergyResult:
    """What a meter saw while frames were segmented one after another.

    Attributes:
        source, covers: of the meter.
        num_frames: frames segmented.
        seconds: that it took.
        joules: over these seconds.
        idle_w: mean power in the second before, the engine loaded and waiting; None where not readable.
        num_readings: of power, 0 where energy is counted.
        rails_w: mean power by rail where power was read.
    """

    source: str
    covers: str
    num_frames: int
    seconds: float
    joules: float
    idle_w: float | None
    num_readings: int
    rails_w: dict[str, float]

    @property
    def joules_a_frame(self) -> float:
        """All of the energy over the number of frames."""
        return self.joules / self.num_frames

    @property
    def joules_a_frame_above_idle(self) -> float | None:
        """The part that the frames caused: idle power taken off."""
        if self.idle_w is None:
            return None
        return (self.joules - self.idle_w * self.seconds) / self.num_frames

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            **dataclasses.asdict(self),
            "mean_w": self.joules / self.seconds,
            "joules_a_frame": self.joules_a_frame,
            "joules_a_frame_above_idle": self.joules_a_frame_above_idle,
        }


def measure_energy(
    segmenter: TimedSegmenter, frames: Sequence[npt.NDArray[Any]], meter: PowerMeter, seconds: float
) -> EnergyResult | str:
    """Segment frames for at least ``seconds`` and return the energy, or why the meter said too little.

    Args:
        segmenter: a loaded engine, warm.
        frames: taken in turn.
        meter: read before, and after or meanwhile.
        seconds: at least; a meter's counters move in steps of up to 100 ms, so short runs say little.
    """
    idle_w = _measure_idle_w(meter, min(IDLE_S, seconds))
    batches = [[frame] for frame in frames]
    with _watch(meter) as watch:
        begin = time.perf_counter()
        count = 0
        while count == 0 or time.perf_counter() - begin < seconds:
            segmenter.segment(batches[count % len(batches)])
            count += 1
        duration = time.perf_counter() - begin
    joules = watch.compute_joules(duration)
    if joules is None:
        return watch.explain_silence()
    return EnergyResult(
        meter.name, meter.covers, count, duration, joules, idle_w, len(watch.readings), watch.average_rails()
    )


def _measure_idle_w(meter: PowerMeter, seconds: float) -> float | None:
    with _watch(meter) as watch:
        begin = time.perf_counter()
        time.sleep(seconds)
        duration = time.perf_counter() - begin
    joules = watch.compute_joules(duration)
    return None if joules is None or duration <= 0 else joules / duration


class _Watch:
    """Two readings of a counter, or readings of power by a thread until it is stopped."""

    def __init__(self, meter: PowerMeter) -> None:
        self.readings: list[dict[str, float]] = []
        self.times: list[float] = []
        self._meter = meter
        self._counted_j: list[float | None] = [meter.read_energy_j()]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        if self._counted_j[0] is None:
            self._thread.start()

    def stop(self) -> None:
        self._counted_j.append(self._meter.read_energy_j())
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def compute_joules(self, duration: float) -> float | None:
        before, after = self._counted_j
        if before is not None and after is not None:
            # A counter that stands still moves in longer steps, or not at all: nothing takes no energy.
            return after - before if after > before else None
        if len(self.readings) < MIN_READINGS:
            return None
        # Mean power by the trapezoid rule over the readings' own time, then over the loop's.
        watts, times = np.array([sum_rails(one) for one in self.readings]), np.array(self.times)
        area = float(((watts[1:] + watts[:-1]) / 2 * np.diff(times)).sum())
        return area / float(times[-1] - times[0]) * duration

    def explain_silence(self) -> str:
        name = self._meter.name
        if self._counted_j[0] is not None:
            return f"the counter of {name} did not step, or ended"
        return f"{name} gave {len(self.readings)} readings of power, at least {MIN_READINGS} are needed"

    def average_rails(self) -> dict[str, float]:
        names = self.readings[0] if self.readings else {}
        return {name: float(np.mean([one.get(name, 0.0) for one in self.readings])) for name in names}

    def _read(self) -> None:
        while not self._stop.is_set():
            rails = self._meter.read_power_w()
            if not rails:
                return
            self.readings.append(dict(rails))
            self.times.append(time.perf_counter())
            self._stop.wait(READING_S)


@contextlib.contextmanager
def _watch(meter: PowerMeter) -> Iterator[_Watch]:
    watch = _Watch(meter)
    try:
        yield watch
    finally:
        watch.stop()
