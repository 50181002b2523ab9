"""The three layouts are found, and every way of not being one of them is explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import find_cases, list_images
from edgekd.data.layouts import scan_dataset
from edgekd.errors import InputError


def _save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)


def test_folders_pair_by_stem_whatever_the_suffix(tmp_path: Path) -> None:
    _save(tmp_path / "images/b.jpg")
    _save(tmp_path / "images/a.png")
    _save(tmp_path / "masks/a.bmp")
    _save(tmp_path / "masks/b.png")
    (tmp_path / "images/.DS_Store").write_text("x")
    dataset = find_cases(tmp_path)
    assert dataset.layout == "folders"
    assert [(case.name, case.image.name, case.masks[0].name) for case in dataset.cases] == [
        ("a", "a.png", "a.bmp"),
        ("b", "b.jpg", "b.png"),
    ]


def test_busi_merges_numbered_masks_and_keeps_classes_apart(tmp_path: Path) -> None:
    for name in ("benign/x (1)", "malignant/x (1)"):
        _save(tmp_path / f"{name}.png")
        _save(tmp_path / f"{name}_mask.png")
    _save(tmp_path / "benign/x (1)_mask_1.png")
    _save(tmp_path / "benign/x (1)_mask_2.png")
    dataset = find_cases(tmp_path)
    assert dataset.layout == "busi"
    assert [case.name for case in dataset.cases] == ["benign/x (1)", "malignant/x (1)"]
    assert [mask.name for mask in dataset.cases[0].masks] == [
        "x (1)_mask.png",
        "x (1)_mask_1.png",
        "x (1)_mask_2.png",
    ]
    assert len(dataset.cases[1].masks) == 1


def test_manifest_paths_are_relative_to_the_table_and_optional_cells_may_be_empty(tmp_path: Path) -> None:
    _save(tmp_path / "deep/one.png")
    _save(tmp_path / "deep/one_m.png")
    _save(tmp_path / "two.png")
    table = tmp_path / "deep/manifest.csv"
    text = "\ufeffmask,image,group,split,age\none_m.png,one.png,p1,train,40\none_m.png,../two.png,,,\n"
    table.write_text(text, encoding="utf-8")
    for path in (table, table.parent):
        dataset = find_cases(path)
        assert dataset.layout == "csv"
        assert [(case.name, case.group, case.split) for case in dataset.cases] == [
            ("one.png", "p1", "train"),
            ("../two.png", None, None),
        ]
        assert all(case.image.is_file() for case in dataset.cases)


def test_missing_folder_names_the_path_and_the_phantom(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set at .*nowhere.*edgekd data phantom"):
        find_cases(tmp_path / "nowhere")


@pytest.mark.parametrize("inside", [[], ["images", "masks"], [".git"]])
def test_empty_folder_is_named(tmp_path: Path, inside: list[str]) -> None:
    for name in inside:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="holds no file"):
        find_cases(tmp_path)


def test_masks_without_images_are_listed(tmp_path: Path) -> None:
    for index in range(8):
        _save(tmp_path / f"masks/m{index}.png")
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    assert "8 faults" in str(caught.value)
    assert "mask without image: masks/m0.png" in str(caught.value)
    assert "and 3 more" in str(caught.value)
    assert "edgekd data check" in str(caught.value)


def test_image_without_mask_is_listed(make_folder: Callable[..., Path]) -> None:
    root = make_folder(3)
    (root / "masks/c1.png").unlink()
    with pytest.raises(InputError, match=r"has 1 fault: .*image without mask: images/c1\.png"):
        find_cases(root)


def test_images_alone_are_no_data_set(tmp_path: Path) -> None:
    _save(tmp_path / "some/x.png")
    with pytest.raises(InputError, match=r"not look like.*1 images, 0 of them with a mask.*_mask\.png"):
        find_cases(tmp_path)


def test_folder_of_data_sets_names_them(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    make_folder(15, "pairs")
    _save(tmp_path / "table/scans/a.png")
    (tmp_path / "table/manifest.csv").write_text("image,mask\n")
    _save(tmp_path / "classes/benign/a.png")
    _save(tmp_path / "classes/benign/a_mask.png")
    _save(tmp_path / "pictures/a.png")
    with pytest.raises(InputError, match="does not look like a data set") as caught:
        find_cases(tmp_path)
    assert caught.value.action == "name one of its data sets: classes, pairs, table"


def test_class_folders_with_some_masks_missing_are_still_a_data_set(tmp_path: Path) -> None:
    for index in range(8):
        _save(tmp_path / f"benign/{index}.png")
    _save(tmp_path / "benign/0_mask.png")
    scan = scan_dataset(tmp_path)
    assert [case.name for case in scan.dataset.cases] == ["benign/0"] and len(scan.problems) == 7


def test_other_files_alone_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no image was found"):
        find_cases(tmp_path)


def test_busi_mask_without_image_is_a_problem(tmp_path: Path) -> None:
    _save(tmp_path / "benign/a.png")
    _save(tmp_path / "benign/a_mask.png")
    _save(tmp_path / "benign/b_mask.png")
    _save(tmp_path / "benign/c.png")
    problems = scan_dataset(tmp_path).problems
    assert [(problem.kind, problem.case) for problem in problems] == [
        ("image without mask", "benign/c.png"),
        ("mask without image", "benign/b_mask.png"),
    ]


def test_one_stem_twice_is_a_problem(make_folder: Callable[..., Path]) -> None:
    root = make_folder(2)
    _save(root / "images/c0.jpg")
    with pytest.raises(InputError, match="stem twice: c0"):
        find_cases(root)


def test_one_stem_twice_in_a_class_folder_is_a_problem(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a_mask.png"):
        _save(tmp_path / "benign" / name)
    with pytest.raises(InputError, match="stem twice: benign/a"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("a.png,", "image without mask"),
        (",m.png", "mask without image"),
        ("gone.png,m.png", "missing image"),
        ("a.png,gone.png", "missing mask"),
        ("b.png,m.png,x", "broken row"),
        ("a.png,m.png", "image twice"),
    ],
)
def test_faulty_rows_are_told_and_the_others_kept(tmp_path: Path, row: str, kind: str) -> None:
    for name in ("a", "b", "m"):
        _save(tmp_path / f"{name}.png")
    first = "a.png,m.png\n" if kind == "image twice" else "b.png,m.png\n"
    (tmp_path / "manifest.csv").write_text(f"image,mask\n{first}{row}\n")
    scan = scan_dataset(tmp_path)
    assert [problem.kind for problem in scan.problems] == [kind]
    assert len(scan.dataset.cases) == 1
    with pytest.raises(InputError, match=kind):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"picture,mask\na,b\n", "lacks the column image.*picture, mask"),
        (b"", "lacks the columns image and mask"),
        (b"image,mask\n", "has no row"),
        (b"\xff\xfe\x00\x01", "cannot be read as a CSV table"),
    ],
)
def test_broken_tables_are_explained(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        find_cases(tmp_path)


def test_images_that_lie_too_deep_are_a_problem(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    _save(root / "images/second/b.png")
    _save(root / "masks/second/b.png")
    problems = [(problem.kind, problem.case) for problem in scan_dataset(root).problems]
    assert problems == [
        ("image in a folder within", "images/second/b.png"),
        ("image in a folder within", "masks/second/b.png"),
    ]


def test_masks_beside_their_images_are_no_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x (1)", "x (1)_mask", "x (1)_mask_1", "lone_mask"):
        _save(tmp_path / f"{name}.png")
    assert [path.stem for path in list_images(tmp_path)] == ["lone_mask", "x (1)"]
    assert "2 masks beside their images" in capsys.readouterr().err
    (tmp_path / "scan.dcm").touch()
    (tmp_path / "second").mkdir()
    list_images(tmp_path)
    assert "left out, as no image files: scan.dcm, second\n" in capsys.readouterr().err
    list_images(tmp_path, quiet=True)
    assert capsys.readouterr().err == ""
    assert list_images(tmp_path / "x (1)_mask.png") == [tmp_path / "x (1)_mask.png"]


def test_other_files_beside_the_images_are_ignored_aloud(make_folder: Callable[..., Path]) -> None:
    root = make_folder(2)
    (root / "images/scan.dcm").write_bytes(b"x")
    scan = scan_dataset(root)
    assert [file.name for file in scan.ignored] == ["scan.dcm"]
    assert len(scan.dataset.cases) == 2
