"""ONNX Runtime and OpenVINO give the golden masks on the device asked for, and change no bundle."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_onnx_cuda import CudaSession, offer_cuda, start_cuda

from edgekd.benchmarks.selection import choose_builds
from edgekd.bundle import Bundle, GoldenFrames, find_build, list_builds, read_golden
from edgekd.errors import IntegrityError, MachineError, UsageError
from edgekd.preprocess import convert_to_gray
from edgekd.runtime import ENGINES, find_obstacle, list_runnable, load

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(params=sorted(PACKAGES))
def target(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(PACKAGES[request.param])
    return request.param


@pytest.fixture
def golden(device_bundle: Bundle) -> GoldenFrames:
    return read_golden(device_bundle)


def test_golden_frames_of_three_sizes_in_one_call(
    device_bundle: Bundle, target: str, golden: GoldenFrames
) -> None:
    frames = [*golden.frames, golden.frames[0]]
    with load(device_bundle, target) as segmenter:
        masks = segmenter.segment(frames)
    assert 0 < golden.masks.mean() < 1
    np.testing.assert_array_equal(masks, golden.masks[[0, 1, 2, 0]])


def test_a_batch_array_and_strides(device_bundle: Bundle, target: str, golden: GoldenFrames) -> None:
    frame = golden.frames[0]
    wide = np.repeat(np.repeat(frame, 2, axis=0), 3, axis=1)
    with load(device_bundle, target) as segmenter:
        masks = segmenter.segment(np.stack([frame, frame]))
        strided = segmenter.segment([wide[::2, ::3]])
    np.testing.assert_array_equal(masks, golden.masks[[0, 0]])
    np.testing.assert_array_equal(strided[0], golden.masks[0])


def test_different_frames_of_one_size_in_one_call(
    device_bundle: Bundle, target: str, golden: GoldenFrames
) -> None:
    frame = golden.frames[0]
    frames = np.stack([frame, frame[::-1], frame[:, ::-1]])
    with load(device_bundle, target) as segmenter:
        expected = np.concatenate([segmenter.segment([one]) for one in frames])
        assert len({mask.tobytes() for mask in expected}) == 3
        np.testing.assert_array_equal(segmenter.segment(frames), expected)


def test_masks_are_not_overwritten_by_the_next_call(
    device_bundle: Bundle, target: str, golden: GoldenFrames
) -> None:
    with load(device_bundle, target) as segmenter:
        first = segmenter.segment(golden.frames[:1])
        segmenter.segment([np.zeros_like(golden.frames[1])])
    np.testing.assert_array_equal(first[0], golden.masks[0])


def test_a_colour_frame_for_a_grey_student_is_its_luma(device_bundle: Bundle, target: str) -> None:
    colour = np.random.default_rng(5).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    with load(device_bundle, target) as segmenter:
        masks = segmenter.segment([colour, convert_to_gray(colour, "rgb")])
    np.testing.assert_array_equal(masks[0], masks[1])


def test_a_grey_frame_for_a_colour_student_is_repeated(graphed_student, tmp_path: Path) -> None:
    from edgekd.specs import PreprocessSpec

    spec = PreprocessSpec(height=32, width=48, color="rgb", mean=(0.5,) * 3, std=(0.25,) * 3)
    bundle = graphed_student(tmp_path / "a.edgekd", spec)
    gray = np.random.default_rng(5).integers(0, 256, (61, 83), dtype=np.uint8)
    with load(bundle, "onnx") as segmenter:
        masks = segmenter.segment([gray, np.repeat(gray[..., None], 3, axis=-1)])
    assert 0 < masks.mean() < 1
    np.testing.assert_array_equal(masks[0], masks[1])


def test_stages_in_order_are_segment(device_bundle: Bundle, target: str, golden: GoldenFrames) -> None:
    with load(device_bundle, target, threads=1) as segmenter:
        value = golden.frames
        for stage in segmenter.stages.values():
            value = stage(value)
        facts = segmenter.engine.facts()
    np.testing.assert_array_equal(value, golden.masks)
    assert facts["precision_effective"] == "fp32"
    assert facts["threads"] == 1


def test_nothing_is_written_into_the_bundle(
    device_bundle: Bundle, target: str, golden: GoldenFrames, tmp_path: Path
) -> None:
    before = list_contents(device_bundle.path)
    cache = tmp_path / "cache"
    with load(device_bundle, target, cache=str(cache)) as segmenter:
        segmenter.segment(golden.frames)
    assert list_contents(device_bundle.path) == before
    if target == "openvino":
        assert any(cache.iterdir())
        # What comes from the cache is the same model, in the same precision.
        with load(device_bundle, target, cache=cache) as segmenter:
            np.testing.assert_array_equal(segmenter.segment(golden.frames), golden.masks)


def list_contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("device", ["NPU", "GPU", "TPU"])
def test_an_absent_device_is_refused(device_bundle: Bundle, target: str, device: str) -> None:
    if device in list_devices(target):
        pytest.skip(f"this machine has {device}")
    with pytest.raises(MachineError, match=device if target == "openvino" else "ONNX Runtime has no"):
        load(device_bundle, target, device=device)


@pytest.mark.parametrize("device", ["AUTO", "HETERO:GPU,CPU"])
def test_openvino_may_not_choose_the_device_itself(device_bundle: Bundle, device: str) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(MachineError, match=f"finds no device {device}"):
        load(device_bundle, "openvino", device=device)


def list_devices(target: str) -> list[str]:
    if target == "openvino":
        import openvino

        return openvino.Core().available_devices
    import onnxruntime

    return ["GPU"] if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else []


def test_a_provider_that_falls_back_is_refused(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    # So ONNX Runtime behaves where CUDA is compiled in and a library of it is missing.
    offer_cuda(monkeypatch)
    start = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda graph, sess_options, providers, **_: start(graph, sess_options, ["CPUExecutionProvider"]),
    )
    with pytest.raises(MachineError, match="could not start CUDAExecutionProvider"):
        load(device_bundle, "onnx", device="GPU")


@pytest.mark.parametrize("device", ["CPU.1", "GPU.", "GPU.x"])
def test_a_device_that_cannot_be_meant_is_refused(device_bundle: Bundle, device: str) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(MachineError, match="ONNX Runtime has no such device"):
        load(device_bundle, "onnx", device=device)


def test_a_provider_that_fails_tells_why_and_is_not_replaced(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    started: dict[str, Any] = {}

    def fail(*_: Any, **choices: Any) -> None:
        started.update(choices)
        raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")

    offer_cuda(monkeypatch)
    monkeypatch.setattr("edgekd.runtime.onnx._find_unread", lambda *_: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(MachineError, match="no CUDA-capable device"):
        load(device_bundle, "onnx", device="GPU")
    # The library would try the processor by itself, and print to stdout.
    assert started["enable_fallback"] == 0


def test_a_build_goes_to_the_device_that_is_asked_for_or_is_refused(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MachineError, match=r"onnx-fp32-cpu cannot run here: .*no CUDAExecutionProvider"):
        choose_builds(device_bundle, ["onnx"], device="GPU")
    offer_cuda(monkeypatch)
    (choice,), skipped = choose_builds(device_bundle, ["onnx"], device="GPU")
    assert (choice.name, choice.device) == ("onnx-fp32-cpu on GPU", "GPU")
    assert {one.reason for one in skipped} <= {"not asked for"}


@pytest.mark.parametrize("left", [(), ("Conv", "FusedConv")])
def test_layers_that_a_gpu_leaves_to_the_processor(
    device_bundle: Bundle, golden: GoldenFrames, monkeypatch: pytest.MonkeyPatch, left: tuple[str, ...]
) -> None:
    pytest.importorskip("onnxruntime")
    start_cuda(monkeypatch)
    monkeypatch.setattr(CudaSession, "left", left)
    if left:
        with pytest.raises(MachineError, match=r"layers of onnx-fp32-cpu on the processor.*in all"):
            load(device_bundle, "onnx", device="GPU")
        return
    with load(device_bundle, "onnx", device="GPU.1") as segmenter:
        options = {"use_tf32": "0", "device_id": "1"}
        assert CudaSession.started["providers"] == [("CUDAExecutionProvider", options)]
        np.testing.assert_array_equal(segmenter.segment(golden.frames), golden.masks)
        assert (
            segmenter.engine.facts()["placement"] == "every convolution and product by CUDAExecutionProvider"
        )


def test_what_cuda_prints_goes_to_stderr_and_its_searches_nowhere(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    start_cuda(monkeypatch)
    levels: list[int] = []
    monkeypatch.setattr("onnxruntime.set_default_logger_severity", levels.append)
    monkeypatch.setattr(
        "onnxruntime.preload_dlls", lambda: sys.stdout.write("Failed to load libcufft\n"), raising=False
    )
    load(device_bundle, "onnx").close()
    assert (levels, capsys.readouterr().err) == ([], "")
    load(device_bundle, "onnx", device="GPU").close()
    captured = capsys.readouterr()
    # Errors are told while it loads, for they name a missing library, and fatal ones alone from then on.
    assert (levels, captured.out, captured.err) == ([3, 4], "", "Failed to load libcufft\n")


def test_a_changed_graph_is_not_loaded(bundle_copy: Bundle, target: str) -> None:
    build = find_build(bundle_copy, target)
    name = "deploy.onnx" if target == "onnx" else "deploy.bin"
    path = build.path / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
        load(bundle_copy, target)


def test_a_changed_description_of_the_graph_is_not_loaded(bundle_copy: Bundle) -> None:
    pytest.importorskip("openvino")
    path = find_build(bundle_copy, "openvino").path / "deploy.xml"
    # Still a graph that OpenVINO reads: a comment more.
    path.write_text(path.read_text() + "<!-- -->\n")
    with pytest.raises(IntegrityError, match=r"deploy\.xml"):
        load(bundle_copy, "openvino")


def test_another_effective_precision_is_refused(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    from edgekd.runtime.precision import Layer

    layers = [Layer("conv", "bf16", 100)]
    monkeypatch.setattr("edgekd.runtime.openvino.read_openvino_layers", lambda *_: layers)
    with pytest.raises(MachineError, match=r"another precision.*bf16.*fp32"):
        load(device_bundle, "openvino")


def test_a_missing_package_names_the_pip_command(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target, package in PACKAGES.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MachineError, match=rf'{package}.*pip install "edgekd\[{target}\]"'):
            load(device_bundle, target)
    assert {reason is None for _, reason in list_runnable(device_bundle)} == {False}


@pytest.mark.parametrize(
    ("target", "package", "advice"),
    [
        ("tensorrt", "tensorrt", "JetPack brings it.*--system-site-packages"),
        ("tensorrt-rtx", "tensorrt_rtx", "--target tensorrt"),
    ],
)
def test_no_empty_extra_is_advised_on_aarch64(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, target: str, package: str, advice: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MachineError, match=advice) as caught:
        load(device_bundle, target)
    assert "pip install" not in str(caught.value)


def test_a_package_that_is_broken_is_no_internal_error(
    device_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")

    def fail() -> None:
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("edgekd.runtime.onnx._import_onnxruntime", fail)
    with pytest.raises(MachineError, match="libgomp"):
        load(device_bundle, "onnx")
    assert "libgomp" in str(find_obstacle(find_build(device_bundle, "onnx")))


def test_builds_for_the_processor_are_runnable(device_bundle: Bundle) -> None:
    for build in list_builds(device_bundle):
        pytest.importorskip(PACKAGES[build.record.target])
        assert find_obstacle(build) is None
    assert [build for build, _ in list_runnable(device_bundle)] == list_builds(device_bundle)


def test_names_and_numbers_that_cannot_be_meant(device_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        load(device_bundle, "openvin")
    with pytest.raises(UsageError, match="unknown precision"):
        load(device_bundle, "onnx", "fp8")
    for threads in (0, "2", 2.0, True):
        with pytest.raises(UsageError, match=f"threads={threads!r}.*a whole number"):
            load(device_bundle, "onnx", threads=threads)  # pyright: ignore[reportArgumentType]


def test_every_engine_of_the_catalogue_can_be_imported_where_its_package_is() -> None:
    from edgekd.runtime.catalogue import load_engine_class

    for target, entry in ENGINES.items():
        if entry.package is None or entry.package in sys.modules:
            assert load_engine_class(target).__module__ == entry.location.partition(":")[0]
