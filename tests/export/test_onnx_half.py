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
from fake_onnx_cuda import offer_cuda, start_cuda
from onnx import TensorProto

from edgekd.bundle import Build, Bundle, find_build, list_build_names, read_golden, read_judged_frames
from edgekd.errors import EdgeKDError, MachineError, UsageError
from edgekd.export import export_bundle
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes
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
        ("GPU", r"no CUDAExecutionProvider here.*onnxruntime-gpu"),
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


def test_it_is_judged_on_the_validation_split(bundle: Bundle, tmp_path: Path) -> None:
    facts = build_half(bundle, calib=deep_student.write_data(tmp_path)).record.facts
    assert facts["validation"]["passed"] and facts["calibration"]["images"] > 10


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
        ("fp32", "GPU", UsageError, r"--device GPU for onnx in fp32.*processor and GPU"),
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
