"""Exporting completes a bundle, says what it saw, and refuses what it cannot do."""

from __future__ import annotations

import shutil
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from written_builds import write_build

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("onnxruntime", reason="onnxruntime checks the graphs")

import onnx
import tiny_student

from edgekd.bundle import Bundle, find_build, list_builds, read_golden
from edgekd.errors import EdgeKDError, GateFailure, IntegrityError, MachineError, UsageError
from edgekd.export import api, export_bundle
from edgekd.export.onnx import build_onnx
from edgekd.export.source_graphs import find_engine_graph
from edgekd.export.tensorrt import _find_timing_cache
from edgekd.specs import ClassSpec, PreprocessSpec


def test_builds_say_what_was_seen(exported_bundle: Bundle) -> None:
    builds = list_builds(exported_bundle)
    assert [build.name for build in builds] == ["onnx-fp32-cpu", "openvino-fp32-cpu"]
    for build in builds:
        facts = build.record.facts
        assert build.record.status == "run"
        assert build.record.precision_effective == "fp32"
        assert facts["golden_frames"] == 3
        assert facts["golden_pixel_agreement"] == 1
        assert facts["preprocess_max_difference"] < 1e-6
        assert facts["preprocess_sha256"] == exported_bundle.manifest.preprocess.compute_hash()
    assert builds[0].record.facts["logits_max_difference"] < 1e-5


def test_the_traced_core_is_the_torch_student(exported_bundle: Bundle) -> None:
    pytest.importorskip("torch")
    from edgekd.export.trace import predict_logits

    golden = read_golden(exported_bundle)
    np.testing.assert_allclose(predict_logits(exported_bundle, golden.tensors), golden.logits, atol=1e-5)


def test_batch_norms_are_folded(exported_bundle: Bundle) -> None:
    core = onnx.load(find_build(exported_bundle, "onnx").resolve_file("core.onnx"))
    assert [node.op_type for node in core.graph.node] == ["Conv", "Relu", "Conv"]


def test_exporting_again_replaces(graphed_student, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    bundle = graphed_student(tmp_path / "a.edgekd")
    graphs = find_build(bundle, "onnx")
    first = export_bundle(bundle, ["openvino"], quiet=True)
    again = export_bundle(bundle, ["openvino", "openvino"], quiet=True)
    assert [build.name for build in again] == [build.name for build in first] == ["openvino-fp32-cpu"]
    assert [build.name for build in list_builds(bundle)] == ["onnx-fp32-cpu", "openvino-fp32-cpu"]
    # The graphs are traced once and stay.
    assert find_build(bundle, "onnx") == graphs


def test_a_damaged_build_is_replaced_unread(exported_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(exported_bundle.path, tmp_path / "a.edgekd")
    bundle = Bundle.open(tmp_path / "a.edgekd")
    record = find_build(bundle, "onnx").path / "build.json"
    record.write_text("{")
    with pytest.raises(IntegrityError, match=f"remove the folder {record.parent}, and .* --target onnx"):
        export_bundle(bundle, ["openvino"], quiet=True)
    (build,) = export_bundle(bundle, ["onnx"], quiet=True)
    assert find_build(bundle, "onnx") == build


def test_a_damaged_engine_graph_counts_as_none_where_it_is_replaced(new_student, tmp_path: Path) -> None:
    bundle = new_student(tmp_path / "a.edgekd")
    build = write_build(
        bundle,
        target="tensorrt-rtx",
        precision_asked="fp16",
        precision_effective="fp16",
        device="GPU",
        status="built, not run",
        files={"engine.onnx": b"graph", "timing.cache": b"times"},
        facts={},
    )
    assert find_engine_graph(bundle, "fp16", "tensorrt-rtx") == build
    assert _find_timing_cache(bundle, "tensorrt-rtx", "fp16") == b"times"
    (build.path / "build.json").write_text("{")
    assert find_engine_graph(bundle, "fp16", "tensorrt-rtx") is None
    assert _find_timing_cache(bundle, "tensorrt-rtx", "fp16") is None
    for replaced in (None, "tensorrt"):
        with pytest.raises(IntegrityError, match="remove the folder"):
            find_engine_graph(bundle, "fp16", replaced)


def test_a_bundle_is_completed_without_torch(
    graphed_student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    bundle = graphed_student(tmp_path / "a.edgekd")
    # An entry of None makes an import fail as if the package were not installed.
    monkeypatch.setitem(sys.modules, "torch", None)
    (build,) = export_bundle(bundle, ["openvino"], quiet=True)
    assert build.record.status == "run"


def test_tracing_without_torch_names_the_command(
    new_student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = new_student(tmp_path / "a.edgekd")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MachineError, match=r"edgekd export a\.edgekd --target onnx"):
        export_bundle(bundle, ["openvino"], quiet=True)
    assert list_builds(bundle) == []


@pytest.mark.parametrize(("package", "target"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_missing_package_names_the_pip_command(
    graphed_student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, target: str
) -> None:
    if target == "onnx":
        pytest.importorskip("torch", reason="torch traces the student")
    bundle = graphed_student(tmp_path / "a.edgekd")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MachineError, match=rf'pip install "edgekd\[{target}\]"'):
        export_bundle(bundle, [target], quiet=True)


@pytest.mark.parametrize(
    ("targets", "precisions", "error", "text"),
    [
        (["tensort"], ["fp32"], UsageError, "did you mean 'tensorrt'"),
        (["onnx"], ["fp23"], UsageError, "did you mean 'fp32'"),
        (["onnx"], ["fp16"], MachineError, "computes half-precision graphs in fp32"),
        (["onnx"], ["fp32", "bf16"], MachineError, "bf16 exists for OpenVINO only"),
        (["tensorrt"], ["bf16"], MachineError, "bf16 exists for OpenVINO only"),
        (["onnx"], ["fp32", "int8"], UsageError, "--target onnx --precision int8 --calib DATA"),
        (["tensorrt-rtx"], ["int8"], UsageError, "no int8 graph for tensorrt-rtx in the bundle"),
        (["onnx", "openvino"], ["int8"], UsageError, "--precision int8 --target openvino --calib DATA$"),
        ([], ["fp32"], UsageError, "no target was named"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_written(
    student_bundle: Bundle, targets: list[str], precisions: list[str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        export_bundle(student_bundle, targets, precisions, quiet=True)
    assert list_builds(student_bundle) == []


def test_a_bundle_that_takes_no_builds_is_told_before_any_work(new_student, tmp_path: Path) -> None:
    bundle = new_student(tmp_path / "a.edgekd")
    (bundle.path / "builds").write_bytes(b"")
    with pytest.raises(UsageError, match=r"a\.edgekd takes no builds(.|\n)*copy it to a folder"):
        export_bundle(bundle, ["onnx"], quiet=True)


def test_one_build_that_fails_hinders_no_other(
    exported_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(shutil.copytree(exported_bundle.path, tmp_path / "copy.edgekd"))
    build = api._Request.build

    class Engine:
        pass

    engines: list[weakref.ref[Engine]] = []

    def fail(request: object, target: str, precision: str) -> object:
        if target == "openvino":
            engine = Engine()
            engines.append(weakref.ref(engine))
            raise GateFailure("openvino misses its limits", received="Dice 0.1", action="another precision")
        if target == "tensorrt-rtx":
            raise EdgeKDError("the parser does not read the graph")
        return build(request, target, precision)  # type: ignore[arg-type]

    monkeypatch.setattr(api._Request, "build", fail)
    with pytest.raises(GateFailure) as caught:
        export_bundle(bundle, ["tensorrt-rtx", "openvino", "onnx"], quiet=True)
    assert str(caught.value) == (
        "tensorrt-rtx fp32: the parser does not read the graph. openvino fp32: openvino misses its limits: "
        "received Dice 0.1. Next: another precision. Builds that were made: onnx-fp32-cpu"
    )
    # No error that is kept holds what its frames held.
    assert [engine() for engine in engines] == [None]
    with pytest.raises(GateFailure, match=r"^openvino misses its limits: received"):
        export_bundle(bundle, ["openvino"], quiet=True)


def test_a_core_that_computes_something_else_is_refused(new_student, tmp_path: Path) -> None:
    bundle = new_student(tmp_path / "a.edgekd")
    weights = tiny_student.build_weights(1, 2)
    weights["3.bias"] = weights["3.bias"] + np.float32(0.002)
    with pytest.raises(GateFailure, match="logits of the core graph"):
        build_onnx(bundle, tiny_student.build_tiny_core(weights, 32, 48))
    assert list_builds(bundle) == []


def test_a_mask_head_that_is_wrong_leaves_no_build(
    new_student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.export import graphs

    bundle = new_student(tmp_path / "a.edgekd")
    build_mask = graphs._add_mask

    def add_wrong_mask(writer: object, num_classes: int, *, through_float: bool) -> None:
        # The head for three classes, given two, is argmax too; the sign of the logits is turned before it.
        writer.add("Neg", "logits", name="negated")
        build_mask(writer, 3, through_float=through_float)
        (argmax,) = [node for node in writer.nodes if node.op_type == "ArgMax"]
        argmax.input[0] = "negated"

    monkeypatch.setattr(graphs, "_add_mask", add_wrong_mask)
    core = tiny_student.build_tiny_core(tiny_student.build_weights(1, 2), 32, 48)
    with pytest.raises(GateFailure, match=r"received 0\.0000% of the pixels equal"):
        build_onnx(bundle, core)
    assert list_builds(bundle) == []


@pytest.mark.parametrize("weights", ["missing", "another shape"])
def test_weights_that_do_not_fit_are_refused(new_student, tmp_path: Path, weights: str) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import save

    from edgekd.bundle import WEIGHTS_FILE, write_bundle
    from edgekd.export.trace import load_student

    facts = new_student(tmp_path / "a.edgekd").manifest
    values = tiny_student.build_weights(1, 2)
    if weights == "missing":
        del values["3.bias"]
    else:
        values["3.bias"] = np.zeros(3, np.float32)
    bundle = write_bundle(
        tmp_path / "b.edgekd",
        preprocess=facts.preprocess,
        classes=facts.classes,
        model=facts.model,
        files={WEIGHTS_FILE: save(values)},
    )
    with pytest.raises(IntegrityError, match="do not fit the network"):
        load_student(bundle)


def test_a_network_without_onnx_form_is_refused(
    student_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")

    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("no ONNX function for aten.nonzero\nlong report")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UsageError, match=r"cannot be exported.*aten\.nonzero"):
        export_bundle(student_bundle, ["onnx"], quiet=True)
    assert list_builds(student_bundle) == []


def test_three_classes_and_colour_go_the_whole_way(graphed_student, tmp_path: Path) -> None:
    spec = PreprocessSpec(
        height=32, width=48, color="rgb", frame_order="bgr", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
    )
    classes = ClassSpec(names=("background", "cyst", "tumour"))
    bundle = graphed_student(tmp_path / "a.edgekd", spec, classes)
    assert find_build(bundle, "onnx").record.facts["golden_pixel_agreement"] == 1
    assert set(np.unique(read_golden(bundle).masks)) == {0, 1, 2}
