"""The gate from bundle to verdict and files, with engines that are right, wrong, or missing."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.answers import show_parity
from edgekd.benchmarks import run_parity
from edgekd.bundle import Build, Bundle, Recording, save_recording
from edgekd.data import hash_pixels, read_frame, shorten_hashes
from edgekd.errors import GateFailure, InputError, IntegrityError, MachineError, UsageError


def test_faithful_build_passes_on_golden_frames(bundle: Bundle, add_build: Callable) -> None:
    add_build("onnx")
    report = run_parity(bundle)
    assert report.passed
    assert [result.conclusion for result in report.results] == ["consistent"]
    assert report.results[0].num_images == 3


def test_changed_preprocessing_fails_on_golden_frames(bundle: Bundle, add_build: Callable) -> None:
    add_build("openvino")
    report = run_parity(bundle)
    assert not report.passed
    assert report.results[0].conclusion == "inconsistent"
    assert "below" in report.results[0].reasons[0]


def test_faithful_build_is_non_inferior_on_data(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("onnx")
    report = run_parity(bundle, data=data, quiet=True)
    result = report.results[0]
    assert report.passed
    assert result.conclusion == "non-inferior"
    assert (result.num_images, result.num_groups, result.num_different) == (24, 24, 0)
    assert result.pixel_agreement == 1.0
    assert result.worst_cases == ()
    assert result.reference_frame_scores.dice == result.candidate_frame_scores.dice
    assert result.reference_frame_scores.dice > 0.8


def test_changed_preprocessing_fails_on_data(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("openvino")
    result = run_parity(bundle, data=data, quiet=True).results[0]
    assert not result.passed
    assert result.verdict.metrics["dice"] == "fail"
    assert result.candidate_frame_scores.dice < result.reference_frame_scores.dice
    agreements = [case.agreement for case in result.worst_cases]
    assert agreements == sorted(agreements)
    assert len(agreements) == 5


def test_too_many_changed_pixels_fail_on_data_though_every_score_passes(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("openvino")
    wide = dict.fromkeys(("acc", "miou", "dice", "kappa"), 0.99)
    result = run_parity(bundle, data=data, margins=wide, quiet=True).results[0]
    assert set(result.verdict.metrics.values()) == {"pass"}
    assert not result.passed
    assert "computes something else" in result.reasons[0]


def test_cases_that_the_student_learned_from_are_told(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path
) -> None:
    add_build("onnx")
    # This bundle's record does not say.
    assert run_parity(bundle, data=data, quiet=True).cases_learned_from is None
    spec = bundle.manifest.preprocess
    frames = [read_frame(data / "images" / f"case{index:02d}.png", spec) for index in (3, 5)]
    learned = {"train_pixels_sha256": shorten_hashes(hash_pixels(frame, spec) for frame in frames)}
    manifest = bundle.manifest.model_copy(update={"training": learned})
    out, certificate = tmp_path / "out", tmp_path / "certificate.json"
    report = run_parity(
        dataclasses.replace(bundle, manifest=manifest),
        data=data,
        out=out,
        certificate=certificate,
        quiet=True,
    )
    assert report.cases_learned_from == 2
    said = "the student learned from 2 of these 24 cases"
    assert all(said in (out / name).read_text() for name in ("parity.md", "report.html"))
    assert said in " ".join(show_parity(report).lines)
    assert json.loads(certificate.read_text())["cases_learned_from"] == 2
    other = bundle.manifest.model_copy(update={"training": {"train_pixels_sha256": ["0" * 16]}})
    unseen = dataclasses.replace(bundle, manifest=other)
    assert run_parity(unseen, data=data, quiet=True).cases_learned_from == 0
    assert run_parity(unseen, quiet=True).cases_learned_from is None


def test_the_seed_decides_the_resamples(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("openvino")
    lower = [
        run_parity(bundle, data=data, seed=seed, quiet=True).results[0].differences["dice"].lower
        for seed in (1, 1, 2)
    ]
    assert lower[0] == lower[1] != lower[2]


def test_one_bad_build_fails_the_report_though_another_passes(bundle: Bundle, add_build: Callable) -> None:
    add_build("onnx")
    add_build("openvino")
    report = run_parity(bundle)
    assert [result.passed for result in report.results] == [True, False]
    assert not report.passed


def test_builds_that_cannot_run_are_listed_or_refused_when_named(bundle: Bundle, add_build: Callable) -> None:
    add_build("onnx")
    add_build("tensorrt-rtx", device="GPU")
    report = run_parity(bundle)
    assert [result.candidate for result in report.results] == ["onnx-fp32-cpu"]
    assert report.skipped[0].name == "tensorrt-rtx-fp32-gpu"
    assert "no such device" in report.skipped[0].reason
    with pytest.raises(MachineError, match="no such device"):
        run_parity(bundle, targets=["tensorrt-rtx"])
    with pytest.raises(MachineError, match="edgekd export"):
        run_parity(bundle, targets=["openvino"])
    with pytest.raises(UsageError, match="onnx"):
        run_parity(bundle, targets=["onxx"])


def test_nothing_that_runs_is_an_error_and_never_a_pass(bundle: Bundle, add_build: Callable) -> None:
    with pytest.raises(MachineError, match="no build at all"):
        run_parity(bundle)
    add_build("tensorrt-rtx", device="GPU")
    with pytest.raises(MachineError, match="no such device"):
        run_parity(bundle)


def test_precision_and_device_narrow_the_builds(bundle: Bundle, add_build: Callable) -> None:
    add_build("onnx")
    add_build("onnx", precision="int8")
    report = run_parity(bundle, precision="int8")
    assert [result.candidate for result in report.results] == ["onnx-int8-cpu"]
    assert [one.name for one in report.skipped] == ["onnx-fp32-cpu"]
    with pytest.raises(MachineError, match="NPU"):
        run_parity(bundle, device="NPU")


def test_device_asked_for_decides_which_builds_can_run(
    bundle: Bundle, add_build: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Jetson: OpenVINO, which may run a build elsewhere than it was made for, has no GPU there.
    def find_obstacle(build: Build, device: str) -> str | None:
        return "OpenVINO finds no device GPU here" if device == "GPU" else None

    monkeypatch.setattr("edgekd_test_engines.ShiftedEngine.find_obstacle", find_obstacle)
    monkeypatch.setattr("edgekd_test_engines.MissingEngine.obstacle", None)
    add_build("openvino")
    add_build("tensorrt-rtx", device="GPU")
    for device in ("GPU", "gpu"):
        report = run_parity(bundle, device=device)
        assert [result.candidate for result in report.results] == ["tensorrt-rtx-fp32-gpu"]
        assert [(one.name, one.reason) for one in report.skipped] == [
            ("openvino-fp32-cpu", "OpenVINO finds no device GPU here")
        ]
    with pytest.raises(MachineError, match="openvino-fp32-cpu cannot run here: OpenVINO finds no device GPU"):
        run_parity(bundle, targets=["openvino"], device="GPU")


def test_build_made_for_a_missing_device_runs_on_one_that_is_there(
    bundle: Bundle, add_build: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_obstacle(build: Build, device: str) -> str | None:
        return "no NPU" if device == "NPU" else None

    monkeypatch.setattr("edgekd_test_engines.ShiftedEngine.find_obstacle", find_obstacle)
    add_build("openvino", device="NPU")
    with pytest.raises(MachineError, match="no NPU"):
        run_parity(bundle)
    for targets in ([], ["openvino"]):
        report = run_parity(bundle, targets=targets, device="CPU")
        assert [one.candidate for one in report.results] == ["openvino-fp32-npu on CPU"]


def test_output_that_exists_is_refused_before_an_engine_is_looked_for(bundle: Bundle, tmp_path: Path) -> None:
    # The bundle has no build, which would be the complaint if the output were looked at later.
    with pytest.raises(UsageError, match="exists"):
        run_parity(bundle, out=tmp_path)


def test_reference_needs_data_and_data_a_reference(bundle: Bundle, add_build: Callable, data: Path) -> None:
    add_build("onnx")
    with pytest.raises(UsageError, match="--data"):
        run_parity(bundle, reference=Path("reference.npz"))
    with pytest.raises(InputError, match="evaluate"):
        run_parity(bundle, data=data, quiet=True)


def test_recording_that_is_missing_is_made_where_it_was_missed(
    bundle: Bundle, add_build: Callable, data: Path
) -> None:
    add_build("onnx")
    moved = bundle.path.parent.rename(bundle.path.parent.with_name("my run")) / bundle.path.name
    with pytest.raises(InputError) as caught:
        run_parity(moved, data=data, quiet=True)
    words = shlex.split((caught.value.action or "").partition(": ")[2])
    recording = str(moved.parent / "reference.npz")
    assert words == ["edgekd", "evaluate", str(moved), "DATA", "--record", recording]


def test_reference_of_another_bundle_is_refused_before_an_engine_runs(
    bundle: Bundle,
    add_build: Callable,
    data: Path,
    reference: Recording,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_build("onnx")
    monkeypatch.delattr("edgekd_test_engines.ThresholdEngine._preprocess")
    other = tmp_path / "other.npz"
    save_recording(other, dataclasses.replace(reference, manifest_sha256="0" * 64))
    with pytest.raises(IntegrityError, match="different bundles"):
        run_parity(bundle, data=data, reference=other, quiet=True)


def test_changed_or_missing_files_are_refused(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("onnx")
    image = data / "images" / "case03.png"
    pixels = np.asarray(Image.open(image)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    with pytest.raises(IntegrityError, match="not those of the reference"):
        run_parity(bundle, data=data, quiet=True)
    image.unlink()
    (data / "masks" / "case03.png").unlink()
    with pytest.raises(InputError, match="case03"):
        run_parity(bundle, data=data, quiet=True)


def test_reference_without_images_fails(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording
) -> None:
    add_build("onnx")
    empty = dataclasses.replace(
        reference, names=(), groups=(), truths=reference.truths[:0], masks=reference.masks[:0], logits=None
    )
    with pytest.raises(GateFailure):
        run_parity(bundle, data=data, reference=empty, quiet=True)


def test_files_are_written_together_or_not_at_all(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path
) -> None:
    add_build("onnx")
    add_build("openvino")
    add_build("tensorrt-rtx", device="GPU")
    out = tmp_path / "out"
    report = run_parity(bundle, data=data, out=out, quiet=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "parity.json",
        "parity.md",
        "parity.xml",
        "pictures",
        "report.html",
    ]
    content = json.loads((out / "parity.json").read_text())
    assert (content["schema"], content["schema_version"]) == ("edgekd.parity", 3)
    assert content["results"][1]["verdict"]["overall"] == "fail"
    assert content["results"] == json.loads(json.dumps(report.to_dict()["results"]))
    assert content["command"] == f"edgekd parity {bundle.path} --data {data} --seed 0"
    assert "not passed" in (out / "parity.md").read_text()
    with pytest.raises(UsageError, match="exists"):
        run_parity(bundle, out=out)
    with pytest.raises(MachineError):
        run_parity(bundle, targets=["tensorrt-rtx"], out=tmp_path / "never")
    assert not (tmp_path / "never").exists()
