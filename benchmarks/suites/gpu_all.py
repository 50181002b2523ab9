"""All checks that need an NVIDIA GPU, in one run and one result file; exits 3 where there is none.

    python -m edgekd.benchmarks.suites.gpu_all BUNDLE --out FILE.json

BUNDLE holds builds for TensorRT or TensorRT-RTX (``edgekd export BUNDLE --target tensorrt --target
tensorrt-rtx``). Measured are: the kernel against the NumPy truth; its bandwidth against a copy on the device;
the kernel against the same steps as separate operators (torch); a frame end to end against the engine alone;
and the time to the first mask without cache, with an empty one and with a filled one. All samples are kept.
Exits 1 where the kernel misses its bar.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from edgekd.atomic import write_json_atomic
from edgekd.benchmarks.environment import describe_conditions, describe_environment
from edgekd.benchmarks.suites.kernel_bench import KernelBench
from edgekd.benchmarks.suites.kernel_cases import FLOAT_LIMIT, draw_cases, measure_case
from edgekd.bundle import Build, Bundle, list_builds
from edgekd.errors import EdgeKDError
from edgekd.preprocess.context import CudaContext, import_pycuda
from edgekd.preprocess.device import CudaDevice, find_device
from edgekd.preprocess.kernel import count_moved_bytes
from edgekd.runtime import load
from edgekd.runtime.tensorrt_library import import_library
from edgekd.runtime.tensorrt_plan import PlanRunner
from edgekd.specs import PreprocessSpec

FRAME = (768, 1024)
TENSOR = (256, 256)
CALLS, ROUNDS = 50, 30
BATCH = 16


def check_kernel(device: CudaDevice, count: int) -> dict[str, Any]:
    """Return the kernel's largest difference from the truth, as a part of the range, in float and half."""
    largest = {"float": 0.0, "half": 0.0}
    for case in draw_cases(count, seed=1):
        for name, half in (("float", False), ("half", True)):
            bench = KernelBench(device, case.spec, half=half)
            try:
                for frames in case.frames:
                    bench.upload(frames)
                    with bench.cuda.activate():
                        bench.launch()
                        bench.cuda.synchronize()
                    found = measure_case(case.spec, frames, bench.download())
                    largest[name] = max(largest[name], found)
            finally:
                bench.close()
    passed = max(largest.values()) <= FLOAT_LIMIT
    return {"specs": count, "largest_difference_of_range": largest, "limit": FLOAT_LIMIT, "passed": passed}


def measure_bandwidth(device: CudaDevice) -> dict[str, Any]:
    """Return what the kernel moves a second, and what a copy on the device moves, alternating."""
    spec = PreprocessSpec(height=TENSOR[0], width=TENSOR[1])
    bench = KernelBench(device, spec)
    try:
        bench.upload(draw_frames(BATCH))
        moved = BATCH * count_moved_bytes(spec, FRAME)
        with bench.cuda.activate():
            # A copy reads and writes each byte.
            source, target = (bench.cuda.allocate(moved // 2) for _ in range(2))

            def copy() -> None:
                driver, stream = bench.cuda.driver, bench.cuda.stream
                driver.memcpy_dtod_async(int(target), int(source), moved // 2, stream)

            calls = {"kernel": bench.launch, "copy": copy}
            samples = _time_alternating(calls, bench.cuda.synchronize)
    finally:
        bench.close()
    speeds = {name: moved / statistics.median(times) / 1e9 for name, times in samples.items()}
    return {
        "moved_bytes_a_call": moved,
        "gb_per_s": speeds,
        "kernel_of_copy": speeds["kernel"] / speeds["copy"],
        "samples_s": samples,
    }


def compare_with_operators(device: CudaDevice) -> dict[str, Any]:
    """Return the kernel's time beside that of the same steps as separate operators of torch on the GPU."""
    try:
        import torch
    except ModuleNotFoundError:
        return {"skipped": "torch is not installed"}
    if not torch.cuda.is_available():
        return {"skipped": "this torch has no CUDA"}
    spec = PreprocessSpec(height=TENSOR[0], width=TENSOR[1])
    frames = draw_frames(BATCH)
    bench = KernelBench(device, spec, half=True)
    try:
        bench.upload(frames)
        held = torch.from_numpy(frames).to("cuda")

        def run_operators() -> Any:
            image = held[:, None].float()
            options = {"size": TENSOR, "mode": "bilinear", "antialias": True}
            image = torch.nn.functional.interpolate(image, **options)
            return ((image * spec.scale - spec.mean[0]) / spec.std[0]).half()

        with bench.cuda.activate():
            bench.launch()
            bench.cuda.synchronize()
            difference = np.abs(bench.download() - run_operators().cpu().numpy()).max()
            calls = {"kernel": bench.launch, "operators": run_operators}
            samples = _time_alternating(calls, torch.cuda.synchronize)
    finally:
        bench.close()
    medians = {name: statistics.median(times) for name, times in samples.items()}
    return {
        "kernel_of_operators": medians["kernel"] / medians["operators"],
        "largest_difference": float(difference),
        "samples_s": samples,
    }


def measure_build(device: CudaDevice, bundle: Bundle, build: Build) -> dict[str, Any]:
    """Return a frame's time end to end beside that of the engine alone, and of first runs by cache."""
    spec = bundle.manifest.preprocess
    frame = draw_frames(1)[0].astype(spec.frame_dtype)
    record = build.record
    with (
        load(bundle, record.target, record.precision_asked, record.device) as segmenter,
        _open_plan(device, spec, build) as run_plan,
    ):
        calls = {"segment": lambda: segmenter.segment([frame]), "engine": run_plan}
        # Both wait for their masks themselves.
        samples = _time_alternating(calls, lambda: None, calls_a_sample=1)
    medians = {name: statistics.median(times) for name, times in samples.items()}
    return {
        "precision": record.precision_effective,
        "end_to_end_of_engine": medians["segment"] / medians["engine"],
        "samples_s": samples,
        "first_mask_s": _time_first_runs(bundle, build, frame),
    }


@contextlib.contextmanager
def _open_plan(device: CudaDevice, spec: PreprocessSpec, build: Build) -> Iterator[Callable[[], None]]:
    """Give a function that runs a build's bare plan once, on memory that stays on the GPU, and waits."""
    target = build.record.target
    plan = build.resolve_file("student.engine").read_bytes()
    cuda = CudaContext(device)
    try:
        with cuda.activate():
            shape = (spec.channels, spec.height, spec.width)
            runner = PlanRunner(import_library(target), target, plan, shape, cache=None, rebuild="")
            images = cuda.allocate(4 * runner.image_elements * runner.lowest_batch)
            masks = cuda.allocate(spec.height * spec.width * runner.lowest_batch)

        def run() -> None:
            with cuda.activate():
                runner.enqueue(int(images), int(masks), cuda.stream.handle)
                cuda.synchronize()

        yield run
        with cuda.activate():
            runner.close()
    finally:
        cuda.close()


def _time_first_runs(bundle: Bundle, build: Build, frame: NDArray[Any]) -> dict[str, float]:
    """Return seconds from loading to the first mask: without cache, with an empty and with a filled one."""
    record = build.record
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, cache in (("no_cache", None), ("empty_cache", folder), ("filled_cache", folder)):
            start = time.perf_counter()
            path = None if cache is None else Path(cache)
            with load(bundle, record.target, record.precision_asked, record.device, cache=path) as segmenter:
                segmenter.segment([frame])
                seconds[name] = time.perf_counter() - start
    return seconds


def draw_frames(count: int) -> NDArray[np.uint8]:
    """Return ``count`` grey frames of noise, as large as a cart's: (count, 768, 1024)."""
    return np.random.default_rng(0).integers(0, 256, (count, *FRAME), dtype=np.uint8)


def _time_alternating(
    calls: Mapping[str, Callable[[], object]], wait: Callable[[], object], *, calls_a_sample: int = CALLS
) -> dict[str, list[float]]:
    """Return seconds a call, in turn and in an order that changes from round to round; warmed up before."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(ROUNDS + 1):
        for name in sorted(calls, reverse=bool(round_number % 2)):
            wait()
            start = time.perf_counter()
            for _ in range(calls_a_sample):
                calls[name]()
            wait()
            if round_number > 0:
                samples[name].append((time.perf_counter() - start) / calls_a_sample)
    return samples


def run_all(bundle: Bundle, device: CudaDevice, count: int) -> dict[str, Any]:
    """Return the results of every check on one GPU.

    Raises:
        MachineError: pycuda, NVRTC or a build for this GPU is missing.
    """
    builds = [build for build in list_builds(bundle) if build.record.target.startswith("tensorrt")]
    engines: dict[str, Any] = {}
    for build in builds:
        try:
            engines[build.name] = measure_build(device, bundle, build)
        except EdgeKDError as error:
            engines[build.name] = {"skipped": str(error)}
    return {
        "gpu": {"name": device.name, "sm": device.architecture, "driver_cuda": list(device.driver_cuda)},
        "kernel": check_kernel(device, count),
        "bandwidth": measure_bandwidth(device),
        "operators": compare_with_operators(device),
        "engines": engines,
        "conditions": describe_conditions(),
        "environment": describe_environment(),
    }


def main(
    bundle: Annotated[Path, typer.Argument(help="Bundle with TensorRT builds.")],
    out: Annotated[Path, typer.Option(help="Result file, JSON.")],
    count: Annotated[int, typer.Option(help="Random specifications for the kernel.")] = 200,
) -> None:
    """Run every check that needs a GPU; exits 3 where this machine has none, 1 where the kernel is wrong."""
    try:
        device = find_device()
        import_pycuda()
        result = run_all(Bundle.open(bundle), device, count)
    except EdgeKDError as error:
        typer.echo(f"the GPU checks were not run: {error}", err=True)
        sys.exit(error.exit_code)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out, result)
    sys.exit(0 if result["kernel"]["passed"] else 1)


if __name__ == "__main__":
    typer.run(main)
