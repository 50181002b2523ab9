"""A frame of 1024×768 to its mask: EdgeKD's engines against what people write by hand, and the bare network.

    by hand    cv2.resize, NumPy normalisation, ONNX Runtime in float32 with all cores, NumPy argmax
    openvino,  ``segment([frame])`` of `edgekd.runtime`, in every precision the bundle holds
    onnx
    bare       the median that OpenVINO's own ``benchmark_app`` gives for the core graph with the same hints

Each contender is a process of its own, because threads that spin in one slow whatever runs beside them; the
processes take turns in an order that changes, a precision's bare run right beside its whole one, and ratios
are of medians of the same round.

    python -m edgekd.benchmarks.suites.frame_to_mask run BUNDLE --out FILE

Where processes differ by more than what is asked, `segment_over_core` asks in one process.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgekd.atomic import write_json_atomic
from edgekd.benchmarks.environment import describe_conditions, describe_environment
from edgekd.bundle import Bundle, find_build, list_builds
from edgekd.errors import MachineError
from edgekd.export.source_graphs import CORE_FILE
from edgekd.processor import count_usable_cores
from edgekd.runtime import load
from edgekd.runtime.precision import OPENVINO_HINTS

FRAME_SHAPE = (768, 1024)
BY_HAND, BARE = "by hand", "bare"
WARM_UP = 20
# The command benchmark_app, also where the wheel's scripts are on no path.
BENCHMARK_APP = "from openvino.tools.benchmark.main import main; main()"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def build_frame() -> np.ndarray:
    """Return a frame (768, 1024) uint8 of seeded noise; no contender's time depends on what it shows."""
    return np.random.default_rng(0).integers(0, 256, FRAME_SHAPE, dtype=np.uint8)


def build_hand_written(bundle: Bundle) -> Callable[[np.ndarray], np.ndarray]:
    """Return frame → mask as most scripts have it; the resize is bilinear without antialiasing.

    Raises:
        MachineError: OpenCV is missing.
    """
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise MachineError(
            "the hand-written way needs OpenCV", action="pip install opencv-python-headless"
        ) from error
    import onnxruntime

    core = find_build(bundle, "onnx").resolve_file(CORE_FILE)
    options = onnxruntime.SessionOptions()
    # The library counts the machine's cores, also those that this process may not use.
    options.intra_op_num_threads = count_usable_cores()
    session: Any = onnxruntime.InferenceSession(str(core), options, providers=["CPUExecutionProvider"])
    spec = bundle.manifest.preprocess

    def segment(frame: np.ndarray) -> np.ndarray:
        small = cv2.resize(frame, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR)
        image = (small.astype(np.float32) * spec.scale - spec.mean[0]) / spec.std[0]
        logits = session.run(None, {"image": image[None, None].astype(np.float32)})[0]
        return logits[0].argmax(axis=0).astype(np.uint8)

    return segment


@app.command()
def worker(bundle: Path, contender: str, frames: int) -> None:
    """Time one contender and print its samples in ns as JSON."""
    opened, frame = Bundle.open(bundle), build_frame()
    if contender == BY_HAND:
        run = build_hand_written(opened)
    else:
        target, _, precision = contender.partition(" ")
        segmenter = load(opened, target, precision)
        # Bound here: the segmenter lives as long as the process.
        run = lambda image: segmenter.segment([image])  # noqa: E731
    typer.echo(json.dumps(time_calls(lambda: run(frame), frames, WARM_UP)))


def time_calls(call: Callable[[], Any], count: int, warm_up: int) -> list[int]:
    """Return how long each of ``count`` calls took, ns, after some that are not counted."""
    samples: list[int] = []
    for _ in range(warm_up + count):
        start = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - start)
    return samples[warm_up:]


def run_worker(bundle: Path, contender: str, frames: int) -> float:
    """Return the median of a contender's process, ms."""
    module = "edgekd.benchmarks.suites.frame_to_mask"
    command = [sys.executable, "-m", module, "worker", str(bundle), contender, str(frames)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return statistics.median(json.loads(result.stdout)) / 1e6


def run_benchmark_app(bundle: Path, precision: str, seconds: int) -> float:
    """Return the median latency that OpenVINO's benchmark_app gives for the core graph, ms."""
    opened = Bundle.open(bundle)
    spec = opened.manifest.preprocess
    core = find_core(opened, precision)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", BENCHMARK_APP, "-m", str(core), "-d", "CPU"]
        command += ["-hint", "latency", "-infer_precision", OPENVINO_HINTS[precision], "-api", "sync"]
        command += ["-shape", f"[1,{spec.channels},{spec.height},{spec.width}]", "-t", str(seconds)]
        command += ["-report_type", "no_counters", "-report_folder", folder, "-json_stats"]
        subprocess.run(command, check=True, capture_output=True)
        report = json.loads((Path(folder) / "benchmark_report.json").read_text())
    return float(report["execution_results"]["latency (ms)"])


def find_core(bundle: Bundle, precision: str) -> Path:
    """Return the core graph that OpenVINO's build in a precision was made from."""
    return find_build(bundle, "onnx", "int8" if precision == "int8" else "fp32").resolve_file(CORE_FILE)


@app.command()
def run(
    bundle: Path,
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    rounds: Annotated[int, typer.Option(min=2, help="Turns of every contender.")] = 12,
    frames: Annotated[int, typer.Option(min=10, help="Frames a turn.")] = 100,
    target: Annotated[list[str] | None, typer.Option(help="Ours: onnx, openvino, or both.")] = None,
) -> None:
    """Let the contenders take turns and write medians of every round, and ratios."""
    builds = [build.record for build in list_builds(Bundle.open(bundle))]
    wanted = target or ["onnx", "openvino"]
    ours = [f"{one.target} {one.precision_asked}" for one in builds if one.target in wanted]
    turns = [[BY_HAND], *([name, *_name_bare(name)] for name in ours)]
    medians: dict[str, list[float]] = {name: [] for turn in turns for name in turn}
    for index in range(rounds):
        chance = random.Random(index)
        order = [chance.sample(turn, len(turn)) for turn in chance.sample(turns, len(turns))]
        for name in itertools.chain.from_iterable(order):
            kind, _, precision = name.partition(" ")
            measured = (
                run_benchmark_app(bundle, precision, 2) if kind == BARE else run_worker(bundle, name, frames)
            )
            medians[name].append(measured)
        sys.stderr.write(f"round {index + 1} of {rounds}\n")
    result = {
        "frame": FRAME_SHAPE,
        "medians_ms": medians,
        "median_ms": {name: statistics.median(values) for name, values in medians.items()},
        "faster_than_by_hand": {name: compare_rounds(medians[BY_HAND], medians[name]) for name in ours},
        "segment_over_bare": {
            name: compare_rounds(medians[name], medians[bare]) for name in ours for bare in _name_bare(name)
        },
        "environment": describe_environment(),
        "conditions": describe_conditions(),
    }
    write_json_atomic(out, result)
    for key in ("median_ms", "faster_than_by_hand", "segment_over_bare"):
        typer.echo(f"{key}: {json.dumps(result[key])}")


def _name_bare(name: str) -> list[str]:
    """Return the bare run that belongs to one of our contenders: OpenVINO's have one."""
    target, _, precision = name.partition(" ")
    return [f"{BARE} {precision}"] if target == "openvino" else []


def compare_rounds(above: list[float], below: list[float]) -> dict[str, float]:
    """Return the median of the rounds' ratios, and the ratios' quartiles."""
    ratios = [one / other for one, other in zip(above, below, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": round(middle, 3), "quartile_low": round(low, 3), "quartile_high": round(high, 3)}


if __name__ == "__main__":
    app()
