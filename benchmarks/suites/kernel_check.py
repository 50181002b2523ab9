"""The CUDA kernel's arithmetic and both graphs' preprocessing against the NumPy truth, on random cases.

    python -m edgekd.benchmarks.suites.kernel_check --out FILE.json

Needs no GPU: the kernel's source is compiled as C++ (g++), the form that the tests use. Each case is one
specification with grey and colour frames: odd sizes, one-pixel tensors and crops, strided and mirrored
frames, both depths, orders and filters, float and half. Exits 1 where a bar is missed.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import openvino
import typer
from numpy.typing import NDArray

from edgekd.atomic import write_json_atomic
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.suites.kernel_cases import FLOAT_LIMIT, KernelCase, draw_cases, measure_case
from edgekd.export.graphs import build_preprocess_graph
from edgekd.preprocess import build_interpolation_table
from edgekd.preprocess.kernel import (
    BLOCK_HEIGHT,
    BLOCK_WIDTH,
    ENTRY_POINTS,
    KERNEL_SOURCE,
    build_kernel_options,
    compute_grid,
    pack_table,
)
from edgekd.specs import PreprocessSpec

ROOT = Path(__file__).resolve().parents[2]
# shim.h gives a host compiler what CUDA C++ has beyond C++.
SHIM_FOLDER = ROOT / "tests" / "support"
# No contraction and no fast-math: the rounding that the GPU's compiler is told to keep.
COMPILER = ("g++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", f"-I{SHIM_FOLDER}")
# Specifications that share one run of the compiler, most of whose time goes into its headers.
GROUP = 25
PARAMETERS = (
    "const unsigned char *frames, unsigned long long frame_stride, unsigned long long row_stride, "
    "const int *row_starts, const float *row_weights, int row_taps, "
    "const int *column_starts, const float *column_weights, int column_taps, "
    "void *images, unsigned long long image_stride"
)
ARGUMENTS = (
    "frames, frame_stride, row_stride, row_starts, row_weights, row_taps, "
    "column_starts, column_weights, column_taps, "
)
Run = Callable[[NDArray[Any]], NDArray[Any]]


def write_source(specs: Sequence[PreprocessSpec], folder: Path) -> Path:
    """Write one C++ file that holds the float and the half kernel of every specification."""
    parts = ['#include "shim.h"']
    for index, (spec, half) in enumerate(itertools.product(specs, (False, True))):
        macros = [option[2:].split("=", 1) for option in build_kernel_options(spec, half=half)]
        parts += [f"#undef {name}\n#define {name} {value}" for name, value in macros]
        parts += [f"#undef {name}\n#define {name} {name}_{index}" for name in ENTRY_POINTS.values()]
        parts.append(f'namespace spec_{index} {{\n#include "{KERNEL_SOURCE}"')
        for channels, name in ENTRY_POINTS.items():
            parts.append(
                f'extern "C" void run_{index}_{channels}(const unsigned *grid, const unsigned *block, '
                f"{PARAMETERS}) {{ run_grid({name}, Index{{grid[0], grid[1], grid[2]}}, "
                f"Index{{block[0], block[1], 1}}, {ARGUMENTS}(Element *)images, image_stride); }}"
            )
        parts.append("}")
    source = folder / "kernels.cpp"
    source.write_text("\n".join(parts))
    return source


def compile_cases(cases: Sequence[KernelCase], folder: Path) -> list[tuple[Run, Run]]:
    """Return, for each case, its kernel in float and in half: frames (N, H, W[, 3]) → (N, C, h, w)."""
    library = folder / "kernels.so"
    source = write_source([case.spec for case in cases], folder)
    subprocess.run([*COMPILER, str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    return [
        (_bind(loaded, 2 * index, case.spec, False), _bind(loaded, 2 * index + 1, case.spec, True))
        for index, case in enumerate(cases)
    ]


def _bind(library: ctypes.CDLL, index: int, spec: PreprocessSpec, half: bool) -> Run:
    def run(frames: NDArray[Any]) -> NDArray[Any]:
        # As a capture card would: rows of the frame lie apart, with other bytes between them.
        count, height, width = frames.shape[:3]
        padded = np.full((count, height + 1, width + 2, *frames.shape[3:]), 7, dtype=frames.dtype)
        padded[:, :height, :width] = frames
        shape = (count, spec.channels, spec.height, spec.width)
        images = np.full(shape, np.nan, dtype=np.float16 if half else np.float32)
        crop = spec.crop
        tables = [
            pack_table(build_interpolation_table(size, out, spec.antialias))
            for size, out in (
                (crop.height if crop else height, spec.height),
                (crop.width if crop else width, spec.width),
            )
        ]
        arguments: list[Any] = [padded.ctypes.data, padded[0].nbytes, padded[0, 0].nbytes]
        for starts, weights in tables:
            arguments += [starts.ctypes.data, weights.ctypes.data, len(weights)]
        arguments += [images.ctypes.data, images[0].size]
        types = [ctypes.c_void_p, *[ctypes.c_ulonglong] * 2]
        types += [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int] * 2
        types += [ctypes.c_void_p, ctypes.c_ulonglong]
        typed = [kind(value) for kind, value in zip(types, arguments, strict=True)]
        function = getattr(library, f"run_{index}_{1 if frames.ndim == 3 else 3}")
        grid = (ctypes.c_uint * 3)(*compute_grid(spec, count))
        function(grid, (ctypes.c_uint * 2)(BLOCK_WIDTH, BLOCK_HEIGHT), *typed)
        return images

    return run


def run_onnx(spec: PreprocessSpec) -> Run:
    """Return the preprocessing graph in ONNX Runtime: (N, H, W, C) → (N, C, h, w) float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = build_preprocess_graph(spec).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda frames: np.asarray(session.run(None, {"frame": frames})[0])


def run_openvino(core: openvino.Core, spec: PreprocessSpec) -> Run:
    """Return the preprocessing graph in OpenVINO, as `run_onnx`."""
    model = core.read_model(build_preprocess_graph(spec).SerializeToString())
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(model, "CPU", hints)
    return lambda frames: compiled({0: frames})[0]


def check_case(
    case: KernelCase, kernels: tuple[Run, Run], graphs: dict[str, Run]
) -> Iterator[tuple[str, float]]:
    """Yield (form, largest difference as a part of the range) for every form and batch of frames."""
    for frames in case.frames:
        for form, kernel in zip(("kernel_float", "kernel_half"), kernels, strict=True):
            yield form, measure_case(case.spec, frames, kernel(frames))
    # A graph takes frames with the channels of its tensor; converting them is the caller's.
    frames = case.frames[0 if case.spec.channels == 1 else 1]
    nhwc = np.ascontiguousarray(frames).reshape(*frames.shape[:3], case.spec.channels)
    for form, run in graphs.items():
        yield form, measure_case(case.spec, frames, run(nhwc))


def check_cases(count: int, seed: int) -> dict[str, Any]:
    """Return the largest difference of each form over ``count`` cases, and the cases above the bar."""
    core = openvino.Core()
    largest: dict[str, float] = {}
    missed: list[dict[str, Any]] = []
    frames = 0
    cases = draw_cases(count, seed)
    while group := list(itertools.islice(cases, GROUP)):
        with tempfile.TemporaryDirectory() as folder:
            for case, kernels in zip(group, compile_cases(group, Path(folder)), strict=True):
                graphs = {"onnx": run_onnx(case.spec), "openvino": run_openvino(core, case.spec)}
                frames += sum(len(batch) for batch in case.frames)
                for form, difference in check_case(case, kernels, graphs):
                    largest[form] = max(largest.get(form, 0.0), difference)
                    if difference > FLOAT_LIMIT:
                        fact = {"form": form, "difference": difference}
                        missed.append({**fact, "spec": case.spec.model_dump(mode="json")})
    return {
        "seed": seed,
        "specs": count,
        "frames": frames,
        "limit_of_range": FLOAT_LIMIT,
        "largest_difference_of_range": largest,
        "missed": len(missed),
        "first_missed": missed[:10],
    }


def main(
    out: Annotated[Path, typer.Option(help="Result file, JSON.")],
    count: Annotated[int, typer.Option(help="Specifications.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
) -> None:
    """Check every form and write the result file; exits 1 where a bar is missed."""
    result = {**check_cases(count, seed), "environment": describe_environment()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out, result)
    sys.exit(1 if result["missed"] else 0)


if __name__ == "__main__":
    typer.run(main)
