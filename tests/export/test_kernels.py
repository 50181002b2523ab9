from __future__ import annotations

import ctypes.util
import importlib.metadata
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.errors import EdgeKDError, MachineError, UsageError
from edgekd.export import kernels, nvrtc
from edgekd.export.kernels import compile_kernels, describe_traffic, parse_architecture, read_resources
from edgekd.export.nvrtc import Compilation, find_compilers
from edgekd.preprocess.kernel import ENTRY_POINTS, KERNEL_SOURCE, count_moved_bytes
from edgekd.specs import PreprocessSpec

SPEC = PreprocessSpec(height=48, width=64)


@pytest.fixture(scope="module")
def compiler() -> nvrtc.Compiler:
    try:
        return find_compilers()[0]
    except MachineError as error:
        pytest.skip(str(error))


def test_module_for_a_gpu_and_ptx_for_later_ones(compiler: nvrtc.Compiler) -> None:
    build = compile_kernels(SPEC, [87, 90])
    assert set(build.files) == {
        "kernels.cu", "preprocess.ptx", "preprocess.sm_87.cubin", "preprocess.sm_90.cubin"
    }  # fmt: skip
    assert build.files["kernels.cu"] == KERNEL_SOURCE.read_bytes()
    assert build.files["preprocess.sm_87.cubin"].startswith(b"\x7fELF")
    text = build.files["preprocess.ptx"].decode()
    assert ".target sm_87" in text and not text.endswith("\0")
    for name in ENTRY_POINTS.values():
        assert f".entry {name}" in text and name.encode() in build.files["preprocess.sm_90.cubin"]


def test_facts_tell_what_a_driver_needs(compiler: nvrtc.Compiler) -> None:
    facts = compile_kernels(SPEC, [87]).facts
    cubin, ptx = facts["modules"]
    major, minor = compiler.version
    assert (cubin["file"], cubin["architecture"]) == ("preprocess.sm_87.cubin", 87)
    assert (cubin["driver_cuda"], ptx["driver_cuda"]) == (f"{major}.0", f"{major}.{minor}")
    assert cubin["compiler"].startswith(f"NVRTC {major}.{minor}")
    assert cubin["compile_ms"] > 0
    assert set(cubin["kernels"]) == set(ENTRY_POINTS.values())
    for resources in cubin["kernels"].values():
        assert 8 < resources["registers"] <= 64
        assert resources["spill_store_bytes"] == resources["spill_load_bytes"] == 0
    assert "-DOUT_HEIGHT=48" in facts["options"] and "--fmad=false" in facts["options"]
    assert facts["half"] is False


def test_cost_of_the_kernel_is_told(compiler: nvrtc.Compiler) -> None:
    build = describe_traffic(compile_kernels(SPEC, [87]), SPEC, (96, 128))
    registers = build.facts["modules"][0]["kernels"]["preprocess_gray_frames"]["registers"]
    assert build.facts["moved_bytes"] == count_moved_bytes(SPEC, (96, 128)) == 12288 + 12288 + 2240
    assert build.facts["moved_for_frame"] == [96, 128]
    assert build.notices == [
        f"CUDA preprocessing: {registers} registers, 0 bytes spilled, 0.03 MB moved for a frame of 96×128"
    ]


def test_half_output_is_converted_by_one_instruction(compiler: nvrtc.Compiler) -> None:
    single = compile_kernels(SPEC, [87]).files["preprocess.ptx"]
    half = compile_kernels(SPEC, [87], half=True).files["preprocess.ptx"]
    assert b"cvt.rn.f16.f32" in half and b"cvt.rn.f16.f32" not in single


def test_rounding_is_as_written(compiler: nvrtc.Compiler) -> None:
    text = compile_kernels(SPEC, [87]).files["preprocess.ptx"].decode()
    assert "fma.rn.f32" in text
    assert "mul.f32" not in text and "add.f32" not in text and ".ftz" not in text


def test_gpu_that_no_compiler_knows(compiler: nvrtc.Compiler) -> None:
    with pytest.raises(MachineError, match=r"cannot compile for sm_35: expected NVRTC .*sm_87"):
        compile_kernels(SPEC, [35, 87])


def test_error_of_the_source_carries_the_log(compiler: nvrtc.Compiler) -> None:
    with pytest.raises(EdgeKDError, match=r"broken.cu.*for sm_87.*undefined_name"):
        compiler.compile("__global__ void f() { undefined_name; }", "broken.cu", "sm_87", [])


@pytest.mark.parametrize(
    ("text", "number"), [("87", 87), (87, 87), ("sm_87", 87), ("8.7", 87), ("SM120", 120), ("12.1", 121)]
)
def test_architecture_names(text: str | int, number: int) -> None:
    assert parse_architecture(text) == number


@pytest.mark.parametrize("text", ["", "orin", "8", "sm_", "8.7.1", "1234", "-87"])
def test_no_architecture(text: str) -> None:
    with pytest.raises(UsageError, match="sm_87"):
        parse_architecture(text)


class FakeCompiler:
    origin = "wheel"

    def __init__(self, version: tuple[int, int], architectures: tuple[int, ...]) -> None:
        self.version, self.architectures = version, architectures

    def compile(self, source: str, name: str, architecture: str, options: Any) -> Compilation:
        return Compilation(f"{self.version} {architecture}".encode(), "")


def test_oldest_compiler_that_knows_the_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    compilers = [FakeCompiler((12, 6), (75, 87, 90)), FakeCompiler((13, 1), (75, 87, 90, 110))]
    monkeypatch.setattr(kernels, "find_compilers", lambda: compilers)
    build = compile_kernels(SPEC, [110, 87])
    assert build.files["preprocess.sm_87.cubin"] == b"(12, 6) sm_87"
    assert build.files["preprocess.sm_110.cubin"] == b"(13, 1) sm_110"
    assert build.files["preprocess.ptx"] == b"(12, 6) compute_87"
    assert [module["driver_cuda"] for module in build.facts["modules"]] == ["12.0", "13.0", "12.6"]


def test_unknown_gpus_of_the_default_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_compilers", lambda: [FakeCompiler((12, 6), (75, 80, 86, 87, 89, 90))])
    build = compile_kernels(SPEC)
    assert "preprocess.sm_110.cubin" not in build.files and "preprocess.sm_90.cubin" in build.files
    assert build.notices == ["no CUDA preprocessing for sm_110, sm_120: NVRTC 12.6 cannot compile for it"]


def test_missing_nvrtc_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", find_nothing)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(MachineError, match=r"NVRTC.*missing.*edgekd\[nvrtc\]"):
        compile_kernels(SPEC)


def test_damaged_nvrtc_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    library = tmp_path / "libnvrtc.so.12"
    library.write_bytes(b"no library")
    file = SimpleNamespace(name=library.name, suffix=".12", locate=lambda: library)
    monkeypatch.setattr(
        importlib.metadata, "distribution", lambda name: SimpleNamespace(files=[file], version="12.6")
    )
    with pytest.raises(MachineError, match="NVRTC cannot be loaded"):
        find_compilers()


def test_resources_are_read_from_the_log() -> None:
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_87'
ptxas         .     0 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 432 bytes cmem[0]
ptxas info    : Compiling entry function 'second' for 'sm_87'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 31 registers"""
    assert read_resources(log) == {
        "first": {"registers": 40, "spill_store_bytes": 4, "spill_load_bytes": 8},
        "second": {"registers": 31, "spill_store_bytes": 0, "spill_load_bytes": 0},
    }
    assert read_resources("") == {}
