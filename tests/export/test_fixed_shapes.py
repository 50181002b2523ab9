"""Builds for one batch and one size of frame give the masks of the free ones, and take nothing else."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deep_student
import numpy as np
import pytest
import tiny_student
from written_builds import write_build

from edgekd.benchmarks import StopRule, run_benchmark, run_parity
from edgekd.bundle import (
    Build,
    Bundle,
    find_build,
    list_builds,
    pack_judged_frames,
    read_golden,
    read_judged_frames,
)
from edgekd.errors import (
    EdgeKDError,
    GateFailure,
    InputError,
    IntegrityError,
    MachineError,
    SegmenterFault,
    UsageError,
)
from edgekd.export import agreement, export_bundle, fixed_golden, fixed_shapes
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes, parse_frame_size, read_options
from edgekd.export.onnx import build_onnx
from edgekd.preprocess import crop_frame, resize_labels
from edgekd.runtime import load
from edgekd.specs import CropBox, PreprocessSpec

openvino = pytest.importorskip("openvino")
FRAMES = np.random.default_rng(2).integers(0, 256, (4, 60, 81), dtype=np.uint8)
SHAPES = FixedShapes(batch=2, frame_size=(60, 81))


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_fixed_shapes_give_the_same_masks(bundle_copy: Bundle, target: str) -> None:
    with load(bundle_copy, target, threads=1) as segmenter:
        expected = segmenter.segment(FRAMES)
    build = fix_shapes(bundle_copy, find_build(bundle_copy, target), SHAPES)
    assert (build.record.facts["batch"], build.record.facts["frame_size"]) == (2, [60, 81])
    assert read_shapes(build, target) == ([2, 60, 81, 1], [2, 32, 48])
    with load(bundle_copy, target, threads=1) as segmenter:
        np.testing.assert_array_equal(segmenter.segment(FRAMES), expected)
        with pytest.raises(
            InputError, match=rf"another size.*60×80.*60×81.*edgekd export .* --target {target}"
        ):
            segmenter.segment(FRAMES[:2, :, 1:])
        # It did no harm.
        assert segmenter.status == "ready"
        # What does not fill a run is filled up.
        for count in (1, 3, 2):
            np.testing.assert_array_equal(segmenter.segment(FRAMES[:count]), expected[:count])


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_runs_are_filled_up_for_each_size_of_frame(bundle_copy: Bundle, target: str) -> None:
    frames = [FRAMES[0], FRAMES[1, :, 1:], FRAMES[2], FRAMES[3], FRAMES[0, :, 1:], FRAMES[1]]
    with load(bundle_copy, target, threads=1) as segmenter:
        expected = segmenter.segment(frames)
    fix_shapes(bundle_copy, find_build(bundle_copy, target), FixedShapes(batch=3))
    with load(bundle_copy, target, threads=1) as segmenter:
        for _ in range(2):
            np.testing.assert_array_equal(segmenter.segment(frames), expected)
        np.testing.assert_array_equal(segmenter.segment(frames[::-1]), expected[::-1])


def read_shapes(build: Any, target: str) -> tuple[list[int], list[int]]:
    path = build.resolve_file("deploy.onnx" if target == "onnx" else "deploy.xml")
    model = openvino.Core().read_model(path)
    return list(model.input(0).shape), list(model.output(0).shape)


def read_partial_shape(build: Any, target: str) -> str:
    path = build.resolve_file("deploy.onnx" if target == "onnx" else "deploy.xml")
    return str(openvino.Core().read_model(path).input(0).partial_shape)


def test_an_openvino_build_from_a_fixed_onnx_build_is_free(bundle_copy: Bundle) -> None:
    fix_shapes(bundle_copy, find_build(bundle_copy, "onnx"), SHAPES)
    (build,) = export_bundle(bundle_copy, ["openvino"], quiet=True)
    model = openvino.Core().read_model(build.resolve_file("deploy.xml"))
    assert str(model.input(0).partial_shape) == "[?,?,?,1]"
    export_bundle(bundle_copy, ["openvino"], shapes=FixedShapes(frame_size=(60, 81)), quiet=True)
    with load(bundle_copy, "openvino", threads=1) as segmenter:
        assert segmenter.segment(FRAMES[:3]).shape == (3, 32, 48)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_other_masks_are_no_build(bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    build = find_build(bundle_copy, target)
    segment, calls = fixed_shapes._segment, []

    def answer(*arguments: Any) -> np.ndarray:
        calls.append(arguments)
        masks = segment(*arguments)
        return masks if len(calls) == 1 else 1 - masks

    monkeypatch.setattr(fixed_shapes, "_segment", answer)
    with pytest.raises(GateFailure, match="gives other masks and was not kept"):
        export_bundle(bundle_copy, [target], shapes=SHAPES, quiet=True)
    assert_untouched(bundle_copy, build)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("error", [MachineError("no memory"), SegmenterFault("broken"), GateFailure("other")])
def test_a_fixed_build_that_fails_leaves_the_one_that_was_there(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch, target: str, error: EdgeKDError
) -> None:
    before = fix_shapes(bundle_copy, find_build(bundle_copy, target), SHAPES)
    run = agreement.read_judged_frames

    def fail(bundle: Bundle, build: Build) -> Any:
        if build.record.facts.get("frame_size") == [90, 131]:
            raise error
        return run(bundle, build)

    monkeypatch.setattr(agreement, "read_judged_frames", fail)
    with pytest.raises(type(error), match=str(error)):
        export_bundle(bundle_copy, [target], shapes=FixedShapes(frame_size=(90, 131)), quiet=True)
    assert_untouched(bundle_copy, before)


def assert_untouched(bundle: Bundle, build: Build) -> None:
    assert find_build(bundle, build.record.target) == build
    build.check_files()
    assert [path.name for path in build.path.parent.iterdir() if path.name.startswith(".")] == []


def test_a_frame_that_the_crop_box_leaves_is_refused_before_anything_is_built(
    graphed_student: Callable[..., Bundle], tmp_path: Path
) -> None:
    spec = PreprocessSpec(height=32, width=48, crop=CropBox(top=3, left=5, height=40, width=44))
    bundle = graphed_student(tmp_path / "cropped.edgekd", spec)
    with pytest.raises(UsageError, match=r"crop box.*received 30x60, expected at least 43x49"):
        export_bundle(bundle, ["openvino"], shapes=FixedShapes(frame_size=(30, 60)), quiet=True)
    assert [build.name for build in list_builds(bundle)] == ["onnx-fp32-cpu"]


def test_the_first_build_of_a_bundle_may_be_fixed(new_student: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = new_student(tmp_path / "a.edgekd")
    core = tiny_student.build_tiny_core(tiny_student.build_weights(1, 2), 32, 48)
    build = build_onnx(bundle, core, SHAPES)
    assert read_shapes(build, "onnx") == ([2, 60, 81, 1], [2, 32, 48])
    assert read_judged_frames(bundle, build).frames[0].shape == (60, 81)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_other_shapes_take_the_place_of_the_old_ones(bundle_copy: Bundle, target: str) -> None:
    frame = FRAMES[:1, :50, :70]
    with load(bundle_copy, target, threads=1) as segmenter:
        expected = segmenter.segment(frame)
    build = fix_shapes(bundle_copy, find_build(bundle_copy, target), SHAPES)
    build = fix_shapes(bundle_copy, build, FixedShapes(frame_size=(50, 70)))
    assert read_partial_shape(build, target) == "[?,50,70,1]"
    assert (build.record.facts["batch"], build.record.facts["frame_size"]) == (None, [50, 70])
    assert read_judged_frames(bundle_copy, build).frames[0].shape == (50, 70)
    with load(bundle_copy, target, threads=1) as segmenter:
        np.testing.assert_array_equal(segmenter.segment(frame), expected)


@pytest.mark.parametrize("shapes", [None, FixedShapes(frame_size=(50, 70))])
def test_an_fp32_build_is_freed_and_fixed_anew_without_torch(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch, shapes: FixedShapes | None
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    before = find_build(bundle_copy, "onnx").record
    fix_shapes(bundle_copy, find_build(bundle_copy, "onnx"), SHAPES)
    (build,) = export_bundle(bundle_copy, ["onnx"], shapes=shapes, quiet=True)
    assert find_build(bundle_copy, "onnx") == build
    assert read_partial_shape(build, "onnx") == ("[?,?,?,1]" if shapes is None else "[?,50,70,1]")
    assert build.record.status == "run"
    assert build.record.files["core.onnx"] == before.files["core.onnx"]
    assert build.record.facts["exporter"] == before.facts["exporter"]
    if shapes is None:
        assert build.record.files == before.files
        assert build.record.facts.keys() == before.facts.keys()


def test_without_the_package_onnx_the_workstation_is_named(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = find_build(bundle_copy, "onnx")
    for package in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MachineError, match="on the workstation"):
        export_bundle(bundle_copy, ["onnx"], shapes=SHAPES, quiet=True)
    with pytest.raises(MachineError, match="package onnx, which is not installed"):
        fix_shapes(bundle_copy, before, SHAPES)
    assert_untouched(bundle_copy, before)


def test_options() -> None:
    assert read_options(None, None) is None
    assert read_options(1, "768x1024") == FixedShapes(1, (768, 1024))
    for text in ("768", "768x", "x", "0x5", "1x1", "768 x 1024", "-3x4"):
        with pytest.raises(UsageError, match="height x width"):
            parse_frame_size(text)
    with pytest.raises(UsageError, match="without frames"):
        FixedShapes(0).check(["onnx"])
    with pytest.raises(UsageError, match="ONNX and OpenVINO builds only: received tensorrt-rtx"):
        FixedShapes(1).check(["onnx", "tensorrt-rtx"])


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_build_of_another_size_holds_golden_frames_of_that_size(bundle_copy: Bundle, target: str) -> None:
    golden = read_golden(bundle_copy)
    build = fix_shapes(bundle_copy, find_build(bundle_copy, target), SHAPES)
    judged = read_judged_frames(bundle_copy, build)
    assert [frame.shape for frame in judged.frames] == [(60, 81)] * len(golden)
    for index, frame in enumerate(judged.frames):
        np.testing.assert_array_equal(frame, resize_labels(golden.frames[index], 60, 81))
    # The student's own idea of these frames, not the build's.
    with load(bundle_copy, "onnx" if target == "openvino" else "openvino", threads=1) as other:
        assert (other.segment(judged.frames) == judged.masks).mean() > 0.9995
    assert (build.record.status, build.record.facts["golden_frames"]) == ("run", len(golden))
    # Without a build, and of a build of any size, they are the bundle's.
    assert read_judged_frames(bundle_copy).frames[0].shape == golden.frames[0].shape


def test_what_is_cropped_stays_in_its_place(graphed_student: Callable[..., Bundle], tmp_path: Path) -> None:
    spec = PreprocessSpec(height=32, width=48, crop=CropBox(top=3, left=5, height=40, width=44))
    bundle = graphed_student(tmp_path / "cropped.edgekd", spec)
    build = fix_shapes(bundle, find_build(bundle, "onnx"), FixedShapes(frame_size=(90, 131)))
    golden, judged = read_golden(bundle), read_judged_frames(bundle, build)
    for before, after in zip(golden.frames, judged.frames, strict=True):
        np.testing.assert_array_equal(crop_frame(before, spec), crop_frame(after, spec))
    assert (judged.masks == golden.masks).mean() > 0.9995


def test_golden_frames_that_have_the_size_already_serve_as_they_are(
    bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = read_golden(bundle_copy)
    size = golden.frames[0].shape
    same = dataclasses.replace(golden, frames=(golden.frames[0],) * len(golden))
    monkeypatch.setattr(fixed_golden, "read_golden", lambda _: same)
    assert fixed_golden.fit_golden_frames(bundle_copy, "onnx", (size[0], size[1])) is None


def test_damaged_frames_of_a_build_are_refused(bundle_copy: Bundle) -> None:
    golden = read_golden(bundle_copy)
    record = fix_shapes(bundle_copy, find_build(bundle_copy, "onnx"), SHAPES).record
    kept = {name: find_build(bundle_copy, "onnx").resolve_file(name).read_bytes() for name in record.files}
    for frames, masks in ((FRAMES[:2], golden.masks[:2]), (FRAMES[:3], golden.masks[:3, 1:])):
        build = write_build(
            bundle_copy,
            target="onnx",
            precision_asked="fp32",
            precision_effective="fp32",
            device="CPU",
            status="run",
            files={**kept, "golden.npz": pack_judged_frames(list(frames), list(masks))},
            facts=record.facts,
        )
        with pytest.raises(IntegrityError, match="does not fit the golden frames"):
            read_judged_frames(bundle_copy, build)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_parity_and_benchmark_take_builds_of_fixed_shapes(bundle_copy: Bundle, target: str) -> None:
    fix_shapes(bundle_copy, find_build(bundle_copy, target), SHAPES)
    report = run_parity(bundle_copy, quiet=True)
    assert report.passed
    assert len(report.results) == 2
    assert f"for {target}-fp32-cpu at 60×81, against the float32 graph" in report.reference
    measured = run_benchmark(bundle_copy, rule=StopRule(5, 0), num_warmup=1, quiet=True)
    assert measured.frames == f"{len(read_golden(bundle_copy))} golden frames of the bundle at 60×81"
    assert [result.frame_shapes for _, result in measured.results] == [((60, 81),)] * 2


def test_builds_of_two_sizes_are_measured_apart(bundle_copy: Bundle) -> None:
    fix_shapes(bundle_copy, find_build(bundle_copy, "onnx"), SHAPES)
    fix_shapes(bundle_copy, find_build(bundle_copy, "openvino"), FixedShapes(frame_size=(60, 80)))
    assert run_parity(bundle_copy, quiet=True).passed
    with pytest.raises(UsageError, match=r"no size of frame in common.*onnx-fp32-cpu: 60×81.*60×80"):
        run_benchmark(bundle_copy, quiet=True)
    (_, result), *_ = run_benchmark(
        bundle_copy, targets=["openvino"], rule=StopRule(5, 0), num_warmup=1, quiet=True
    ).results
    assert result.frame_shapes == ((60, 80),)


def test_a_build_at_the_golden_frames_own_size_has_a_size_too(tmp_path: Path) -> None:
    bundle = deep_student.write_deep_student(tmp_path / "deep.edgekd")
    export_bundle(bundle, ["openvino"], shapes=FixedShapes(frame_size=(48, 56)), quiet=True)
    measured = run_benchmark(bundle, rule=StopRule(5, 0), num_warmup=1, quiet=True)
    assert measured.frames == f"{len(read_golden(bundle))} golden frames of the bundle"
    assert len(measured.results) == 2
    assert "float32 graph" not in run_parity(bundle, quiet=True).reference
    fix_shapes(bundle, find_build(bundle, "onnx"), SHAPES)
    with pytest.raises(UsageError, match=r"no size of frame in common.*60×81.*openvino-fp32-cpu: 48×56"):
        run_benchmark(bundle, quiet=True)
