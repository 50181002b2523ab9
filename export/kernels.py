"""The CUDA preprocessing of a specification, compiled ahead of time into modules for named GPUs and PTX."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekd.errors import MachineError, UsageError
from edgekd.export.nvrtc import Compilation, Compiler, find_compilers
from edgekd.preprocess.kernel import (
    ENTRY_POINTS,
    KERNEL_SOURCE,
    ROUNDING_OPTIONS,
    build_kernel_options,
    count_moved_bytes,
)
from edgekd.specs import PreprocessSpec

# Turing to Blackwell: cards of a workstation, and Jetson Orin (87) and Thor (110).
DEFAULT_ARCHITECTURES = (75, 80, 86, 87, 89, 90, 110, 120)
COMPILER_OPTIONS = ("--std=c++17", "--ptxas-options=-v", *ROUNDING_OPTIONS)
PTX_FILE = "preprocess.ptx"


@dataclass(frozen=True)
class KernelBuild:
    """The files of a build that hold its preprocessing, and what is known about them.

    Attributes:
        files: ``kernels.cu``, ``preprocess.ptx`` and ``preprocess.sm_XX.cubin`` by name.
        facts: ``options`` of the compiler, ``half``, and ``modules``, a list of one record a module:
            file, architecture, compiler, driver_cuda (lowest CUDA version of the driver that loads it),
            compile_ms and, for cubins, kernels (registers and spilled bytes by entry point);
            `describe_traffic` adds ``moved_bytes`` and ``moved_for_frame``.
        notices: sentences that the user should read.
    """

    files: dict[str, bytes]
    facts: dict[str, Any]
    notices: list[str]


def parse_architecture(text: str | int) -> int:
    """Return the compute capability named by ``87``, ``"87"``, ``"8.7"`` or ``"sm_87"`` as 87.

    Raises:
        UsageError: the text names none.
    """
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", str(text).lower())
    if match is None:
        raise UsageError("no compute capability", received=repr(text), expected="for example 87 or sm_87")
    return int(match[1]) * 10 + int(match[2])


def compile_kernels(
    spec: PreprocessSpec, architectures: Sequence[int] | None = None, *, half: bool = False
) -> KernelBuild:
    """Compile the preprocessing of ``spec``; needs NVRTC but no GPU.

    Each GPU's module comes from the oldest installed compiler that knows the GPU, because the oldest module
    loads on the most drivers. PTX is made for the lowest GPU and serves it and all later ones.

    Args:
        spec: the steps to compile in.
        architectures: compute capabilities to compile for; None means all of DEFAULT_ARCHITECTURES that the
            installed compilers know, the others named in a notice.
        half: let the kernel write IEEE half precision.

    Raises:
        MachineError: NVRTC is missing, or knows none of the GPUs asked for.
    """
    compilers = find_compilers()
    chosen, notices = _choose_compilers(compilers, architectures)
    source = KERNEL_SOURCE.read_text(encoding="utf-8")
    options = (*build_kernel_options(spec, half=half), *COMPILER_OPTIONS)
    files = {KERNEL_SOURCE.name: source.encode()}
    modules: list[dict[str, Any]] = []
    lowest = min(chosen)
    jobs = [(f"preprocess.sm_{number}.cubin", f"sm_{number}", chosen[number]) for number in sorted(chosen)]
    for file, architecture, compiler in [*jobs, (PTX_FILE, f"compute_{lowest}", chosen[lowest])]:
        start = time.perf_counter()
        compilation = compiler.compile(source, KERNEL_SOURCE.name, architecture, options)
        files[file] = compilation.code
        modules.append(
            _describe_module(file, architecture, compiler, compilation, time.perf_counter() - start)
        )
    return KernelBuild(files, {"options": list(options), "half": half, "modules": modules}, notices)


def _choose_compilers(
    compilers: Sequence[Compiler], architectures: Sequence[int] | None
) -> tuple[dict[int, Compiler], list[str]]:
    wanted = DEFAULT_ARCHITECTURES if architectures is None else architectures
    chosen: dict[int, Compiler] = {}
    for compiler in reversed(compilers):
        chosen.update({number: compiler for number in wanted if number in compiler.architectures})
    missing = [f"sm_{number}" for number in wanted if number not in chosen]
    if missing and (architectures is not None or not chosen):
        raise MachineError(
            f"NVRTC cannot compile for {', '.join(missing)}",
            expected="; ".join(f"{_name(compiler)}: {_list_known(compiler)}" for compiler in compilers),
            action="name another --sm, or install the nvidia-cuda-nvrtc of the device's CUDA version",
        )
    if missing:
        names = " and ".join(map(_name, compilers))
        return chosen, [f"no CUDA preprocessing for {', '.join(missing)}: {names} cannot compile for it"]
    return chosen, []


def _describe_module(
    file: str, architecture: str, compiler: Compiler, compilation: Compilation, seconds: float
) -> dict[str, Any]:
    # A driver loads every cubin of its CUDA major version, but PTX only of its own version and older.
    minor = compiler.version[1] if file == PTX_FILE else 0
    return {
        "file": file,
        "architecture": parse_architecture(architecture.removeprefix("compute_")),
        "compiler": f"{_name(compiler)} ({compiler.origin})",
        "driver_cuda": f"{compiler.version[0]}.{minor}",
        "compile_ms": round(seconds * 1e3, 1),
        "kernels": read_resources(compilation.log),
    }


def read_resources(log: str) -> dict[str, dict[str, int]]:
    """Return registers and spilled bytes by entry point from the log of ``ptxas -v``; empty for PTX."""
    resources: dict[str, dict[str, int]] = {}
    for block in log.split("Compiling entry function '")[1:]:
        name = block.partition("'")[0]
        registers = re.search(r"Used (\d+) registers", block)
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", block)
        if registers and spills:
            resources[name] = {
                "registers": int(registers[1]),
                "spill_store_bytes": int(spills[1]),
                "spill_load_bytes": int(spills[2]),
            }
    return resources


def describe_traffic(build: KernelBuild, spec: PreprocessSpec, frame_shape: tuple[int, ...]) -> KernelBuild:
    """Return the build with what its kernel costs: bytes moved for a frame, in facts and as a notice.

    Args:
        build: of `compile_kernels`.
        spec: the steps.
        frame_shape: (H, W) or (H, W, 3) of a usual frame.
    """
    moved = count_moved_bytes(spec, frame_shape, half=build.facts["half"])
    entry = ENTRY_POINTS[1 if len(frame_shape) == 2 else 3]
    kernels = [module["kernels"][entry] for module in build.facts["modules"] if entry in module["kernels"]]
    registers = sorted({kernel["registers"] for kernel in kernels})
    spilled = max((kernel["spill_store_bytes"] + kernel["spill_load_bytes"] for kernel in kernels), default=0)
    size = "×".join(map(str, frame_shape))
    # PTX alone says nothing about registers: they are given out on the device.
    used = f"{'/'.join(map(str, registers))} registers, {spilled} bytes spilled, " if registers else ""
    notice = f"CUDA preprocessing: {used}{moved / 1e6:.2f} MB moved for a frame of {size}"
    facts = {**build.facts, "moved_bytes": moved, "moved_for_frame": list(frame_shape)}
    return replace(build, facts=facts, notices=[*build.notices, notice])


def _name(compiler: Compiler) -> str:
    return f"NVRTC {compiler.version[0]}.{compiler.version[1]}"


def _list_known(compiler: Compiler) -> str:
    return ", ".join(f"sm_{number}" for number in compiler.architectures)
