"""Bad input at the command line: one line, the exit code of the design, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result
from written_builds import write_build

from edgekd import cli
from edgekd.bundle import Bundle, find_build

runner = CliRunner()
SMALL = ["--image-size", "32", "--epochs", "1", "--teacher", "unet-narrow", "--student", "unet-narrow-xs"]


def run(*arguments: object) -> Result:
    return runner.invoke(cli.app, [str(argument) for argument in arguments])


def assert_refused(done: Result, exit_code: int, *parts: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.exit_code == exit_code, (done.stdout, done.stderr)
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty-four readable grey cases of 48×40 pixels, each its own group."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(3)
    for index in range(24):
        truth = np.zeros((48, 40), np.uint8)
        truth[10 + index % 7 : 30, 8 : 20 + index % 11] = 255
        image = rng.integers(0, 90, truth.shape) + truth // 2
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"case{index:02}.png")
        Image.fromarray(truth).save(folder / "masks" / f"case{index:02}.png")
    return folder


@pytest.mark.parametrize("verb", ["train", "distill"])
def test_training_that_could_not_be_kept_does_not_begin(data: Path, verb: str) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    out = data / "images" / "case00.png" / "run"
    small = SMALL if verb == "distill" else SMALL[:4]
    assert_refused(run(verb, data, "--out", out, *small), 2, f"the output {out} cannot be written", "Next:")


def remove_data(data: Path) -> None:
    shutil.rmtree(data)


def remove_files(data: Path) -> None:
    for path in data.rglob("*.png"):
        path.unlink()


def remove_images(data: Path) -> None:
    for path in (data / "images").iterdir():
        path.unlink()


def truncate_image(data: Path) -> None:
    path = data / "images" / "case05.png"
    path.write_bytes(path.read_bytes()[:300])


def write_text_as_png(data: Path) -> None:
    (data / "images" / "case05.png").write_text("this is no picture")


def shrink_case(data: Path) -> None:
    for kind in ("images", "masks"):
        Image.fromarray(np.zeros((1, 1), np.uint8)).save(data / kind / "case05.png")


def resize_mask(data: Path) -> None:
    Image.fromarray(np.zeros((48, 41), np.uint8)).save(data / "masks" / "case05.png")


def add_class(data: Path) -> None:
    mask = np.zeros((48, 40), np.uint8)
    mask[:9] = 7
    Image.fromarray(mask).save(data / "masks" / "case05.png")


def deepen_image(data: Path) -> None:
    Image.fromarray(np.full((48, 40), 4000, np.uint16)).save(data / "images" / "case05.png")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (remove_data, ("data", "Next:")),
        (remove_files, ("holds no file", "expected images/ and masks/")),
        (remove_images, ("mask", "image")),
        (truncate_image, ("case05.png",)),
        (write_text_as_png, ("case05.png",)),
        (shrink_case, ("case05", "1×1")),
        (resize_mask, ("case05", "width 41", "width 40")),
        (add_class, ("case05", "7")),
        (deepen_image, ("case05", "uint16", "uint8")),
    ],
)
def test_unusable_data_stop_distillation_before_it_begins(
    data: Path, spoil: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
    pytest.importorskip("torch", reason="distillation needs torch")
    spoil(data)
    out = data.parent / "run"
    assert_refused(run("distill", data, "--out", out, *SMALL), 2, *parts)
    assert not list(data.parent.glob("run*")) + list(data.parent.glob(".run*"))


@pytest.mark.parametrize(
    ("spoil", "exit_code"),
    [
        (remove_data, 2),
        (remove_files, 2),
        (remove_images, 1),
        (truncate_image, 1),
        (write_text_as_png, 1),
        (shrink_case, 1),
        (resize_mask, 1),
        (add_class, 1),
    ],
)
def test_data_check_names_the_fault(data: Path, spoil: Callable[[Path], None], exit_code: int) -> None:
    assert run("data", "check", data).exit_code == 0
    spoil(data)
    done = run("data", "check", data, "--json")
    assert done.exit_code == exit_code
    if exit_code == 1:
        findings = json.loads(done.stdout)["findings"]
        assert any(one["severity"] == "fault" for one in findings)


@pytest.mark.parametrize(
    ("option", "name", "nearest"),
    [("--teacher", "dynunett", "dynunet"), ("--student", "unet-narow", "unet-narrow")],
)
def test_unknown_network_offers_the_nearest(data: Path, option: str, name: str, nearest: str) -> None:
    pytest.importorskip("torch", reason="distillation needs torch")
    out = data.parent / "run"
    assert_refused(run("distill", data, "--out", out, option, name), 2, name, f"did you mean '{nearest}'")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--loss", "zkl:1"), ("degenerate for 2 classes", "use kl, cwd or tdice")),
        (("--loss", "at:1"), ("need taps", "--taps enc16")),
        (("--loss", "at:1", "--taps", "enc61"), ("unknown tap",)),
        (("--teacher", "dynunet", "--teacher", "unet-wide"), ("must all be finished runs",)),
        (("--unlabeled", "nowhere"), ("there is no image or folder nowhere",)),
    ],
)
def test_choices_of_teaching_that_cannot_be_meant(
    data: Path, tmp_path: Path, options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    pytest.importorskip("torch", reason="distillation needs torch")
    out = tmp_path / "run"
    small = ["--image-size", "32", "--student", "unet-narrow-xs"]
    teacher = () if "--teacher" in options else ("--teacher", "unet-narrow")
    assert_refused(run("distill", data, "--out", out, *small, *teacher, *options, "--quiet"), 2, *parts)
    assert not out.exists()
    assert not out.exists()


def test_run_folder_that_exists_is_kept(data: Path) -> None:
    pytest.importorskip("torch", reason="distillation needs torch")
    out = data.parent / "run"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert_refused(run("distill", data, "--out", out, *SMALL), 2, "exists")
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("verb", ["parity", "benchmark", "predict"])
def test_result_folder_that_exists_is_kept(
    device_bundle: Bundle, data: Path, tmp_path: Path, verb: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    extra = [data / "images"] if verb == "predict" else []
    assert_refused(run(verb, device_bundle.path, *extra, "--out", out), 2, "exists")
    assert not list(out.iterdir())


def test_unknown_target_offers_the_nearest(bundle_copy: Bundle) -> None:
    before = sorted(bundle_copy.path.rglob("*"))
    done = run("export", bundle_copy.path, "--target", "openvin")
    assert_refused(done, 2, "did you mean 'openvino'")
    assert sorted(bundle_copy.path.rglob("*")) == before


def test_probe_of_the_harness_gives_no_masks(device_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    done = run("predict", device_bundle.path, data / "images", "--target", "null", "--out", out)
    assert_refused(done, 2, "unknown target", "onnx, openvino, tensorrt, tensorrt-rtx")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "part"),
    [
        (["--target", "openvino", "--sm", "87"], 2, "TensorRT alone"),
        (["--target", "tensorrt", "--sm", "9x"], 2, "9x"),
        ([], 2, "onnx, openvino, tensorrt, tensorrt-rtx"),
    ],
)
def test_export_that_cannot_be_meant_builds_nothing(
    student_bundle: Bundle, arguments: list[str], exit_code: int, part: str
) -> None:
    assert_refused(run("export", student_bundle.path, *arguments), exit_code, part)
    assert not (student_bundle.path / "builds").exists()


@pytest.mark.parametrize("verb", ["parity", "benchmark"])
def test_engine_of_tensorrt_rtx_is_not_taken_for_tensorrt(bundle_copy: Bundle, verb: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx builds the engine")
    assert run("export", bundle_copy.path, "--target", "tensorrt-rtx").exit_code == 0
    assert_refused(run(verb, bundle_copy.path, "--target", "tensorrt"), 3, "--target tensorrt-rtx")


@pytest.mark.parametrize(
    ("target", "precision"),
    [("onnx", "fp16"), ("onnx", "bf16"), ("tensorrt", "bf16"), ("tensorrt-rtx", "bf16")],
)
def test_precision_that_a_target_lacks_is_refused(bundle_copy: Bundle, target: str, precision: str) -> None:
    before = sorted(bundle_copy.path.rglob("*"))
    done = run("export", bundle_copy.path, "--target", target, "--precision", precision)
    assert_refused(done, 3, precision, target)
    assert sorted(bundle_copy.path.rglob("*")) == before


@pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt"])
def test_int8_without_calibration_frames_is_refused(bundle_copy: Bundle, target: str) -> None:
    before = sorted(bundle_copy.path.rglob("*"))
    done = run("export", bundle_copy.path, "--target", target, "--precision", "int8")
    assert_refused(done, 2, "--calib DATA", target)
    assert sorted(bundle_copy.path.rglob("*")) == before


@pytest.mark.parametrize(("target", "named"), [("onnx", "CUDAExecutionProvider"), ("openvino", "GPU")])
def test_no_gpu_where_one_is_asked_for(device_bundle: Bundle, target: str, named: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    if _has_gpu(target):
        pytest.skip(f"{target} has a GPU on this machine")
    done = run("benchmark", device_bundle.path, "--target", target, "--device", "GPU", "--quiet")
    assert_refused(done, 3, named)


def _has_gpu(target: str) -> bool:
    if target == "onnx":
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    import openvino

    return any(device.startswith("GPU") for device in openvino.Core().available_devices)


def test_accelerator_that_is_missing_stops_training(data: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU")
    config = data.parent / "choices.json"
    config.write_text('{"accelerator": "cuda"}')
    out = data.parent / "run"
    assert_refused(run("distill", data, "--out", out, "--config", config, *SMALL), 3, "CUDA")
    assert not out.exists()


def _change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "student.safetensors",
        "golden.npz",
        "builds/onnx-fp32-cpu/build.json",
        "builds/onnx-fp32-cpu/deploy.onnx",
    ],
)
@pytest.mark.parametrize("verb", ["inspect", "parity"])
def test_one_changed_byte_is_found(bundle_copy: Bundle, name: str, verb: str) -> None:
    _change_byte(bundle_copy.path / name)
    assert_refused(run(verb, bundle_copy.path), 4, Path(name).name)


@pytest.mark.parametrize(
    "changes",
    [{"mean": (0.25,), "std": (0.5,)}, {"mean": (0.4,)}, {"scale": 1 / 128}],
    ids=["mean and std swapped", "another mean", "another scale"],
)
def test_changed_preprocessing_under_valid_seals_fails_parity(
    bundle_copy: Bundle, tmp_path: Path, changes: dict[str, object]
) -> None:
    pytest.importorskip("onnx", reason="onnx writes the graphs")
    import tiny_student

    from edgekd.export.graphs import build_deploy_graph

    build = find_build(bundle_copy, "onnx")
    spec = bundle_copy.manifest.preprocess.model_copy(update=changes)
    core = tiny_student.build_tiny_core(tiny_student.build_weights(1, 2), spec.height, spec.width)
    files = {name: build.resolve_file(name) for name in build.record.files}
    facts = build.record.model_dump(
        include={"target", "precision_asked", "precision_effective", "device", "facts"}
    )
    planted = {**files, "deploy.onnx": build_deploy_graph(core, spec).SerializeToString()}
    write_build(bundle_copy, **facts, status="run", files=planted)
    assert run("inspect", bundle_copy.path).exit_code == 0
    out = tmp_path / "out"
    done = run("parity", bundle_copy.path, "--target", "onnx", "--out", out)
    assert done.exit_code == 1, (done.stdout, done.stderr)
    assert json.loads((out / "parity.json").read_text())["results"][0]["conclusion"] == "inconsistent"


@pytest.mark.parametrize("name", ["deploy.onnx", "preprocess.onnx"])
def test_export_starts_from_no_changed_graph(bundle_copy: Bundle, name: str) -> None:
    pytest.importorskip("openvino")
    _change_byte(bundle_copy.path / "builds" / "onnx-fp32-cpu" / name)
    assert_refused(run("export", bundle_copy.path, "--target", "openvino", "--quiet"), 4, name)


def test_a_damaged_build_hinders_only_who_uses_it_and_is_replaced_by_export(bundle_copy: Bundle) -> None:
    pytest.importorskip("openvino")
    folder = bundle_copy.path / "builds" / "openvino-fp32-cpu"
    _change_byte(folder / "build.json")
    for arguments in (["inspect"], ["parity"], ["parity", "--target", "openvino"]):
        refused = run(arguments[0], bundle_copy.path, *arguments[1:])
        assert_refused(refused, 4, f"remove the folder {folder}", "--target openvino --precision fp32")
    assert run("parity", bundle_copy.path, "--target", "onnx").exit_code == 0
    assert run("export", bundle_copy.path, "--target", "openvino", "--quiet").exit_code == 0
    (bundle_copy.path / "builds" / "notes").mkdir()
    assert_refused(run("inspect", bundle_copy.path), 4, "remove the folder", "notes")
    assert run("export", bundle_copy.path, "--target", "openvino", "--quiet").exit_code == 0
    assert run("parity", bundle_copy.path, "--target", "openvino").exit_code == 0


def test_newer_schema_is_refused(bundle_copy: Bundle) -> None:
    from edgekd.bundle.records import write_record

    newer = bundle_copy.manifest.model_copy(update={"schema_version": 99})
    write_record(bundle_copy.path, "manifest.json", newer)
    assert_refused(run("inspect", bundle_copy.path), 4, "99", "pip install")


def _fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


def test_full_disk_leaves_no_build(bundle_copy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(bundle_copy.path / "builds" / "openvino-fp32-cpu", ignore_errors=True)
    pytest.importorskip("openvino")
    before = sorted(bundle_copy.path.rglob("*"))
    _fill_disk(monkeypatch)
    assert_refused(run("export", bundle_copy.path, "--target", "openvino"), 3, "the disk is full")
    assert sorted(bundle_copy.path.rglob("*")) == before


def test_full_disk_leaves_no_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill_disk(monkeypatch)
    assert_refused(run("data", "phantom", tmp_path / "phantom", "--count", 2), 3, "the disk is full")
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_no_masks(
    device_bundle: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill_disk(monkeypatch)
    out = tmp_path / "masks"
    assert_refused(run("predict", device_bundle.path, data / "images", "--out", out), 3, "the disk is full")
    assert not list(tmp_path.glob("*masks*"))


@pytest.mark.parametrize("verb", ["parity", "benchmark"])
def test_full_disk_leaves_no_results(
    device_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    _fill_disk(monkeypatch)
    extra = ["--min-queries", 1, "--min-seconds", 0] if verb == "benchmark" else []
    done = run(verb, device_bundle.path, "--target", "onnx", *extra, "--out", tmp_path / "out", "--quiet")
    assert_refused(done, 3, "the disk is full")
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_no_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="distillation needs torch")
    _fill_disk(monkeypatch)
    out = data.parent / "run"
    assert_refused(run("distill", data, "--out", out, *SMALL, "--quiet"), 3, "the disk is full")
    assert [path.name for path in data.parent.iterdir()] == ["data"]


def test_interrupted_benchmark_keeps_what_was_measured_and_says_so(
    device_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.benchmarks import latency

    measure, calls = latency.time_segment, iter(range(100))

    def interrupt(*arguments: Any) -> tuple[int, ...]:
        if next(calls) == 50:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(latency, "time_segment", interrupt)
    done = run("benchmark", device_bundle.path, "--target", "null", "--out", tmp_path / "out", "--quiet")
    assert done.exit_code == 130, (done.stdout, done.stderr)
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    # Twenty of the fifty were for warming up.
    assert [one["num_samples"] for one in report["results"]] == [30]


@pytest.mark.slow
def test_interrupted_distillation_can_be_resumed(data: Path) -> None:
    pytest.importorskip("torch", reason="distillation needs torch")
    out = data.parent / "run"
    command = [sys.executable, "-m", "edgekd", "distill", str(data), "--out", str(out), *SMALL, "--quiet"]
    command[command.index("--epochs") + 1] = "15"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "curves.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.strip().splitlines()[-1].startswith("edgekd: interrupted")
    assert f"--out {out} --resume" in stderr
    assert not (out / "student.edgekd").exists()
    assert_refused(run("distill", data, "--out", out, *SMALL), 2, "--resume")
    # Its own choices need not be repeated; another one is refused.
    go_on = ["distill", str(data), "--out", str(out), "--resume"]
    assert_refused(run(*go_on, "--image-size", "64"), 2, "image_size", "32")
    resumed = [sys.executable, "-m", "edgekd", *go_on, "--quiet"]
    done = subprocess.run(resumed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Bundle.open(out / "student.edgekd").manifest.metrics
