"""Builds in a reduced precision: from a data set to engines that ran, or a refusal that names the reason."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime quantises the graphs")

import deep_student
import onnx
from fake_onnx_cuda import offer_cuda

from edgekd.bundle import Bundle, find_build, list_builds, read_golden
from edgekd.data import assign_splits, find_cases, hash_cases
from edgekd.errors import GateFailure, InputError, IntegrityError, MachineError, UsageError
from edgekd.export import cells, checks, export_bundle, judgement, openvino_ir
from edgekd.export.calibration import load_calibration
from edgekd.export.engine_graphs import build_engine_in, check_signed
from edgekd.export.fixed_shapes import FixedShapes
from edgekd.export.int8 import build_int8
from edgekd.export.quantize import quantize_core
from edgekd.preprocess import preprocess_frames
from edgekd.runtime import load


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty frames with masks, of the kind the deep student knows."""
    return deep_student.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def int8_bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The deep student in int8 for both CPU engines. Read only."""
    pytest.importorskip("openvino")
    bundle = deep_student.write_deep_student(tmp_path_factory.mktemp("int8") / "deep.edgekd")
    export_bundle(bundle, ["onnx", "openvino"], ["int8"], calib=data, quiet=True)
    return bundle


@pytest.fixture
def copy(int8_bundle: Bundle, tmp_path: Path) -> Callable[[], Bundle]:
    def make() -> Bundle:
        shutil.copytree(int8_bundle.path, tmp_path / "copy.edgekd")
        return Bundle.open(tmp_path / "copy.edgekd")

    return make


def test_int8_runs_in_int8_in_both_engines(int8_bundle: Bundle) -> None:
    golden = read_golden(int8_bundle)
    for target in ("onnx", "openvino"):
        build = find_build(int8_bundle, target, "int8")
        assert build.record.status == "run"
        assert build.record.precision_effective == "int8"
        assert build.record.facts["calibration"]["images"] > 10
        assert build.record.facts["golden_pixel_agreement"] > 0.98
        with load(int8_bundle, target, "int8") as segmenter:
            assert segmenter.engine.facts()["precision_effective"] == "int8"
            assert (segmenter.segment(golden.frames) == golden.masks).mean() > 0.98


def test_the_cpu_builds_hold_no_engine_graph(int8_bundle: Bundle) -> None:
    # TensorRT would read its unsigned activations as signed.
    assert set(find_build(int8_bundle, "onnx", "int8").record.files) == {"core.onnx", "deploy.onnx"}


def test_an_int8_graph_serves_again_without_the_data(copy: Callable[[], Bundle]) -> None:
    bundle = copy()
    before = find_build(bundle, "onnx", "int8").record
    (build,) = export_bundle(bundle, ["openvino"], ["int8"], quiet=True)
    assert build.record.facts["calibration"] == before.facts["calibration"]
    # These figures are of the graph, and not of this engine.
    assert "run by ONNX Runtime" in build.record.facts["notices"][0]
    assert find_build(bundle, "onnx", "int8").record == before


def test_an_int8_build_of_fixed_shapes_is_fixed_anew_and_freed_without_the_data(
    copy: Callable[[], Bundle],
) -> None:
    bundle = copy()
    before, frames = find_build(bundle, "onnx", "int8").record, deep_student.draw_frames(3)
    with load(bundle, "onnx", "int8", threads=1) as segmenter:
        expected = segmenter.segment(frames)
    for shapes in (FixedShapes(2, (60, 70)), FixedShapes(frame_size=(48, 56)), None):
        (build,) = export_bundle(bundle, ["onnx"], ["int8"], shapes=shapes, quiet=True)
        size = None if shapes is None else shapes.frame_size
        graph = onnx.load(build.resolve_file("deploy.onnx")).graph
        assert [one.dim_value for one in graph.input[0].type.tensor_type.shape.dim[1:3]] == list(
            size or (0, 0)
        )
        assert ("golden.npz" in build.record.files) == (size == (60, 70))
        facts = build.record.facts
        assert {key: facts[key] for key in ("calibration", "validation", "float_layers", "fallback")} == {
            key: before.facts[key] for key in ("calibration", "validation", "float_layers", "fallback")
        }
        if size != (60, 70):
            with load(bundle, "onnx", "int8", threads=1) as segmenter:
                np.testing.assert_array_equal(segmenter.segment(frames), expected)
    assert (build.record.files, build.record.facts.keys()) == (before.files, before.facts.keys())
    # What is free already is left as it is.
    assert export_bundle(bundle, ["onnx"], ["int8"], quiet=True) == [build]


def test_int8_is_refused_on_a_gpu_by_onnx_runtime(
    int8_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_cuda(monkeypatch)
    with pytest.raises(MachineError, match="no int8 convolutions"):
        load(int8_bundle, "onnx", "int8", "GPU")


def test_a_student_too_shallow_for_int8_is_refused(graphed_student, data: Path, tmp_path: Path) -> None:
    # The head, which stays float32, does 18 % of the tiny student's products.
    bundle = graphed_student(tmp_path / "tiny.edgekd")
    with pytest.raises(MachineError, match="would not run the student in int8"):
        export_bundle(bundle, ["onnx"], ["int8"], calib=data, quiet=True)
    assert [build.name for build in list_builds(bundle)] == ["onnx-fp32-cpu"]


def test_calibration_takes_the_splits_of_the_students_run(
    int8_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    calibration = load_calibration(int8_bundle, data, quiet=True)
    assert len(calibration.tensors) > len(calibration.val_tensors) > 0
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for folder in ("images", "masks"):
        shutil.copy(data / folder / "0.png", tmp_path / folder)
    with pytest.raises(InputError, match="falls into the"):
        load_calibration(int8_bundle, tmp_path, quiet=True)


def test_calibration_that_can_judge_nothing_is_refused(
    int8_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "empty")
    for path in (tmp_path / "empty" / "masks").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    with pytest.raises(InputError, match="nothing is marked in the validation split"):
        load_calibration(int8_bundle, tmp_path / "empty", quiet=True)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_openvino_refuses_what_the_processor_does_not_compute(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    openvino = pytest.importorskip("openvino")

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8", *extra]

    extra: list[str] = []
    monkeypatch.setattr(openvino, "Core", Core)
    with pytest.raises(MachineError, match=f"would run it in fp32.*processor with {precision}"):
        cells.check_cell("openvino", precision)
    extra.append(precision.upper())
    cells.check_cell("openvino", precision)


def pick_hinted_precision() -> str:
    """Return a precision that OpenVINO makes of the float32 graph on this processor."""
    openvino = pytest.importorskip("openvino")
    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found = [precision for precision in ("bf16", "fp16") if precision.upper() in has]
    if not found:
        pytest.skip("this processor computes neither in bf16 nor in fp16")
    return found[0]


def test_openvino_is_judged_on_the_validation_split(
    copy: Callable[[], Bundle], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision, bundle = pick_hinted_precision(), copy()
    from edgekd.export import openvino as builder

    judge, seen = builder.judge_logits, []

    def note(*arguments: Any) -> Any:
        seen.append(arguments)
        return judge(*arguments)

    monkeypatch.setattr(builder, "judge_logits", note)
    (build,) = export_bundle(bundle, ["openvino"], [precision], calib=data, quiet=True)
    calibration = load_calibration(bundle, data, quiet=True)
    facts = build.record.facts
    assert facts["calibration"] == calibration.describe()
    validation = facts["validation"]
    assert (validation["precision"], validation["images"]) == (precision, len(calibration.val_tensors))
    assert validation["passed"] and validation["dice_fp32"] > 0.5
    assert any(notice.startswith(f"{precision}: Dice") for notice in facts["notices"])
    # It was really computed in that precision: close to float32, and not the same.
    ((_, reference, candidate, _),) = seen
    assert 0 < np.abs(reference - candidate).max() < 0.5
    monkeypatch.setitem(judgement.LARGEST_DICE_LOSS, precision, -1.0)
    with pytest.raises(GateFailure, match=f"misses its limits in {precision}: received Dice"):
        export_bundle(bundle, ["openvino"], [precision], calib=data, quiet=True)
    assert find_build(bundle, "openvino", precision) == build


@pytest.mark.parametrize(("shown", "expected"), [("same", True), ("other", False), ("unknown", None)])
def test_judging_on_other_data_than_the_students_is_said(
    int8_bundle: Bundle, data: Path, tmp_path: Path, shown: str, expected: bool | None
) -> None:
    own = assign_splits(find_cases(data))["val"]
    recorded = {
        "same": {"data_sha256": {"val": hash_cases(own)}},
        "other": {"data_sha256": {"val": "0" * 64}},
    }
    manifest = int8_bundle.manifest.model_copy(update={"training": recorded.get(shown, {})})
    bundle = dataclasses.replace(int8_bundle, manifest=manifest)
    calibration = load_calibration(bundle, data, quiet=True)
    assert calibration.describe()["data_of_the_student"] is expected
    core = onnx.load(find_build(bundle, "onnx").resolve_file("core.onnx"))
    half = build_engine_in(bundle, find_build(bundle, "onnx"), "fp16", calibration, quiet=True)
    notices = [build_int8(core, calibration, "cpu", quiet=True).notices[0], half.notices[0]]
    assert all(("judged on other data" in notice) == (shown == "other") for notice in notices)


def test_the_preprocessing_stays_float32_where_the_network_is_computed_in_less(
    copy: Callable[[], Bundle],
) -> None:
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bf16")
    bundle, shapes = copy(), FixedShapes(frame_size=(48, 56))
    (build,) = export_bundle(bundle, ["openvino"], ["bf16"], shapes=shapes, quiet=True)
    core = openvino.Core()
    model = core.read_model(build.resolve_file("deploy.xml"))
    outputs = [output for operation in model.get_ordered_ops() for output in operation.outputs()]
    model.add_outputs([output for output in outputs if "image" in output.get_names()])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    frame, spec = deep_student.draw_frames(1)[0], bundle.manifest.preprocess
    (found,) = (value for value in compiled([frame[None, ..., None]]).values() if value.ndim == 4)
    full_range = 255 * spec.scale / spec.std[0]
    assert np.abs(found - preprocess_frames([frame], spec)).max() < 2e-6 * full_range


@pytest.mark.parametrize("shapes", [None, FixedShapes(frame_size=(48, 56))])
def test_an_openvino_graph_says_which_layers_keep_float32(
    copy: Callable[[], Bundle], shapes: FixedShapes | None, tmp_path: Path
) -> None:
    (build,) = export_bundle(copy(), ["openvino"], ["int8"], shapes=shapes, quiet=True)
    for name in ("deploy.xml", "model_api.xml"):
        layers = list(ElementTree.parse(build.resolve_file(name)).iter("layer"))
        marked = {
            layer.get("name", "")
            for layer in layers
            if layer.find("rt_info/attribute[@name='precise']") is not None
        }
        named = {
            layer.get("name", "")
            for layer in layers
            if layer.get("name", "").startswith("preprocess/")
            and layer.find("output/port").get("precision") == "FP32"
        }
        assert marked == named
        # OpenVINO 2025 keeps the marks of a graph it has read, and reads none that has two.
        again = tmp_path / name
        again.write_bytes(build.resolve_file(name).read_bytes())
        openvino_ir._keep_preprocessing(again)
        assert again.read_text().count('"precise"') == len(marked)
        # With a marked Range it could not compile the graph.
        assert not marked & {layer.get("name", "") for layer in layers if layer.get("type") == "Range"}
        assert 10 < len(marked) < len(layers)


def test_openvino_without_the_data_says_what_it_was_judged_by(copy: Callable[[], Bundle]) -> None:
    precision, bundle = pick_hinted_precision(), copy()
    (build,) = export_bundle(bundle, ["openvino"], [precision], quiet=True)
    assert "validation" not in build.record.facts
    (notice,) = build.record.facts["notices"]
    assert notice.startswith(f"{precision}: judged on the golden frames alone")


def test_a_data_set_that_nothing_uses_or_that_is_not_there_is_refused(
    int8_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    before = list_builds(int8_bundle)
    with pytest.raises(UsageError, match=r"uses --calib: received --calib .* with precision fp32 alone"):
        export_bundle(int8_bundle, ["onnx", "openvino"], calib=data, quiet=True)
    for precisions in (["fp32"], ["int8"]):
        with pytest.raises(InputError, match="of --calib is not there"):
            export_bundle(int8_bundle, ["openvino"], precisions, calib=tmp_path / "none", quiet=True)
    assert list_builds(int8_bundle) == before


def test_another_precision_than_asked_is_no_build(
    copy: Callable[[], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    # As if the library claimed what it does not do: the compiled graph is read back all the same.
    monkeypatch.setattr(checks, "check_cell", lambda *_: None)
    monkeypatch.setattr("edgekd.runtime.openvino.check_capability", lambda *_: None)
    monkeypatch.setattr("edgekd.runtime.openvino.choose_openvino_hint", lambda *_: "f32")
    bundle = copy()
    with pytest.raises(MachineError, match=r"another precision.*received fp32.*expected bf16"):
        export_bundle(bundle, ["openvino"], ["bf16"], quiet=True)
    assert "openvino-bf16-cpu" not in [build.name for build in list_builds(bundle)]


def test_unsigned_numbers_never_reach_tensorrt() -> None:
    tensors = preprocess_frames(deep_student.draw_frames(4), deep_student.SPEC)
    core = deep_student.build_core()
    check_signed(quantize_core(core, tensors, "tensorrt"))
    with pytest.raises(IntegrityError, match="unsigned numbers"):
        check_signed(quantize_core(core, tensors, "cpu"))


def test_tensorrt_gets_a_graph_of_its_own_form(copy: Callable[[], Bundle], data: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle = copy()
    builds = export_bundle(bundle, ["tensorrt-rtx"], ["fp16", "int8"], sm=["8.9"], calib=data, quiet=True)
    for build, precision in zip(builds, ("fp16", "int8"), strict=True):
        facts: dict[str, Any] = build.record.facts
        assert build.record.status == "built, not run"
        assert build.record.precision_effective == precision
        assert facts["validation"]["passed"]
        assert facts["kernels"]["half"] == (precision == "fp16")
        graph = onnx.load(build.resolve_file("engine.onnx"))
        kind = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT
        assert graph.graph.input[0].type.tensor_type.elem_type == kind
        # A device completes the bundle from this graph, without the data set.
        (again,) = export_bundle(bundle, ["tensorrt-rtx"], [precision], sm=["8.6"], quiet=True)
        assert again.record.facts["validation"] == facts["validation"]
        assert again.record.files["engine.onnx"] == build.record.files["engine.onnx"]
