"""Masks and overlays of folders, complete or absent; and what overlays show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.answers import show_predictions
from edgekd.benchmarks import predict, run_prediction
from edgekd.benchmarks.overlays import (
    TRUTH_COLOR,
    add_legend,
    draw_overlay,
    find_contour,
    get_class_color,
    list_legend,
)
from edgekd.bundle import Bundle
from edgekd.errors import InputError, MachineError, UsageError
from edgekd.preprocess import preprocess_frame, restore_mask
from edgekd.specs import ClassSpec, PreprocessSpec


def test_masks_have_the_size_of_their_frames_and_hold_class_ids(
    bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path
) -> None:
    add_build("onnx")
    out = tmp_path / "out"
    report = run_prediction(bundle, data / "images", out, quiet=True)
    assert report.engine == "onnx-fp32-cpu"
    frame = np.asarray(Image.open(data / "images" / "case01.png"))
    spec = bundle.manifest.preprocess
    expected = restore_mask((preprocess_frame(frame, spec)[0] > 0).astype(np.uint8), frame.shape, spec)
    mask = np.asarray(Image.open(out / "masks" / "case01.png"))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, expected)
    assert len(list((out / "overlays").iterdir())) == len(report.cases) == 24
    content = json.loads((out / "predictions.json").read_text())
    case = content["cases"][1]
    assert (case["height"], case["width"], case["mask"]) == (56, 64, "masks/case01.png")
    assert case["part_of_pixels"]["lesion"] == pytest.approx(expected.mean())


def test_one_image_and_named_target(bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path) -> None:
    add_build("onnx")
    image = data / "images" / "case00.png"
    assert len(run_prediction(bundle, image, tmp_path / "out", target="onnx", quiet=True).cases) == 1
    with pytest.raises(MachineError):
        run_prediction(bundle, image, tmp_path / "never", target="openvino")


def test_float32_is_taken_before_other_precisions_and_another_one_is_said(
    bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_build("onnx", precision="bf16")
    add_build("onnx", precision="int8")
    build = add_build("openvino")
    image = data / "images" / "case00.png"
    assert run_prediction(bundle, image, tmp_path / "a").engine == "openvino-fp32-cpu"
    assert "computes in" not in capsys.readouterr().err
    shutil.rmtree(build.path)
    add_build("openvino", frame_size=[5, 5])
    assert run_prediction(bundle, image, tmp_path / "b").engine == "onnx-bf16-cpu"
    said = capsys.readouterr().err
    assert (
        "onnx-bf16-cpu computes in bf16: there is no float32 build" in said
        and "openvino-fp32-cpu: made for frames of 5×5" in said
    )
    run_prediction(bundle, image, tmp_path / "c", precision="int8")
    assert "computes in" not in capsys.readouterr().err


def test_equal_stems_keep_their_suffixes_apart(
    bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path
) -> None:
    add_build("onnx")
    image = Image.open(data / "images" / "case00.png")
    folder = tmp_path / "mixed"
    folder.mkdir()
    image.save(folder / "a.png")
    image.save(folder / "a.bmp")
    run_prediction(bundle, folder, tmp_path / "out", quiet=True)
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["a_bmp.png", "a_png.png"]


def test_an_unreadable_image_is_left_out_and_told(
    bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path
) -> None:
    add_build("onnx")
    (data / "images" / "aa.png").write_text("no picture")
    report = run_prediction(bundle, data / "images", tmp_path / "out", quiet=True)
    assert [Path(one["image"]).name for one in report.failed] == ["aa.png"]
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert len(content["cases"]) == len(list((tmp_path / "out/masks").iterdir())) == 24
    assert "aa.png cannot be read" in content["failed"][0]["reason"]
    answer = show_predictions(report)
    assert answer.exit_code == 2
    assert answer.lines[-1] == "left out: 1 of the images, for the reasons above"


def test_unreadable_images_alone_leave_nothing_behind(
    bundle: Bundle, add_build: Callable, tmp_path: Path
) -> None:
    add_build("onnx")
    folder = tmp_path / "bad"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_text("no picture")
    before = sorted(tmp_path.iterdir())
    for source, message in (
        (folder, r"none of the 2 images can be read.*a\.png"),
        (folder / "b.png", r"b\.png"),
    ):
        with pytest.raises(InputError, match=message):
            run_prediction(bundle, source, tmp_path / "out", quiet=True)
    assert sorted(tmp_path.iterdir()) == before


def test_ctrl_c_leaves_no_mask_without_its_overlay(
    bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_build("onnx")
    draw, count = predict.add_legend, iter(range(100))

    def interrupt(*arguments: Any) -> Image.Image:
        if next(count) == 2:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(predict, "add_legend", interrupt)
    run_prediction(bundle, data / "images", tmp_path / "out", quiet=True)
    kept = [
        sorted(path.name for path in (tmp_path / "out" / kind).iterdir()) for kind in ("masks", "overlays")
    ]
    assert kept == [["case00.png", "case01.png"]] * 2


def test_ctrl_c_keeps_what_was_segmented(
    bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_build("onnx")
    read, count = predict.read_frame, iter(range(100))

    def interrupt(image: Path, spec: PreprocessSpec) -> np.ndarray:
        if next(count) == 3:
            raise KeyboardInterrupt
        return read(image, spec)

    monkeypatch.setattr(predict, "read_frame", interrupt)
    report = run_prediction(bundle, data / "images", tmp_path / "out", quiet=True)
    assert len(report.cases) == len(list((tmp_path / "out/masks").iterdir())) == 3
    assert json.loads((tmp_path / "out/predictions.json").read_text())["interrupted"] is True
    assert show_predictions(report).exit_code == 130


def test_output_that_exists_and_input_that_does_not_are_refused(
    bundle: Bundle, add_build: Callable, data: Path, tmp_path: Path
) -> None:
    add_build("onnx")
    with pytest.raises(UsageError, match="exists"):
        run_prediction(bundle, data / "images", tmp_path)
    with pytest.raises(InputError, match="no image or folder"):
        run_prediction(bundle, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="holds no image"):
        run_prediction(bundle, data, tmp_path / "out")


def test_contour_is_the_rim_of_a_region_and_of_the_frame() -> None:
    region = np.zeros((6, 6), bool)
    region[0:4, 1:5] = True
    rim = region.copy()
    rim[1:3, 2:4] = False
    assert np.array_equal(find_contour(region), rim)


def test_overlay_tints_the_mask_and_draws_the_truth_above_it() -> None:
    frame = np.full((400, 400), 100, np.uint8)
    mask = np.zeros((400, 400), np.uint8)
    mask[100:200, 100:200] = 1
    mask[300:350, 300:350] = 2
    truth = np.zeros_like(mask)
    truth[100:250, 100:250] = 1
    pixels = np.asarray(draw_overlay(frame, mask, truth=truth))
    assert tuple(pixels[0, 0]) == (100, 100, 100)
    assert tuple(pixels[199, 150]) == get_class_color(1)
    assert tuple(pixels[349, 320]) == get_class_color(2)
    assert tuple(pixels[100, 150]) == tuple(pixels[249, 150]) == TRUTH_COLOR
    assert pixels[150, 150, 0] > 100 > pixels[150, 150, 2]
    assert tuple(np.asarray(draw_overlay(frame, mask))[249, 150]) == (100, 100, 100)


def test_overlay_takes_deep_and_coloured_frames_and_enlarges_small_ones() -> None:
    mask = np.zeros((20, 30), np.uint8)
    deep = np.linspace(0, 4000, 600).reshape(20, 30).astype(np.uint16)
    picture = draw_overlay(deep, mask)
    assert picture.size == (390, 260)
    assert np.asarray(picture).max() == 255
    blue_first = np.zeros((20, 30, 3), np.uint8)
    blue_first[..., 0] = 200
    assert np.asarray(draw_overlay(blue_first, mask, frame_order="bgr"))[0, 0].tolist() == [0, 0, 200]


def test_legend_wraps_and_never_covers_the_picture() -> None:
    classes = ClassSpec(names=("background", *(f"structure {index}" for index in range(9))))
    picture = Image.new("RGB", (200, 50), (9, 9, 9))
    entries = list_legend(classes, has_truth=True)
    assert len(entries) == 10
    labelled = add_legend(picture, entries)
    assert labelled.width == 200
    assert labelled.height > 50 + 4 * 18
    assert np.array_equal(np.asarray(labelled)[:50], np.asarray(picture))
    colors = {tuple(pixel) for pixel in np.asarray(labelled)[50:].reshape(-1, 3).tolist()}
    assert {color for _, color in entries} <= colors
