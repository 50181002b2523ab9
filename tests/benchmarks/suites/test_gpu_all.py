from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeDriver
from kernel_shim import compile_kernel

from edgekd.benchmarks.suites import gpu_all, kernel_bench
from edgekd.bundle import Bundle
from edgekd.errors import MachineError
from edgekd.preprocess.device import CudaDevice
from edgekd.specs import PreprocessSpec

GPU = CudaDevice(0, "RTX 3060", 86, (13, 0))


def refuse_device() -> CudaDevice:
    raise MachineError("no NVIDIA driver on this machine")


def test_without_a_gpu_it_says_so_and_exits_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_all, "find_device", refuse_device)
    out = tmp_path / "gpu.json"
    with pytest.raises(SystemExit) as caught:
        gpu_all.main(tmp_path, out)
    assert caught.value.code == 3 and not out.exists()
    assert "GPU checks were not run: no NVIDIA driver" in capsys.readouterr().err


@pytest.fixture
def on_fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """The kernel for the host and a driver on host memory; call it to change what is compiled."""
    if shutil.which("g++") is None:
        pytest.skip("no g++: the kernel cannot run on this machine")
    driver = FakeDriver()
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)

    def compile_changed(**changes: Any) -> None:
        def compile_for_host(spec: PreprocessSpec, architectures: Any, *, half: bool = False) -> Any:
            library = compile_kernel(tmp_path, spec.model_copy(update=changes), half=half)
            module = {"file": "preprocess.sm_86.cubin", "architecture": 86, "driver_cuda": "12.0"}
            files = {module["file"]: str(library).encode()}
            return SimpleNamespace(facts={"modules": [module]}, files=files)

        monkeypatch.setattr(kernel_bench, "compile_kernels", compile_for_host)

    for name, value in {"CALLS": 1, "ROUNDS": 2, "BATCH": 2, "FRAME": (30, 40), "TENSOR": (8, 8)}.items():
        monkeypatch.setattr(gpu_all, name, value)
    compile_changed()
    yield compile_changed
    driver.check_released()


@pytest.mark.usefixtures("on_fakes")
def test_right_kernel_passes() -> None:
    result = gpu_all.check_kernel(GPU, 1)
    assert result["passed"] and 0 <= max(result["largest_difference_of_range"].values()) < 1e-6


def test_wrong_kernel_is_found(on_fakes: Callable[..., None]) -> None:
    on_fakes(scale=1 / 250)
    assert not gpu_all.check_kernel(GPU, 1)["passed"]


@pytest.mark.usefixtures("on_fakes")
def test_bandwidth_is_of_the_bytes_moved() -> None:
    result = gpu_all.measure_bandwidth(GPU)
    assert [len(times) for times in result["samples_s"].values()] == [2, 2]
    median = sum(result["samples_s"]["kernel"]) / 2
    assert result["gb_per_s"]["kernel"] == pytest.approx(result["moved_bytes_a_call"] / median / 1e9)
    ratio = result["gb_per_s"]["kernel"] / result["gb_per_s"]["copy"]
    assert result["kernel_of_copy"] == pytest.approx(ratio)


def test_every_check_is_in_the_result_file(
    tmp_path: Path, new_student: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Any] = []

    @contextlib.contextmanager
    def load(*_: Any, cache: Any = None) -> Iterator[Any]:
        loads.append(cache)
        yield SimpleNamespace(segment=lambda frames: np.zeros((1, 8, 8)))

    @contextlib.contextmanager
    def open_plan(*_: Any) -> Iterator[Callable[[], None]]:
        yield lambda: None

    record = SimpleNamespace(
        target="tensorrt-rtx", precision_asked="fp32", precision_effective="fp32", device="GPU"
    )
    monkeypatch.setattr(gpu_all, "find_device", lambda: GPU)
    monkeypatch.setattr(gpu_all, "import_pycuda", lambda: None)
    monkeypatch.setattr(gpu_all, "load", load)
    monkeypatch.setattr(gpu_all, "_open_plan", open_plan)
    monkeypatch.setattr(gpu_all, "list_builds", lambda bundle: [SimpleNamespace(record=record, name="rtx")])
    for name in ("measure_bandwidth", "compare_with_operators"):
        monkeypatch.setattr(gpu_all, name, lambda device: {})
    monkeypatch.setattr(gpu_all, "check_kernel", lambda device, count: {"passed": False})
    bundle = new_student(tmp_path / "tiny.edgekd", PreprocessSpec(height=8, width=8))
    out = tmp_path / "results" / "gpu.json"
    with pytest.raises(SystemExit) as caught:
        gpu_all.main(bundle.path, out, 1)
    # The kernel missed its bar.
    assert caught.value.code == 1
    result = json.loads(out.read_text(encoding="utf-8"))
    assert set(result["engines"]["rtx"]["first_mask_s"]) == {"no_cache", "empty_cache", "filled_cache"}
    assert result["engines"]["rtx"]["end_to_end_of_engine"] > 0
    assert loads[:2] == [None, None] and loads[2] == loads[3] is not None
    assert {"kernel", "bandwidth", "operators", "gpu", "environment"} <= set(result)
