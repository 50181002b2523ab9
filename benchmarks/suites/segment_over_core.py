"""``segment([frame])`` and the bare core graph in one process, in turn, by OpenVINO with the same hints.

`frame_to_mask` asks the same of processes, which on a shared machine differ by more than the answer.

    python -m edgekd.benchmarks.suites.segment_over_core BUNDLE --out FILE
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgekd.atomic import write_json_atomic
from edgekd.benchmarks.environment import describe_conditions, describe_environment
from edgekd.benchmarks.suites.frame_to_mask import (
    FRAME_SHAPE,
    build_frame,
    compare_rounds,
    find_core,
    time_calls,
)
from edgekd.bundle import Bundle, list_builds
from edgekd.runtime import load
from edgekd.runtime.precision import OPENVINO_HINTS

SEGMENT, CORE = "segment", "core"
WARM_UP = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    bundle: Path,
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    rounds: Annotated[int, typer.Option(min=2, help="Turns of either.")] = 100,
    frames: Annotated[int, typer.Option(min=1, help="Frames a turn, after two that warm up.")] = 6,
) -> None:
    """Write medians of every round, and their ratios, for each precision that the bundle holds."""
    opened = Bundle.open(bundle)
    precisions = [build.record.precision_asked for build in list_builds(opened, "openvino")]
    medians = {precision: time_precision(opened, precision, rounds, frames) for precision in precisions}
    result = {
        "frame": FRAME_SHAPE,
        "median_ms": {
            precision: {name: statistics.median(values) for name, values in times.items()}
            for precision, times in medians.items()
        },
        "segment_over_core": {
            precision: compare_rounds(times[SEGMENT], times[CORE]) for precision, times in medians.items()
        },
        "medians_ms": medians,
        "environment": describe_environment(),
        "conditions": describe_conditions(),
    }
    write_json_atomic(out, result)
    for key in ("median_ms", "segment_over_core"):
        typer.echo(f"{key}: {json.dumps(result[key])}")


def time_precision(bundle: Bundle, precision: str, rounds: int, frames: int) -> dict[str, list[float]]:
    """Return the medians of both in every round, ms."""
    frame = build_frame()
    with load(bundle, "openvino", precision) as segmenter:
        calls: dict[str, Callable[[], Any]] = {
            SEGMENT: lambda: segmenter.segment([frame]),
            CORE: open_core(bundle, precision),
        }
        turns = [
            {name: statistics.median(time_calls(call, frames, WARM_UP)) / 1e6 for name, call in calls.items()}
            for _ in range(rounds)
        ]
    return {name: [turn[name] for turn in turns] for name in calls}


def open_core(bundle: Bundle, precision: str) -> Callable[[], Any]:
    """Return what runs the core graph of a bundle once, on seeded noise."""
    import openvino

    spec = bundle.manifest.preprocess
    core: Any = openvino.Core()
    model = core.read_model(find_core(bundle, precision))
    shape = [1, spec.channels, spec.height, spec.width]
    model.reshape(shape)
    options = {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", options).create_infer_request()
    image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return lambda: request.infer({"image": image}, share_inputs=True, share_outputs=True)


if __name__ == "__main__":
    app()
