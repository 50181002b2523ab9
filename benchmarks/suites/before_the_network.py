"""What OpenVINO's processor does before the network, by the way that is taken and by the one that was.

    resize   from a frame of a known size to the tensor: the form of `edgekd.runtime.openvino_resize` against
             the deploy graph's own, which takes any size
    luma     a colour frame for a grey student: `edgekd.runtime.openvino_luma` against NumPy

Both of a pair run in one process, in turn; ratios are of medians of the same round.

    python -m edgekd.benchmarks.suites.before_the_network --out FILE
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
from edgekd.benchmarks.suites.frame_to_mask import FRAME_SHAPE, compare_rounds, time_calls
from edgekd.export.graphs import build_preprocess_graph
from edgekd.runtime.frames import FramePacker
from edgekd.runtime.openvino_luma import LumaWriter
from edgekd.runtime.openvino_resize import simplify_resize
from edgekd.specs import PreprocessSpec

SIZES = ((480, 640), (600, 800), FRAME_SHAPE, (720, 1280), (1080, 1920), (300, 399))
SPECS: dict[str, dict[str, Any]] = {
    "gray": {},
    "gray without antialias": {"antialias": False},
    "rgb": {"color": "rgb", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "16 bit": {"frame_dtype": "uint16", "scale": 1 / 65535},
}
WARM_UP, CALLS = 2, 6
Call = Callable[[], Any]


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each.")] = 30,
    size: Annotated[int, typer.Option(min=8, help="Side of the tensor.")] = 256,
) -> None:
    """Write medians, and the ratios of new to old, for each kind and size of frame."""
    rows: list[dict[str, Any]] = []
    pairs = {"resize": open_resize, "luma": open_luma}
    for kind, fields in SPECS.items():
        spec = PreprocessSpec(height=size, width=size, **fields)
        for frame_size in SIZES:
            for what, open_pair in pairs.items():
                if what == "luma" and kind != "gray":
                    continue
                new, old = time_pair(*open_pair(spec, frame_size), rounds)
                medians = {"new_ms": statistics.median(new), "old_ms": statistics.median(old)}
                ratio = compare_rounds(new, old)
                rows.append(
                    {"what": what, "kind": kind, "frame": frame_size, **medians, "new_over_old": ratio}
                )
                typer.echo(json.dumps(rows[-1]))
    result = {"tensor": size, "rows": rows, "environment": describe_environment()}
    write_json_atomic(out, result | {"conditions": describe_conditions()})


def time_pair(new: Call, old: Call, rounds: int) -> tuple[list[float], list[float]]:
    """Return the medians of every round, ms."""
    turns = [
        [statistics.median(time_calls(call, CALLS, WARM_UP)) / 1e6 for call in (new, old)]
        for _ in range(rounds)
    ]
    return [turn[0] for turn in turns], [turn[1] for turn in turns]


def open_resize(spec: PreprocessSpec, frame_size: tuple[int, int]) -> tuple[Call, Call]:
    """Return what preprocesses a frame of noise by the form for a known size, and by the graph's own."""
    import openvino

    core: Any = openvino.Core()
    frame = draw_frame(spec, (1, *frame_size, spec.channels))

    def compile_graph(*, simple: bool) -> Call:
        model = core.read_model(build_preprocess_graph(spec).SerializeToString())
        model.reshape({"frame": frame.shape})
        if simple:
            simplify_resize(model, spec)
        options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = core.compile_model(model, "CPU", options).create_infer_request()
        return lambda: request.infer([frame], share_inputs=True, share_outputs=True)

    return compile_graph(simple=True), compile_graph(simple=False)


def open_luma(spec: PreprocessSpec, frame_size: tuple[int, int]) -> tuple[Call, Call]:
    """Return what makes a colour frame of noise grey by OpenVINO, and by NumPy."""
    import openvino

    frames = [draw_frame(spec, (*frame_size, 3))]
    new, old = FramePacker(spec, LumaWriter(openvino.Core(), spec, threads=None)), FramePacker(spec)
    return lambda: new.pack(frames), lambda: old.pack(frames)


def draw_frame(spec: PreprocessSpec, shape: tuple[int, ...]) -> np.ndarray:
    """Return seeded noise."""
    return np.random.default_rng(0).integers(0, spec.white + 1, shape, dtype=spec.frame_dtype)


if __name__ == "__main__":
    typer.run(main)
