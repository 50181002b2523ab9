"""What became of frames that came in time with a scanner: latency from arrival, drops, misses, mask age."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.benchmarks.quantiles import PERCENTILES, Samples, bound_rate, summarise_samples_ms

NEVER = -1
"""Start and end of a frame that was dropped."""
MAX_LATENESS_NS = 1_000_000
MIN_IDLE = 20
"""Frames that found the engine idle, below which the harness's own lateness is not judged."""


@dataclasses.dataclass(frozen=True)
class PacedResult:
    """Arrival, start and end of every frame; all else follows from them.

    Attributes:
        fps, jitter, queue, drop, deadline_ns: as in ``PaceConfig``.
        arrivals_ns, starts_ns, ends_ns: (n,) int64 from the start of the schedule; NEVER for a dropped frame.
        interrupted: Ctrl-C ended it early.
    """

    fps: float
    jitter: float
    queue: int
    drop: str
    deadline_ns: int
    arrivals_ns: Samples
    starts_ns: Samples
    ends_ns: Samples
    interrupted: bool

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"paced, {self.fps:g} fps"

    @property
    def finished(self) -> npt.NDArray[np.bool_]:
        """(n,) which frames got a mask."""
        return self.ends_ns != NEVER

    @property
    def latencies_ns(self) -> Samples:
        """From arrival to mask, of the frames that got one."""
        return (self.ends_ns - self.arrivals_ns)[self.finished]

    @property
    def misses(self) -> npt.NDArray[np.bool_]:
        """(n,) frames that were dropped or whose mask came after the deadline."""
        return ~self.finished | (self.ends_ns - self.arrivals_ns > self.deadline_ns)

    @property
    def lateness_ns(self) -> Samples:
        """How late the harness itself took frames for which the engine was idle."""
        done = self.finished
        arrivals, starts, ends = self.arrivals_ns[done], self.starts_ns[done], self.ends_ns[done]
        idle = np.ones(len(starts), np.bool_)
        idle[1:] = ends[:-1] <= arrivals[1:]
        return (starts - arrivals)[idle]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the numbers."""
        found: list[str] = []
        if self.interrupted:
            found.append(f"{self.name}: interrupted")
        late = self.lateness_ns
        if len(late) >= MIN_IDLE and np.quantile(late, 0.99) > MAX_LATENESS_NS:
            share = float((late > MAX_LATENESS_NS).mean())
            found.append(
                f"{self.name}: the harness itself woke up more than 1 ms late for {share:.1%} of the frames; "
                "the machine is too busy to keep this pace"
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, all times included, as JSON values."""
        misses, count = self.misses, len(self.arrivals_ns)
        done = self.finished
        return {
            "scenario": "paced",
            "name": self.name,
            "fps": self.fps,
            "jitter": self.jitter,
            "queue": self.queue,
            "drop": self.drop,
            "deadline_ms": self.deadline_ns / 1e6,
            "num_frames": count,
            "num_samples": int(done.sum()),
            "percentiles_ms": summarise_samples_ms(self.latencies_ns),
            "wait_percentiles_ms": summarise_samples_ms((self.starts_ns - self.arrivals_ns)[done]),
            "service_percentiles_ms": summarise_samples_ms((self.ends_ns - self.starts_ns)[done]),
            "lateness_percentiles_ms": summarise_samples_ms(self.lateness_ns),
            "dropped": count - int(done.sum()),
            "missed": int(misses.sum()),
            "miss_rate": float(misses.mean()) if count else None,
            "miss_rate_upper": bound_rate(int(misses.sum()), count),
            "longest_miss_run": find_longest_run(misses),
            "mask_age_ms": summarise_age_ms(self.arrivals_ns[done], self.ends_ns[done]),
            "interrupted": self.interrupted,
            "warnings": list(self.warnings),
            "arrivals_ns": self.arrivals_ns.tolist(),
            "starts_ns": self.starts_ns.tolist(),
            "ends_ns": self.ends_ns.tolist(),
        }


def find_longest_run(flags: npt.NDArray[np.bool_]) -> int:
    """Return the length of the longest row of true values."""
    padded = np.concatenate([[False], flags, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(padded))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def summarise_age_ms(arrivals_ns: Samples, ends_ns: Samples) -> dict[str, float | None]:
    """Return how old the shown mask is, over time: mean, percentiles and max in ms.

    A mask is shown from its end until the next one's; meanwhile its age, counted from the arrival of its
    frame, grows with the clock (age of information, Kaul, Yates & Gruteser 2012). Percentiles are over time,
    not over masks: at p99 the age is below this for 99 % of the time. None for fewer than two masks.

    Args:
        arrivals_ns, ends_ns: (n,) of the finished frames in their order.
    """
    names = ("mean", *PERCENTILES, "max")
    if len(ends_ns) < 2:
        return dict.fromkeys(names)
    youngest = (ends_ns[:-1] - arrivals_ns[:-1]).astype(np.float64)
    oldest = (ends_ns[1:] - arrivals_ns[:-1]).astype(np.float64)
    spans = oldest - youngest
    total = float(spans.sum())
    mean = float(((youngest + oldest) / 2 * spans).sum()) / total
    # Between two of these ages the time spent below an age grows with the number of masks that pass it.
    edges = np.concatenate([youngest, oldest])
    order = np.argsort(edges, kind="stable")
    ages = edges[order]
    passing = np.cumsum(np.concatenate([np.ones(len(spans)), -np.ones(len(spans))])[order])
    below = np.concatenate([[0.0], np.cumsum(passing[:-1] * np.diff(ages))])
    values = {name: float(np.interp(part * total, below, ages)) for name, part in PERCENTILES.items()}
    return {name: value / 1e6 for name, value in {"mean": mean, **values, "max": float(ages[-1])}.items()}
