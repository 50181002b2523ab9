from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
import tiny_student
from fake_cuda import FakeDriver
from fake_tensorrt import FakeTensorRt
from kernel_shim import compile_kernel
from written_builds import write_build

from edgekd.benchmarks.certificate import _pick_engine_facts
from edgekd.bundle import Bundle, find_build
from edgekd.errors import IntegrityError, MachineError, SegmenterFault, UsageError
from edgekd.preprocess import preprocess_frames
from edgekd.preprocess.device import CudaDevice, find_device
from edgekd.runtime import Segmenter, load
from edgekd.runtime import tensorrt as engines
from edgekd.runtime.tensorrt import TensorRtEngine, parse_device
from edgekd.runtime.tensorrt_library import PACKAGES, MessageLog, describe_platform
from edgekd.runtime.tensorrt_plan import align_bytes
from edgekd.specs import PreprocessSpec

RTX = CudaDevice(index=0, name="RTX 3060", architecture=86, driver_cuda=(13, 0))
# Odd sizes: neither a tensor nor a mask fills whole alignment units.
SPEC = PreprocessSpec(height=21, width=33)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setattr(engines, "find_device", lambda index=0: RTX)
    return fake


@pytest.fixture
def library(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    weights = tiny_student.build_weights(1, 2)

    def infer(tensors: np.ndarray) -> np.ndarray:
        return tiny_student.compute_logits(tensors, weights).argmax(axis=1).astype(np.uint8)

    fake = FakeTensorRt(driver, (1, SPEC.height, SPEC.width), infer)
    monkeypatch.setattr(engines, "import_library", lambda target: fake)
    monkeypatch.setattr("edgekd.runtime.catalogue._explain_missing_package", lambda entry: None)
    return fake


WriteBuild = Callable[..., Bundle]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The path of the kernel for the host, which the stand-in of CUDA takes for a module."""
    if shutil.which("g++") is None:
        pytest.skip("no g++: the kernel cannot run on this machine")
    return str(compile_kernel(tmp_path_factory.mktemp("kernel"), SPEC)).encode()


@pytest.fixture
def write_engine(
    tmp_path: Path, new_student: Callable[..., Bundle], library: FakeTensorRt, kernel: bytes
) -> WriteBuild:
    """Return a function that writes a bundle with an engine build, facts changed as asked."""

    def write(
        plan: bytes = fake_tensorrt.PLAN, half: bool = False, steps: PreprocessSpec = SPEC, **changes: Any
    ) -> Bundle:
        bundle = new_student(tmp_path / "tiny.edgekd", SPEC)
        module = {"file": "preprocess.sm_86.cubin", "architecture": 86, "driver_cuda": "12.0"}
        engine = {
            "library": "tensorrt_rtx 9.9.9",
            "platform": describe_platform(),
            "architectures": [80, 86],
        }
        write_build(
            bundle,
            target="tensorrt-rtx",
            precision_asked="fp32",
            precision_effective="fp32",
            device="GPU",
            status="built, not run",
            files={"student.engine": plan, "preprocess.sm_86.cubin": kernel},
            facts={
                "engine": {**engine, **changes},
                "kernels": {"half": half, "modules": [module]},
                "preprocess_sha256": steps.compute_hash(),
            },
        )
        return bundle

    return write


def compute_masks(frames: Any, library: FakeTensorRt) -> np.ndarray:
    return library.infer(preprocess_frames(frames, SPEC))


def draw_frames() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 50), (40, 50), (61, 39, 3))]


def test_masks_are_those_of_the_truth_and_the_student(
    write_engine: WriteBuild, library: FakeTensorRt, driver: FakeDriver
) -> None:
    frames = draw_frames()
    with load(write_engine(), "tensorrt-rtx") as segmenter:
        masks = segmenter.segment(frames)
        np.testing.assert_array_equal(masks, compute_masks(frames, library))
        assert 0 < masks.mean() < 1
        again = segmenter.segment(frames[2:])
        np.testing.assert_array_equal(again, compute_masks(frames[2:], library))
        # The first result does not lie in memory that the second call wrote over.
        np.testing.assert_array_equal(masks, compute_masks(frames, library))
    driver.check_released()


def test_every_stage_has_done_its_work_when_it_returns(
    write_engine: WriteBuild, library: FakeTensorRt, driver: FakeDriver
) -> None:
    frames = draw_frames()
    with load(write_engine(), "tensorrt-rtx") as segmenter:
        assert list(segmenter.stages) == ["preprocess", "upload", "infer", "download"]
        value: Any = frames
        for stage in segmenter.stages.values():
            value = stage(value)
            assert not any(stream._work for stream in driver.streams.values())
        np.testing.assert_array_equal(value, compute_masks(frames, library))


def test_memory_is_taken_once(write_engine: WriteBuild, driver: FakeDriver) -> None:
    frames = draw_frames()
    with load(write_engine(), "tensorrt-rtx") as segmenter:
        segmenter.segment(frames)
        held = list(driver.allocations), driver.list_pinned()
        segmenter.segment(frames[:1])
        segmenter.segment(frames)
        assert (list(driver.allocations), driver.list_pinned()) == held


@pytest.mark.parametrize("batches", [(1, 2), (1, 8), (2, 2), (4, 4)])
def test_real_batches_are_run_where_the_profile_allows_them(
    write_engine: WriteBuild, library: FakeTensorRt, batches: tuple[int, int], driver: FakeDriver
) -> None:
    library.batches = batches
    frames = [*draw_frames(), *draw_frames()[::-1], draw_frames()[0]]
    with load(write_engine(), "tensorrt-rtx") as segmenter:
        for some in (frames, frames[:1], frames[2:5]):
            library.batches_run.clear()
            masks = segmenter.segment(some)
            np.testing.assert_array_equal(masks, compute_masks(some, library))
            lowest, highest = batches
            sizes = [min(highest, len(some) - start) for start in range(0, len(some), highest)]
            assert library.batches_run == [max(size, lowest) for size in sizes]
    driver.check_released()


def test_later_library_may_load_a_version_compatible_engine(
    write_engine: WriteBuild, library: FakeTensorRt
) -> None:
    load(write_engine(library="tensorrt_rtx 9.8.1", version_compatible=True), "tensorrt-rtx").close()
    assert library.host_code_allowed == [True]


def test_host_code_of_other_engines_is_not_run(write_engine: WriteBuild, library: FakeTensorRt) -> None:
    load(write_engine(), "tensorrt-rtx").close()
    assert library.host_code_allowed == [False]


def test_hardware_compatible_engine_loads_on_other_gpus(write_engine: WriteBuild) -> None:
    load(write_engine(architectures=[89], hardware_compatible="ampere+"), "tensorrt-rtx").close()


def test_facts_name_gpu_library_and_module(write_engine: WriteBuild) -> None:
    with load(write_engine(), "tensorrt-rtx") as segmenter:
        facts = segmenter.engine.facts()
    assert facts["gpu"] == "RTX 3060" and facts["sm"] == 86 and facts["library"] == "tensorrt_rtx 9.9.9"
    assert facts["preprocess_module"]["file"] == "preprocess.sm_86.cubin"


def test_facts_are_what_a_certificate_is_bound_to(write_engine: WriteBuild) -> None:
    with load(write_engine(), "tensorrt-rtx") as segmenter:
        bound = _pick_engine_facts(segmenter.engine.facts())
    assert bound == {
        "engine": "tensorrt-rtx",
        "version": "9.9.9",
        "device": "GPU",
        "device_name": "RTX 3060",
        "precision_effective": "fp32",
    }


def test_failed_inference_faults_until_reloaded(write_engine: WriteBuild, library: FakeTensorRt) -> None:
    library.fails = True
    with load(write_engine(), "tensorrt-rtx") as segmenter:
        with pytest.raises(SegmenterFault, match="out of memory"):
            segmenter.segment(draw_frames())
        with pytest.raises(SegmenterFault, match="earlier call"):
            segmenter.segment(draw_frames())


@pytest.fixture
def broken_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled cannot be had back, as after a fault on the GPU."""

    def fail(self: object) -> bytes:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(fake_tensorrt.FakeRuntimeCache, "serialize", fail)


@pytest.mark.usefixtures("broken_cache")
def test_closing_masks_no_earlier_error(
    write_engine: WriteBuild, library: FakeTensorRt, driver: FakeDriver, tmp_path: Path
) -> None:
    bundle, cache = write_engine(), tmp_path / "cache"
    library.fails = True
    with (
        pytest.raises(SegmenterFault, match="out of memory"),
        load(bundle, "tensorrt-rtx", cache=cache) as segmenter,
    ):
        segmenter.segment(draw_frames())
    segmenter = load(bundle, "tensorrt-rtx", cache=cache)
    with pytest.raises(SegmenterFault, match="out of memory"):
        segmenter.segment(draw_frames())
    segmenter.close()
    with pytest.raises(KeyError, match="the caller's"), load(bundle, "tensorrt-rtx", cache=cache):
        raise KeyError("the caller's")
    driver.check_released()


@pytest.mark.usefixtures("broken_cache")
def test_closing_tells_its_own_error_where_there_is_no_other(
    write_engine: WriteBuild, driver: FakeDriver, tmp_path: Path
) -> None:
    segmenter = load(write_engine(), "tensorrt-rtx", cache=tmp_path / "cache")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        segmenter.close()
    driver.check_released()


@pytest.mark.usefixtures("broken_cache")
def test_a_failed_start_tells_its_own_reason(
    write_engine: WriteBuild, driver: FakeDriver, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match="another precision"):
        load(write_engine(half=True), "tensorrt-rtx", cache=tmp_path / "cache")
    driver.check_released()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"library": "tensorrt_rtx 1.0"}, "another library.*9.9.9.*1.0"),
        ({"platform": "Windows AMD64"}, "another platform"),
        ({"architectures": [89, 120]}, "other GPUs.*sm_86.*sm_89, sm_120"),
        ({"architectures": [89], "hardware_compatible": "sameComputeCapability"}, "other GPUs.*sm_89"),
        ({"library": "tensorrt_rtx 9.10.0", "version_compatible": True}, "another library.*or a later"),
        ({"library": "tensorrt_rtx 8.6.1", "version_compatible": True}, "another library.*8.x"),
    ],
)
def test_facts_are_checked_before_the_plan_is_read(
    write_engine: WriteBuild, changes: Mapping[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_engine(**changes)
    monkeypatch.setattr(engines, "PlanRunner", lambda *_, **__: pytest.fail("the plan was deserialised"))
    with pytest.raises(MachineError, match=message) as caught:
        load(bundle, "tensorrt-rtx")
    assert "edgekd export" in str(caught.value) and "--target tensorrt-rtx" in str(caught.value)
    obstacle = TensorRtEngine.find_obstacle(find_build(bundle, "tensorrt-rtx"), "GPU")
    assert obstacle == str(caught.value)


@pytest.mark.parametrize("level", ["none", "ampere+"])
def test_a_gpu_that_tensorrt_rtx_does_not_serve_is_sent_to_tensorrt(
    write_engine: WriteBuild, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_device", lambda index=0: CudaDevice(0, "H200", 90, (13, 0)))
    with pytest.raises(MachineError, match=r"other GPUs: received H200, sm_90") as caught:
        load(write_engine(hardware_compatible=level), "tensorrt-rtx")
    assert re.search(r"TensorRT-RTX does not serve sm_90: .* --target tensorrt --prec", str(caught.value))


def test_runnable_build_has_no_obstacle(write_engine: WriteBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    build = find_build(write_engine(), "tensorrt-rtx")
    assert TensorRtEngine.find_obstacle(build, "GPU") is None
    # Each GPU is asked about itself, and a processor is none.
    others = {0: RTX, 1: CudaDevice(1, "H200", 90, (13, 0))}
    monkeypatch.setattr(engines, "find_device", lambda index=0: others[index])
    assert TensorRtEngine.find_obstacle(build, "GPU.0") is None
    assert "H200" in str(TensorRtEngine.find_obstacle(build, "GPU.1"))
    assert "NVIDIA GPU only" in str(TensorRtEngine.find_obstacle(build, "CPU"))


def test_plan_that_does_not_load_tells_the_librarys_reason(
    write_engine: WriteBuild, driver: FakeDriver
) -> None:
    bundle = write_engine(plan=b"something else")
    with pytest.raises(MachineError, match="magic tag does not match") as caught:
        load(bundle, "tensorrt-rtx")
    assert "chatter" not in str(caught.value)
    driver.check_released()


def test_plan_with_another_output_is_refused(write_engine: WriteBuild, library: FakeTensorRt) -> None:
    library.output_dtype = fake_tensorrt.FLOAT
    with pytest.raises(IntegrityError, match="no engine graph"):
        load(write_engine(), "tensorrt-rtx")


def test_plan_of_another_size_is_refused(write_engine: WriteBuild, library: FakeTensorRt) -> None:
    library.image_shape = (1, 64, 64)
    with pytest.raises(IntegrityError, match="another tensor"):
        load(write_engine(), "tensorrt-rtx")


def test_kernel_and_engine_must_agree_on_precision(write_engine: WriteBuild, driver: FakeDriver) -> None:
    with pytest.raises(IntegrityError, match="another precision"):
        load(write_engine(half=True), "tensorrt-rtx")
    driver.check_released()


def test_kernel_of_other_steps_is_refused(write_engine: WriteBuild) -> None:
    other = SPEC.model_copy(update={"mean": (0.4,)})
    with pytest.raises(IntegrityError, match="preprocessing is not that of the bundle"):
        load(write_engine(steps=other), "tensorrt-rtx")


def test_compiled_kernels_are_kept_in_the_cache_alone(
    write_engine: WriteBuild, library: FakeTensorRt, tmp_path: Path
) -> None:
    bundle, cache = write_engine(), tmp_path / "cache"
    before = {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*")}
    load(bundle, "tensorrt-rtx", cache=cache).close()
    assert library.caches_read == [] and len(list(cache.iterdir())) == 1
    load(bundle, "tensorrt-rtx", cache=cache).close()
    assert library.caches_read == [b"compiled kernels"]
    assert {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*")} == before


def test_changed_plan_is_noticed_before_it_is_loaded(write_engine: WriteBuild) -> None:
    bundle = write_engine()
    plan = find_build(bundle, "tensorrt-rtx").path / "student.engine"
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError):
        load(bundle, "tensorrt-rtx")


def test_changed_kernel_is_noticed_before_it_is_loaded(write_engine: WriteBuild, driver: FakeDriver) -> None:
    bundle = write_engine()
    kernel = find_build(bundle, "tensorrt-rtx").path / "preprocess.sm_86.cubin"
    kernel.write_bytes(kernel.read_bytes() + b"?")
    with pytest.raises(IntegrityError, match=r"preprocess\.sm_86\.cubin"):
        load(bundle, "tensorrt-rtx")
    driver.check_released()


def test_closing_twice_is_allowed(write_engine: WriteBuild, driver: FakeDriver) -> None:
    segmenter: Segmenter = load(write_engine(), "tensorrt-rtx")
    segmenter.engine.close()
    segmenter.engine.close()
    driver.check_released()


@pytest.mark.parametrize(("name", "index"), [("GPU", 0), ("gpu", 0), ("GPU.1", 1), ("GPU.12", 12)])
def test_device_names(name: str, index: int) -> None:
    assert parse_device(name) == index


@pytest.mark.parametrize("name", ["CPU", "NPU", "GPU.", "GPU.x", "GPU1", "cuda:0"])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="NVIDIA GPU only"):
        parse_device(name)


def test_alignment_rounds_up() -> None:
    assert [align_bytes(size) for size in (1, 256, 257)] == [256, 256, 512]


def test_machine_without_a_driver_is_told_so(
    write_engine: WriteBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_engine()
    monkeypatch.setattr(engines, "find_device", lambda index=0: find_device(index, library="libnothing.so"))
    with pytest.raises(MachineError, match="no NVIDIA driver"):
        load(bundle, "tensorrt-rtx")
    assert "no NVIDIA driver" in str(TensorRtEngine.find_obstacle(find_build(bundle, "tensorrt-rtx"), "GPU"))


def test_stand_in_has_only_names_of_the_real_library() -> None:
    real = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    pairs = {
        fake_tensorrt.FakeEngine: real.ICudaEngine,
        fake_tensorrt.FakeContext: real.IExecutionContext,
        fake_tensorrt.FakeRuntime: real.Runtime,
        fake_tensorrt.FakeRuntimeConfig: real.IRuntimeConfig,
        fake_tensorrt.FakeRuntimeCache: real.IRuntimeCache,
    }
    for fake, library_class in pairs.items():
        assert [name for name in vars(fake) if name[0] != "_" and not hasattr(library_class, name)] == []
    assert real.float16 == real.DataType.HALF and real.DataType.UINT8.name == "UINT8"
    assert real.TensorIOMode.INPUT.name == "INPUT" and real.DataType.FLOAT.name == "FLOAT"


def test_messages_of_the_real_library_are_collected() -> None:
    real = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    log = MessageLog(real)
    assert log.format_errors() == "nothing in its log"
    assert real.Runtime(log.logger).deserialize_cuda_engine(b"no plan" * 100) is None
    assert "rror" in log.format_errors()


@pytest.mark.gpu
def test_gpu_gives_the_students_masks(tmp_path: Path, graphed_student: Callable[..., Bundle]) -> None:
    pytest.importorskip("pycuda.driver", reason="pycuda or its driver is missing", exc_type=ImportError)
    if not any(importlib.util.find_spec(name) for name in PACKAGES.values()):
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    from edgekd.export import export_bundle

    bundle = graphed_student(tmp_path / "tiny.edgekd", SPEC)
    build = export_bundle(bundle, ["tensorrt"], quiet=True)[0]
    architecture = find_device().architecture
    if architecture not in build.record.facts["engine"]["architectures"]:
        pytest.skip(f"{build.record.target} does not serve this GPU, sm_{architecture}")
    frames = draw_frames()
    weights = tiny_student.build_weights(1, 2)
    expected = tiny_student.compute_logits(preprocess_frames(frames, SPEC), weights).argmax(axis=1)
    with load(bundle, build.record.target) as segmenter:
        assert (segmenter.segment(frames) == expected).mean() > 0.999
