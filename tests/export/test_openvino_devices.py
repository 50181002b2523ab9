"""OpenVINO builds for an Intel GPU or an NPU: made here or there, loaded there in the precision asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import deep_student
import fake_openvino
import numpy as np
import pytest

from edgekd.benchmarks import run_benchmark, run_parity
from edgekd.benchmarks.frame_sizes import leave_misfits
from edgekd.benchmarks.selection import choose_builds
from edgekd.bundle import Bundle, choose_build, find_build, list_builds, read_golden, read_judged_frames
from edgekd.errors import EdgeKDError, GateFailure, InputError, IntegrityError, MachineError, UsageError
from edgekd.export import export_bundle
from edgekd.export.fixed_shapes import FixedShapes
from edgekd.runtime import find_obstacle, load
from edgekd.runtime.facts import format_rebuild
from edgekd.runtime.openvino import find_device

openvino = pytest.importorskip("openvino")
SIZE = FixedShapes(frame_size=(67, 91))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine without any device of OpenVINO but the processor, whatever it has."""
    monkeypatch.setattr(fake_openvino.FakeDevices, "real", openvino.Core)
    monkeypatch.setattr(fake_openvino.FakeDevices, "present", ("CPU",))
    monkeypatch.setattr(openvino, "Core", fake_openvino.FakeDevices)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[fake_openvino.FakeDevices]]:
    """This machine with an Intel GPU and an NPU."""
    fake = fake_openvino.FakeDevices
    monkeypatch.setattr(fake, "real", openvino.Core)
    monkeypatch.setattr(openvino, "Core", fake)
    yield fake


@pytest.mark.parametrize("device", ["GPU", "GPU.1"])
def test_the_processors_build_on_a_gpu(bundle_copy: Bundle, devices: object, device: str) -> None:
    golden = read_golden(bundle_copy)
    with load(bundle_copy, "openvino", device=device) as segmenter:
        np.testing.assert_array_equal(segmenter.segment(golden.frames), golden.masks)
        facts = segmenter.engine.facts()
    assert facts["precision_effective"] == "fp32"
    assert facts["precision_read_from"] == "the compiled graph"
    assert facts["device_name"] == "Intel GPU"


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_device_that_computes_in_another_precision(
    bundle_copy: Bundle,
    devices: type[fake_openvino.FakeDevices],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
) -> None:
    monkeypatch.setattr(devices, "truthful", False)
    before = list_builds(bundle_copy)
    with pytest.raises(MachineError, match=r"another precision.*f(p|)32.*fp16"):
        export_bundle(bundle_copy, ["openvino"], ["fp16"], device=device, shapes=SIZE, quiet=True)
    assert list_builds(bundle_copy) == before


@pytest.mark.parametrize(
    ("device", "effective", "evidence"),
    [("GPU", "fp16", "the compiled graph"), ("NPU", "not shown", "nothing: the device took the hint f16")],
)
def test_a_build_made_where_the_device_is(
    bundle_copy: Bundle, devices: object, device: str, effective: str, evidence: str
) -> None:
    (build,) = export_bundle(bundle_copy, ["openvino"], ["fp16"], device=device, shapes=SIZE, quiet=True)
    assert (build.name, build.record.status) == (f"openvino-fp16-{device.lower()}", "run")
    assert evidence in build.record.facts["run_by"]["precision_read_from"]
    assert (
        build.record.precision_effective == build.record.facts["run_by"]["precision_effective"] == effective
    )
    with load(bundle_copy, "openvino", "fp16", device) as segmenter:
        assert segmenter.engine.facts()["precision_effective"] == effective


def test_only_an_npu_is_believed_without_its_layers(
    bundle_copy: Bundle, devices: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.runtime.openvino.read_openvino_layers", lambda *_: [])
    with pytest.raises(MachineError, match=r"another precision.*received none"):
        load(bundle_copy, "openvino", device="GPU")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty frames with masks of the deep student's kind."""
    return deep_student.write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("device", ["GPU", "NPU"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_data_judge_and_make_what_a_device_runs(
    data: Path, tmp_path: Path, devices: object, device: str, precision: str
) -> None:
    bundle = deep_student.write_deep_student(tmp_path / "deep.edgekd")
    size = FixedShapes(frame_size=read_golden(bundle).frames[0].shape[:2])
    # The stand-in's GPU calls the layers around int8 ones float32, and all of them so: it does not quantise.
    if (device, precision) == ("GPU", "int8"):
        with pytest.raises(MachineError, match=r"another precision.*received fp32.*expected int8"):
            export_bundle(bundle, ["openvino"], [precision], device=device, calib=data, quiet=True)
        return
    (build,) = export_bundle(
        bundle, ["openvino"], [precision], device=device, calib=data, shapes=size, quiet=True
    )
    assert (build.name, build.record.status) == (f"openvino-{precision}-{device.lower()}", "run")
    assert build.record.facts["validation"]["passed"]
    assert build.record.facts["validation"]["images"] > 0


def test_a_device_that_cannot_compile_what_judges(
    data: Path, tmp_path: Path, devices: type[fake_openvino.FakeDevices], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = deep_student.write_deep_student(tmp_path / "deep.edgekd")
    monkeypatch.setattr(devices, "broken", True)
    with pytest.raises(MachineError, match="cannot compile the student for GPU"):
        export_bundle(bundle, ["openvino"], ["fp16"], device="GPU", calib=data, quiet=True)


@pytest.mark.parametrize("device", ["gpu", "NPU"])
def test_a_build_for_a_device_that_is_elsewhere(
    bundle_copy: Bundle, elsewhere: None, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    (build,) = export_bundle(bundle_copy, ["openvino"], ["fp16"], device=device, shapes=SIZE, quiet=True)
    assert (build.record.status, build.record.precision_effective) == ("built, not run", "not shown")
    assert build.record.facts["on_the_processor_in_fp32"]["golden_pixel_agreement"] == 1
    assert any(f"not run on {device.upper()}" in text for text in build.record.facts["notices"])
    assert f"no device {device.upper()}" in str(find_obstacle(build))
    with pytest.raises(MachineError, match="cannot run here"):
        choose_builds(bundle_copy, ["openvino"], "fp16")
    # Carried to the device, it runs there as it is.
    monkeypatch.setattr(fake_openvino.FakeDevices, "present", ("CPU", "GPU.0", "NPU"))
    (choice,), _ = choose_builds(bundle_copy, ["openvino"], "fp16")
    judged = read_judged_frames(bundle_copy, build)
    with choice.load(bundle_copy, threads=1) as segmenter:
        np.testing.assert_array_equal(segmenter.segment(judged.frames), judged.masks)


def test_a_graph_that_fails_on_the_processor_is_no_build_for_another_device(
    bundle_copy: Bundle, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.export.agreement.MIN_AGREEMENT", {"fp32": 1.1})
    before = list_builds(bundle_copy)
    with pytest.raises(GateFailure, match=r"the build openvino-fp16-gpu was not kept.*processor in fp32"):
        export_bundle(bundle_copy, ["openvino"], ["fp16"], device="GPU", quiet=True)
    assert list_builds(bundle_copy) == before


def list_chosen(bundle: Bundle, *arguments: object, **options: object) -> tuple[dict[str, str], list[str]]:
    """Return name of each choice → name of its build, and which of the builds asked for are left out."""
    choices, skipped = choose_builds(bundle, *arguments, **options)  # type: ignore[arg-type]
    left = [one.name for one in skipped if one.reason != "not asked for"]
    return {one.name: one.find_build(bundle).name for one in choices}, left


def test_the_build_made_for_a_device_is_taken_there(bundle_copy: Bundle, devices: object) -> None:
    export_bundle(bundle_copy, ["openvino"], device="GPU", quiet=True)
    cpu, gpu = "openvino-fp32-cpu", "openvino-fp32-gpu"
    assert choose_build(bundle_copy, "openvino", "fp32", "GPU.1").name == gpu
    assert choose_build(bundle_copy, "openvino", "fp32", "NPU") == find_build(bundle_copy, "openvino")
    assert list_chosen(bundle_copy, ["openvino"], device="GPU") == ({gpu: gpu}, [cpu])
    assert list_chosen(bundle_copy, ["openvino"], device="GPU.1") == ({f"{gpu} on GPU.1": gpu}, [cpu])
    assert list_chosen(bundle_copy, ["openvino"], device="CPU") == ({cpu: cpu}, [gpu])
    assert list_chosen(bundle_copy, ["openvino"]) == ({cpu: cpu, gpu: gpu}, [])
    every, left = list_chosen(bundle_copy, device="GPU")
    assert every == {gpu: gpu} and set(left) == {"onnx-fp32-cpu", cpu}


def test_a_device_runs_one_build_of_several_made_for_others(bundle_copy: Bundle, devices: object) -> None:
    export_bundle(bundle_copy, ["openvino"], ["fp16"], device="NPU", shapes=SIZE, quiet=True)
    export_bundle(bundle_copy, ["openvino"], ["fp16"], device="GPU", quiet=True)
    shutil.rmtree(find_build(bundle_copy, "openvino").path)
    npu, gpu = "openvino-fp16-npu", "openvino-fp16-gpu"
    assert list_chosen(bundle_copy, ["openvino"], device="NPU") == ({npu: npu}, [gpu])
    assert list_chosen(bundle_copy, ["openvino"]) == ({gpu: gpu, npu: npu}, [])
    with pytest.raises(
        MachineError, match=r"openvino-fp16-gpu cannot run here: CPU does not compute in fp16.*run it on GPU"
    ):
        choose_builds(bundle_copy, ["openvino"], device="CPU")


@pytest.mark.parametrize("device", [None, "CPU"])
def test_a_build_for_elsewhere_keeps_nobody_from_the_others(
    bundle_copy: Bundle, elsewhere: None, device: str | None
) -> None:
    export_bundle(bundle_copy, ["openvino"], ["fp16"], device="GPU", quiet=True)
    export_bundle(bundle_copy, ["openvino"], ["fp16"], device="NPU", shapes=SIZE, quiet=True)
    chosen, left = list_chosen(bundle_copy, ["openvino"], device=device)
    assert chosen == {"openvino-fp32-cpu": "openvino-fp32-cpu"}
    assert set(left) == {"openvino-fp16-gpu", "openvino-fp16-npu"}
    report = run_parity(bundle_copy, targets=["openvino"], device=device, quiet=True)
    assert [result.candidate for result in report.results] == ["openvino-fp32-cpu"]


def test_frames_of_another_size_go_to_the_processors_build(bundle_copy: Bundle, devices: object) -> None:
    export_bundle(bundle_copy, ["openvino"], ["fp16"], device="NPU", shapes=SIZE, quiet=True)
    choices, _ = choose_builds(bundle_copy, ["openvino"])
    left, skipped = leave_misfits(bundle_copy, choices, [(50, 60)], named=True)
    assert [choice.name for choice in left] == ["openvino-fp32-cpu"]
    assert [one.name for one in skipped] == ["openvino-fp16-npu"]
    with pytest.raises(InputError, match="does not take these frames"):
        leave_misfits(bundle_copy, choices[:1], [(50, 60)], named=True)


@pytest.mark.parametrize(
    ("targets", "precision", "device", "shapes", "error", "match"),
    [
        (["openvino"], "fp16", "TPU", None, UsageError, "CPU, GPU, NPU"),
        (["onnx", "openvino"], "fp32", "GPU", None, UsageError, r"OpenVINO's builds.*for onnx in fp32"),
        (["openvno"], "fp16", "GPU", None, UsageError, "openvino"),
        (["openvino"], "int8", "GPU", None, UsageError, "--precision int8 --device GPU --calib DATA"),
        (["openvino"], "fp16", "NPU", None, UsageError, "one size only.*--frame-size"),
        (["openvino"], "fp32", "NPU", SIZE, MachineError, "NPU computes in fp16, int8.*--precision fp16"),
        (["openvino"], "bf16", "GPU", None, MachineError, "GPU computes in fp32, fp16, int8"),
    ],
)
def test_what_a_device_cannot_be_meant_for(
    bundle_copy: Bundle,
    elsewhere: None,
    targets: list[str],
    precision: str,
    device: str,
    shapes: FixedShapes | None,
    error: type[EdgeKDError],
    match: str,
) -> None:
    before = list_builds(bundle_copy)
    with pytest.raises(error, match=match):
        export_bundle(bundle_copy, targets, [precision], device=device, shapes=shapes, quiet=True)
    assert list_builds(bundle_copy) == before


def test_a_build_for_any_frames_is_not_for_an_npu(bundle_copy: Bundle, devices: object) -> None:
    with pytest.raises(
        MachineError, match=r"NPU does not compute in fp32.*--precision fp16 --device NPU --frame"
    ):
        load(bundle_copy, "openvino", device="NPU")
    export_bundle(bundle_copy, ["openvino"], ["fp16"], device="GPU", quiet=True)
    with pytest.raises(MachineError, match=r"one size only.*--device NPU --frame-size HEIGHTxWIDTH"):
        load(bundle_copy, "openvino", "fp16", "NPU")
    with pytest.raises(MachineError, match=r"cannot run here.*one size only"):
        choose_builds(bundle_copy, ["openvino"], "fp16", "NPU")


def test_threads_are_the_processors(bundle_copy: Bundle, devices: object) -> None:
    with pytest.raises(UsageError, match="threads=2 for openvino on GPU"):
        load(bundle_copy, "openvino", device="GPU", threads=2)
    with pytest.raises(UsageError, match="no build that runs there"):
        run_benchmark(bundle_copy, targets=["openvino"], device="GPU", threads=2, quiet=True)
    with load(bundle_copy, "openvino", threads=2) as segmenter:
        assert segmenter.engine.facts()["threads"] == 2


def test_commands_name_the_device(bundle_copy: Bundle, elsewhere: None) -> None:
    gpu, npu = (
        export_bundle(bundle_copy, ["openvino"], ["fp16"], device=name, shapes=SIZE, quiet=True)[0]
        for name in ("GPU", "NPU")
    )
    assert format_rebuild(gpu).endswith("--precision fp16 --device GPU --frame-size=67x91")
    assert format_rebuild(npu).endswith("--precision fp16 --device NPU --frame-size 67x91")
    assert format_rebuild(npu, resize=True).endswith(
        "--precision fp16 --device NPU --frame-size HEIGHTxWIDTH"
    )
    with pytest.raises(MachineError, match="--precision int8 --device GPU"):
        load(bundle_copy, "openvino", "int8", "GPU.1")
    (gpu.path / "build.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"make the build anew: .* --precision fp16 --device GPU"):
        list_builds(bundle_copy)


@pytest.mark.parametrize(
    ("asked", "available", "found"),
    [
        ("GPU", ["CPU", "GPU.0", "GPU.1"], "GPU.0"),
        ("GPU.1", ["CPU", "GPU.0", "GPU.1"], "GPU.1"),
        ("GPU.0", ["CPU", "GPU"], "GPU"),
        ("GPU.1", ["CPU", "GPU"], None),
        ("NPU", ["CPU", "GPU"], None),
    ],
)
def test_the_only_gpu_has_two_names(asked: str, available: list[str], found: str | None) -> None:
    assert find_device(asked, available) == found
