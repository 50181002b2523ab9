"""ONNX builds in half precision, which are for NVIDIA GPUs alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime runs the graphs")

import deep_student
import onnx
from fake_onnx_cuda import CudaSession, offer_cuda, start_cuda
from onnx import TensorProto

from edgekd.benchmarks.selection import choose_builds
from edgekd.bundle import (
    MIN_AGREEMENT,
    Build,
    Bundle,
    find_build,
    list_build_names,
    read_golden,
    read_judged_frames,
)
from edgekd.errors import EdgeKDError, GateFailure, MachineError, UsageError
from edgekd.export import export_bundle
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes
from edgekd.export.half import HalfGraph, convert_to_half
from edgekd.runtime import find_obstacle, load

SIZE = FixedShapes(frame_size=(60, 70))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return deep_student.write_deep_student(tmp_path_factory.mktemp("half") / "deep.edgekd")


@pytest.fixture
def bundle(exported: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(exported.path, tmp_path / "copy.edgekd")
    return Bundle.open(tmp_path / "copy.edgekd")


def build_half(bundle: Bundle, shapes: FixedShapes | None = None, calib: Path | None = None) -> Build:
    return export_bundle(
        bundle, ["onnx"], ["fp16"], device="GPU", shapes=shapes, calib=calib, quiet=True
    )[0]  # fmt: skip


def test_without_cuda_it_is_built_and_not_run(bundle: Bundle) -> None:
    build = build_half(bundle)
    record = build.record
    assert (build.name, record.status) == ("onnx-fp16-gpu", "built, not run")
    assert record.precision_effective == "fp16"
    assert record.facts["on_the_processor_in_fp32"]["golden_pixel_agreement"] > 0.999
    assert "not run on GPU; its graph ran on the processor in fp32" in record.facts["notices"]
    assert "on 4 golden frames" in record.facts["notices"][0]
    # What comes before the network stays float32.
    graph = onnx.shape_inference.infer_shapes(onnx.load(build.resolve_file("deploy.onnx"))).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert (kinds["image"], kinds["wide_0"], kinds["logits"]) == (
        TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT16
    )  # fmt: skip


@pytest.mark.parametrize(
    ("device", "match"),
    [
        ("CPU", r"no half precision and would compute in float32.*--precision fp32"),
        ("GPU", r"no CUDAExecutionProvider here.*onnxruntime-gpu.*--target onnx --precision fp32$"),
    ],
)
def test_it_runs_on_no_processor(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: str, match: str
) -> None:
    build = build_half(bundle)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MachineError, match=match) as caught:
        load(bundle, "onnx", "fp16", device)
    assert "--device CPU" not in str(caught.value)
    assert find_obstacle(build, device) == str(caught.value)


def test_with_cuda_it_is_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    start_cuda(monkeypatch)
    assert build_half(bundle).record.status == "run"
    # Kept off TF32, as a build in fp32 is, half would be kept off tensor cores.
    assert CudaSession.started["providers"] == [("CUDAExecutionProvider", {})]
    golden = read_golden(bundle)
    with load(bundle, "onnx", "fp16", "GPU") as segmenter:
        assert (segmenter.segment(golden.frames) == golden.masks).mean() > 0.999
        facts = segmenter.engine.facts()
    assert (facts["provider"], facts["precision_effective"]) == ("CUDAExecutionProvider", "fp16")


def test_cuda_without_a_gpu_is_no_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_cuda(monkeypatch)

    def find_none(index: int) -> None:
        raise MachineError("no NVIDIA driver on this machine")

    monkeypatch.setattr("edgekd.runtime.onnx.find_device", find_none)
    build = build_half(bundle)
    assert build.record.status == "built, not run"
    assert find_obstacle(build) == "no NVIDIA driver on this machine"
    with pytest.raises(MachineError, match="no NVIDIA driver"):
        load(bundle, "onnx", "fp16", "GPU")


def test_layers_left_to_the_processor_are_not_offered_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_half(bundle)
    start_cuda(monkeypatch)
    monkeypatch.setattr(CudaSession, "left", ("Conv", "FusedConv"))
    with pytest.raises(MachineError, match="layers of onnx-fp16-gpu on the processor") as caught:
        load(bundle, "onnx", "fp16", "GPU")
    assert "--device CPU" not in str(caught.value)
    assert "--target tensorrt --precision fp16" in str(caught.value)


def test_it_keeps_nobody_from_the_processors_build(bundle: Bundle) -> None:
    build_half(bundle)
    for device in (None, "CPU"):
        choices, skipped = choose_builds(bundle, ["onnx"], device=device)
        assert [choice.name for choice in choices] == ["onnx-fp32-cpu"]
        assert [one.name for one in skipped] == ["onnx-fp16-gpu"]


def test_frames_of_one_size_are_judged_by_the_float32_student(bundle: Bundle) -> None:
    half = build_half(bundle, SIZE)
    assert half.record.facts["frame_size"] == [60, 70]
    single = fix_shapes(bundle, find_build(bundle, "onnx"), SIZE)
    for frames, others in zip(
        *(read_judged_frames(bundle, build).frames for build in (half, single)), strict=True
    ):
        np.testing.assert_array_equal(frames, others)
    np.testing.assert_array_equal(
        read_judged_frames(bundle, half).masks, read_judged_frames(bundle, single).masks
    )


def test_a_graph_that_was_made_with_data_is_kept(bundle: Bundle, tmp_path: Path) -> None:
    first = build_half(bundle, calib=deep_student.write_data(tmp_path)).record
    facts = first.facts
    assert facts["validation"]["passed"] and facts["calibration"]["images"] > 10
    again = build_half(bundle, SIZE).record
    assert again.facts["frame_size"] == [60, 70]
    assert again.files["core.onnx"] == first.files["core.onnx"]
    same = ("calibration", "validation", "float_layers", "layers_in_other_precision", "notices")
    assert {key: again.facts[key] for key in same} == {key: facts[key] for key in same}
    # A damaged one is made anew, of golden frames alone.
    (find_build(bundle, "onnx", "fp16").path / "core.onnx").write_bytes(b"")
    assert build_half(bundle).record.facts["calibration"] is None


def test_the_data_set_is_scanned_for_overflow(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[int] = []

    def convert(core: onnx.ModelProto, tensors: np.ndarray, *, half_image: bool) -> HalfGraph:
        scanned.append(len(tensors))
        return convert_to_half(core, tensors, half_image=half_image)

    monkeypatch.setattr("edgekd.export.half.convert_to_half", convert)
    build_half(bundle)
    facts = build_half(bundle, calib=deep_student.write_data(tmp_path)).record.facts
    images = facts["calibration"]["images"] + facts["validation"]["images"]
    assert scanned == [4, 4 + images]


def test_its_graph_is_held_to_the_floor_of_half(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIN_AGREEMENT, "fp32", 1.1)
    build_half(bundle)
    monkeypatch.setitem(MIN_AGREEMENT, "fp16", 1.1)
    monkeypatch.setattr("edgekd.export.judgement.MIN_AGREEMENT", {"fp16": 0.9})
    with pytest.raises(
        GateFailure, match=r"onnx-fp16-gpu was not kept: .*in fp32: received 100\.0000%"
    ) as caught:
        build_half(bundle)
    assert "onnx-fp32-cpu" not in str(caught.value)


def test_without_the_package_onnx_it_is_not_made(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.export.api.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match="pip install onnx, or run it on the workstation"):
        build_half(bundle)


def test_a_student_that_stays_float32_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    core = deep_student.move_out_of_range(
        onnx.load(find_build(bundle, "onnx").resolve_file("core.onnx")), 3e5
    )
    monkeypatch.setattr("edgekd.export.onnx.read_core", lambda graphs: core)
    with pytest.raises(MachineError, match="beyond the range of half: conv_1, relu_1, conv_2"):
        build_half(bundle)
    assert list_build_names(bundle) == ["onnx-fp32-cpu"]


@pytest.mark.parametrize(
    ("precision", "device", "error", "match"),
    [
        ("fp16", None, MachineError, r"in fp32 on a processor.*--device GPU"),
        ("fp16", "NPU", UsageError, r"--device NPU for onnx in fp16"),
        ("fp32", "GPU", UsageError, r"--device GPU for onnx in fp32.*without --device"),
        ("fp61", "GPU", UsageError, r"unknown precision"),
    ],
)
def test_it_is_asked_for_by_its_device(
    bundle: Bundle, precision: str, device: str | None, error: type[EdgeKDError], match: str
) -> None:
    with pytest.raises(error, match=match):
        export_bundle(bundle, ["onnx"], [precision], device=device, quiet=True)


def test_a_missing_build_names_the_command_that_makes_it(bundle: Bundle) -> None:
    with pytest.raises(MachineError, match="--target onnx --precision fp16 --device GPU"):
        load(bundle, "onnx", "fp16", "GPU")
