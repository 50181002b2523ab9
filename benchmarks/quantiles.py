"""Percentiles of latency samples by one documented rule."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}

Samples = npt.NDArray[np.int64]
"""(n,) int64, nanoseconds in the order measured."""


def take_quantile_ns(samples: Samples, part: float) -> int | None:
    """Return the sample below or at which ``part`` of all samples lie (nearest rank, no interpolation).

    None, that is "not measured", where fewer than 1 / (1 - part) samples exist: then the quantile would be
    the maximum under another name. p99 needs 100 samples, p90 ten, p50 two.
    """
    needed = math.ceil(round(1.0 / (1.0 - part), 6))
    if len(samples) < needed:
        return None
    rank = math.ceil(round(part * len(samples), 6))
    return int(np.sort(samples)[rank - 1])


def summarise_samples_ms(samples: Samples) -> dict[str, float | None]:
    """Return p50, p90, p99 and max in ms, None where there are too few samples."""
    quantiles = {name: take_quantile_ns(samples, part) for name, part in PERCENTILES.items()}
    quantiles["max"] = int(samples.max()) if len(samples) else None
    return {name: None if value is None else value / 1e6 for name, value in quantiles.items()}
