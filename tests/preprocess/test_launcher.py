from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeDriver
from kernel_shim import compile_kernel

from edgekd.errors import MachineError
from edgekd.export.kernels import compile_kernels
from edgekd.preprocess import preprocess_frames
from edgekd.preprocess.context import CudaContext, import_pycuda
from edgekd.preprocess.device import CudaDevice, find_device
from edgekd.preprocess.launcher import FrameStaging, KernelLauncher, choose_module
from edgekd.specs import CropBox, PreprocessSpec

ORIN = CudaDevice(index=0, name="Orin", architecture=87, driver_cuda=(12, 6))
MODULES = [
    {"file": "preprocess.sm_86.cubin", "architecture": 86, "driver_cuda": "12.0"},
    {"file": "preprocess.sm_87.cubin", "architecture": 87, "driver_cuda": "12.0"},
    {"file": "preprocess.ptx", "architecture": 86, "driver_cuda": "12.6"},
]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    return fake


@pytest.fixture
def context(driver: FakeDriver) -> Iterator[CudaContext]:
    opened = CudaContext(ORIN)
    yield opened
    opened.close()
    driver.check_released()


def run_launcher(
    context: CudaContext, folder: Path, spec: PreprocessSpec, batches: list[Any]
) -> list[np.ndarray]:
    """Preprocess batches as the engine does: copy, upload, launch, wait."""
    library = compile_kernel(folder, spec)
    size = spec.channels * spec.height * spec.width
    results: list[np.ndarray] = []
    with context.activate():
        staging = FrameStaging(context)
        launcher = KernelLauncher(
            context, spec, {"modules": MODULES}, lambda name: str(library).encode(), "edgekd export"
        )
        for frames in batches:
            groups = staging.copy_frames(frames)
            staging.upload()
            images = context.allocate(len(frames) * size * 4)
            done = 0
            for group in groups:
                launcher.launch(int(staging.device_memory), group, int(images) + done * size * 4, size)
                done += group.count
            context.synchronize()
            pinned = context.pin((len(frames), size), np.float32)
            context.driver.memcpy_dtoh_async(pinned, int(images), context.stream)
            context.synchronize()
            results.append(pinned.reshape(-1, spec.channels, spec.height, spec.width).copy())
            del pinned
        launcher.close()
        staging.close()
    return results


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_frames_reach_the_tensor_through_buffers_and_tables(
    context: CudaContext, driver: FakeDriver, shim_folder: Path, dtype: Any, color: Any
) -> None:
    channels = 1 if color == "gray" else 3
    spec = PreprocessSpec(
        height=24,
        width=40,
        color=color,
        frame_dtype=dtype,
        crop=CropBox(top=2, left=3, height=31, width=29),
        scale=1 / np.iinfo(dtype).max,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)

    mixed = [draw(37, 41), draw(37, 41), draw(53, 33, 3), draw(66, 90)[::-2, ::2]]
    batches = [mixed, draw(2, 61, 47), [draw(35, 35, 3)]]
    results = run_launcher(context, shim_folder, spec, batches)
    for frames, tensors in zip(batches, results, strict=True):
        np.testing.assert_allclose(tensors, preprocess_frames(frames, spec), atol=4 * 2e-6)
    # Frames of one shape share a launch.
    assert [(channels, grid[2]) for channels, grid in driver.launches] == [
        (1, 2), (3, 1), (1, 1), (1, 2), (3, 1)
    ]  # fmt: skip


def test_pinned_memory_grows_only_for_larger_batches(context: CudaContext, driver: FakeDriver) -> None:
    with context.activate():
        staging = FrameStaging(context)
        for count in (2, 1, 2, 3, 3):
            staging.copy_frames(np.zeros((count, 8, 8), dtype=np.uint8))
        assert driver.pinned_sizes == [128, 192]
        assert [allocation.size for allocation in driver.allocations] == [192]
        staging.close()


def test_contexts_of_a_gpu_hold_it_once_and_close_from_any_thread(driver: FakeDriver) -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        for _ in range(3):
            opened = CudaContext(ORIN)
            with opened.activate():
                opened.allocate(64)
            elsewhere.submit(opened.close).result()
            opened.close()
    driver.check_released()


def test_a_gpu_that_takes_no_work_is_named(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise driver.Error("cuStreamCreate failed: out of memory")

    monkeypatch.setattr(driver, "Stream", refuse)
    with pytest.raises(MachineError, match=r"Orin cannot be used(.|\n)*out of memory"):
        CudaContext(ORIN)
    assert driver.depth == 0


def test_a_module_that_the_driver_refuses_is_named(
    context: CudaContext, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(code: bytes) -> None:
        raise driver.Error("cuModuleLoadDataEx failed: no kernel image is available")

    monkeypatch.setattr(driver, "module_from_buffer", refuse)
    spec = PreprocessSpec(height=8, width=8, mean=(0.5,), std=(0.25,))
    with (
        context.activate(),
        pytest.raises(MachineError, match=r"sm_87\.cubin(.|\n)*no kernel image(.|\n)*edgekd export"),
    ):
        KernelLauncher(context, spec, {"modules": MODULES}, lambda name: b"", "edgekd export")


def test_tables_of_the_oldest_frame_size_make_room(
    context: CudaContext, driver: FakeDriver, shim_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.preprocess.launcher.MAX_TABLES", 2)
    spec = PreprocessSpec(height=24, width=30, mean=(0.5,), std=(0.25,))
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 256, (30 + step % 4, 41), dtype=np.uint8) for step in range(6)]
    for found, frame in zip(
        run_launcher(context, shim_folder, spec, [frames])[0], preprocess_frames(frames, spec), strict=True
    ):
        np.testing.assert_allclose(found, frame, atol=4 * 2e-6)
    # Two sizes with four arrays each, the frames and the tensors.
    assert len(driver.allocations) == 2 * 4 + 2


def test_own_cubin_is_preferred() -> None:
    assert choose_module(MODULES, ORIN, "rebuild")["file"] == "preprocess.sm_87.cubin"


def test_ptx_serves_later_gpus() -> None:
    newer = CudaDevice(0, "RTX 5090", 120, (13, 0))
    assert choose_module(MODULES, newer, "rebuild")["file"] == "preprocess.ptx"


@pytest.mark.parametrize(
    "device",
    [
        CudaDevice(0, "RTX 2080", 75, (13, 0)),
        CudaDevice(0, "old driver", 87, (11, 8)),
        CudaDevice(0, "new GPU, driver older than the PTX", 89, (12, 5)),
    ],
)
def test_gpu_without_a_module_names_the_rebuild(device: CudaDevice) -> None:
    with pytest.raises(MachineError, match=f"--sm {device.architecture}") as caught:
        choose_module(MODULES, device, "edgekd export B --target tensorrt")
    assert f"sm_{device.architecture}" in str(caught.value) and "CUDA 12.6" in str(caught.value)


def test_work_outside_the_context_is_noticed(context: CudaContext) -> None:
    with pytest.raises(AssertionError, match="without a current context"):
        context.allocate(16)


def test_missing_pycuda_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MachineError, match=r"edgekd\[cuda\]"):
        import_pycuda()


@pytest.mark.gpu
def test_gpu_agrees_with_the_truth() -> None:
    pytest.importorskip("pycuda.driver", reason="pycuda or its driver is missing", exc_type=ImportError)
    device = find_device()
    spec = PreprocessSpec(height=256, width=256)
    build = compile_kernels(spec, [device.architecture])
    frames = np.random.default_rng(0).integers(0, 256, (2, 768, 1024), dtype=np.uint8)
    cuda = CudaContext(device)
    with cuda.activate():
        staging = FrameStaging(cuda)
        launcher = KernelLauncher(cuda, spec, build.facts, build.files.__getitem__, "")
        images = cuda.allocate(2 * 256 * 256 * 4)
        groups = staging.copy_frames(frames)
        staging.upload()
        launcher.launch(int(staging.device_memory), groups[0], int(images), 256 * 256)
        pinned = cuda.pin((2, 1, 256, 256), np.float32)
        cuda.driver.memcpy_dtoh_async(pinned, int(images), cuda.stream)
        cuda.synchronize()
        result = pinned.copy()
        launcher.close()
    cuda.close()
    np.testing.assert_allclose(result, preprocess_frames(frames, spec), atol=4 * 2e-6)
