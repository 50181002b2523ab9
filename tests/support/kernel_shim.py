"""The CUDA kernel compiled as plain C++, so that its arithmetic can be tested without a GPU."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.preprocess import build_interpolation_table
from edgekd.preprocess.kernel import (
    BLOCK_HEIGHT,
    BLOCK_WIDTH,
    KERNEL_SOURCE,
    build_kernel_options,
    compute_grid,
    pack_table,
)
from edgekd.specs import PreprocessSpec

SHIM_SOURCE = Path(__file__).with_name("shim.cpp")
# No contraction and no fast-math: the rounding that the GPU's compiler is told to keep.
COMPILER_OPTIONS = (
    "-std=c++17",
    "-O1",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-shared",
    "-fPIC",
)
GAP = 5

ARGUMENT_TYPES = {"P": ctypes.c_void_p, "Q": ctypes.c_ulonglong, "i": ctypes.c_int}


def compile_kernel(folder: Path, spec: PreprocessSpec, *, half: bool = False) -> Path:
    """Return the kernel of a specification as a host library in ``folder``, compiled once."""
    options = build_kernel_options(spec, half=half)
    library = folder / f"{hashlib.sha256(repr(options).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        source = f'-DKERNEL_SOURCE="{KERNEL_SOURCE}"'
        command = ["g++", *COMPILER_OPTIONS, source, *options, str(SHIM_SOURCE), "-o", str(library)]
        subprocess.run(command, check=True)
    return library


def call_kernel(
    library: Path, channels: int, grid: tuple[int, ...], block: tuple[int, ...], types: str, arguments: Any
) -> None:
    """Run the kernel for frames of ``channels`` with arguments typed as pycuda types them."""
    typed = [ARGUMENT_TYPES[letter](value) for letter, value in zip(types, arguments, strict=True)]
    run = ctypes.CDLL(str(library)).run_shim
    run(ctypes.c_int(channels), (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 2)(*block[:2]), *typed)


class KernelShim:
    """One specification's kernel, called as the launcher calls it on a GPU."""

    def __init__(self, library: Path, spec: PreprocessSpec, *, half: bool) -> None:
        self._library = library
        self._spec = spec
        self._dtype = np.float16 if half else np.float32

    def run(
        self, buffer: np.ndarray, shape: tuple[int, ...], strides: tuple[int, int], count: int
    ) -> np.ndarray:
        """Preprocess ``count`` frames of ``shape`` in ``buffer`` with (frame, row) ``strides`` in bytes."""
        spec = self._spec
        size = spec.channels * spec.height * spec.width
        # Room between the tensors shows a kernel that writes past its own.
        images = np.full((count, size + GAP), 7.0, dtype=self._dtype)
        rows = self._build_table(shape[0], spec.crop and spec.crop.height, spec.height)
        columns = self._build_table(shape[1], spec.crop and spec.crop.width, spec.width)
        arguments = [buffer.ctypes.data, *strides]
        for starts, weights in (rows, columns):
            arguments += [starts.ctypes.data, weights.ctypes.data, len(weights)]
        arguments += [images.ctypes.data, size + GAP]
        call_kernel(
            self._library,
            1 if len(shape) == 2 else 3,
            compute_grid(spec, count),
            (BLOCK_WIDTH, BLOCK_HEIGHT),
            "PQQPPiPPiPQ",
            arguments,
        )
        assert (images[:, size:] == 7.0).all()
        return images[:, :size].reshape(count, spec.channels, spec.height, spec.width)

    def _build_table(
        self, frame_size: int, crop_size: int | None, out_size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return pack_table(build_interpolation_table(crop_size or frame_size, out_size, self._spec.antialias))
