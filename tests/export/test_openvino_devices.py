"""OpenVINO builds for an Intel GPU or an NPU: made here or there, loaded there in the precision asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fake_openvino
import numpy as np
import pytest

from edgekd.benchmarks.selection import choose_builds
from edgekd.bundle import Bundle, choose_build, find_build, list_builds, read_golden, read_judged_frames
from edgekd.errors import EdgeKDError, MachineError, UsageError
from edgekd.export import export_bundle
from edgekd.export.fixed_shapes import FixedShapes
from edgekd.runtime import find_obstacle, load

openvino = pytest.importorskip("openvino")
SIZE = FixedShapes(frame_size=(67, 91))


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


@pytest.mark.parametrize(("device", "evidence"), [("GPU", "the compiled graph"), ("NPU", "hint f16 alone")])
def test_a_build_made_where_the_device_is(
    bundle_copy: Bundle, devices: object, device: str, evidence: str
) -> None:
    (build,) = export_bundle(bundle_copy, ["openvino"], ["fp16"], device=device, shapes=SIZE, quiet=True)
    assert (build.name, build.record.status) == (f"openvino-fp16-{device.lower()}", "run")
    assert evidence in build.record.facts["run_by"]["precision_read_from"]
    assert build.record.facts["run_by"]["precision_effective"] == "fp16"


@pytest.mark.parametrize("device", ["gpu", "NPU"])
def test_a_build_for_a_device_that_is_elsewhere(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    (build,) = export_bundle(bundle_copy, ["openvino"], ["fp16"], device=device, shapes=SIZE, quiet=True)
    assert build.record.status == "built, not run"
    assert build.record.facts["on_the_processor_in_fp32"]["golden_pixel_agreement"] == 1
    assert any(f"not run on {device.upper()}" in text for text in build.record.facts["notices"])
    assert f"no device {device.upper()}" in str(find_obstacle(build))
    with pytest.raises(MachineError, match="cannot run here"):
        choose_builds(bundle_copy, ["openvino"], "fp16")
    # Carried to the device, it runs there as it is.
    monkeypatch.setattr(fake_openvino.FakeDevices, "real", openvino.Core)
    monkeypatch.setattr(openvino, "Core", fake_openvino.FakeDevices)
    (choice,), _ = choose_builds(bundle_copy, ["openvino"], "fp16")
    judged = read_judged_frames(bundle_copy, build)
    with choice.load(bundle_copy, threads=1) as segmenter:
        np.testing.assert_array_equal(segmenter.segment(judged.frames), judged.masks)


def test_a_graph_that_fails_on_the_processor_is_no_build_for_another_device(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.export.agreement.MIN_AGREEMENT", {"fp32": 1.1})
    before = list_builds(bundle_copy)
    with pytest.raises(EdgeKDError, match="disagrees"):
        export_bundle(bundle_copy, ["openvino"], ["fp16"], device="GPU", quiet=True)
    assert list_builds(bundle_copy) == before


def test_the_build_made_for_a_device_is_taken_there(bundle_copy: Bundle, devices: object) -> None:
    export_bundle(bundle_copy, ["openvino"], device="GPU", quiet=True)
    assert choose_build(bundle_copy, "openvino", "fp32", "GPU.1").name == "openvino-fp32-gpu"
    assert choose_build(bundle_copy, "openvino", "fp32", "NPU") == find_build(bundle_copy, "openvino")
    for targets in ([], ["openvino"]):
        choices, skipped = choose_builds(bundle_copy, targets, device="GPU")
        assert [choice.name for choice in choices] == ["openvino-fp32-gpu"]
        assert not targets or not skipped
    assert "openvino-fp32-gpu is made for" in next(
        one.reason for one in skipped or choose_builds(bundle_copy, device="GPU")[1] if "openvino" in one.name
    )
    choices, _ = choose_builds(bundle_copy, ["openvino"])
    assert [choice.device for choice in choices] == ["CPU", "GPU"]


@pytest.mark.parametrize(
    ("targets", "precision", "device", "shapes", "error", "match"),
    [
        (["openvino"], "fp16", "TPU", None, UsageError, "CPU, GPU, NPU"),
        (["onnx", "openvino"], "fp32", "GPU", None, UsageError, "OpenVINO builds alone.*for onnx"),
        (["openvino"], "fp16", "NPU", None, UsageError, "one size only.*--frame-size"),
        (["openvino"], "fp32", "NPU", SIZE, MachineError, "NPU computes in fp16, int8.*--precision fp16"),
        (["openvino"], "bf16", "GPU", None, MachineError, "GPU computes in fp32, fp16, int8"),
    ],
)
def test_what_a_device_cannot_be_meant_for(
    bundle_copy: Bundle,
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
    with pytest.raises(MachineError, match=r"one size only.*--device NPU --frame-size HEIGHTxWIDTH"):
        load(bundle_copy, "openvino", device="NPU")
    with pytest.raises(MachineError, match=r"cannot run here.*one size only"):
        choose_builds(bundle_copy, ["openvino"], device="NPU")


def test_threads_are_the_processors(bundle_copy: Bundle, devices: object) -> None:
    with pytest.raises(UsageError, match="threads=2 for openvino on GPU"):
        load(bundle_copy, "openvino", device="GPU", threads=2)
    with load(bundle_copy, "openvino", threads=2) as segmenter:
        assert segmenter.engine.facts()["threads"] == 2


def test_the_rebuild_command_names_the_device(bundle_copy: Bundle, tmp_path: Path) -> None:
    (build,) = export_bundle(bundle_copy, ["openvino"], ["fp16"], device="GPU", quiet=True)
    from edgekd.runtime.facts import format_rebuild

    assert format_rebuild(build).endswith("--target openvino --precision fp16 --device GPU")
