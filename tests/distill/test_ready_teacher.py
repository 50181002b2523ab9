"""A teacher from an earlier run: what it must have in common with the student's run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disc_runs import build_distill_config, build_train_config, press_ctrl_c_at, write_discs
from PIL import Image

from edgekd.distill import TrainResult, distill, golden, load_trained_model, train
from edgekd.errors import InputError, IntegrityError, UsageError


@pytest.fixture(scope="module")
def teacher(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A finished `train` run. Read only."""
    torch.set_num_threads(1)
    config = build_train_config(model="unet-wide", model_options={"width": 4}, epochs=1)
    return train(config, discs, tmp_path_factory.mktemp("teacher") / "run", quiet=True)


def write_other_discs(root: Path) -> Path:
    """Write discs that no teacher of these tests has seen, under the same names."""
    data = write_discs(root, {"train": 6, "val": 1, "test": 1})
    for path in (data / "images").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    return data


def build_config(teacher: Path, **changes: Any) -> Any:
    return build_distill_config(teacher=str(teacher), epochs=1, distill_epochs=1, **changes)


def test_it_teaches_as_it_is_and_the_student_alone_has_a_phase_1(
    teacher: TrainResult, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)
    result = distill(build_config(teacher.out), discs, tmp_path / "run", control=True, quiet=True)
    assert result.teacher.sha256 == teacher.model.sha256
    assert result.teacher.epoch is None
    assert result.teacher.model == teacher.model.model
    assert result.teacher.test == teacher.model.test
    assert (result.out / "teacher.safetensors").read_bytes() == (
        teacher.out / "model.safetensors"
    ).read_bytes()
    # A run of `distill` can hand its teacher on.
    again = distill(build_config(result.out), discs, tmp_path / "again", control=True, quiet=True)
    assert again.student.sha256 == result.student.sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 48}, "received height 48, width 48, expected height 32, width 32"),
        ({"classes": {"names": ["background", "head"]}}, "another classes"),
    ],
)
def test_another_view_of_the_images_is_refused(
    teacher: TrainResult, discs: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        distill(build_config(teacher.out, **changes), discs, tmp_path / "run", quiet=True)


def test_a_teacher_that_saw_the_test_images_is_refused(
    teacher: TrainResult, tmp_path: Path, discs: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(discs, data)
    table = data / "manifest.csv"
    rows = table.read_text().splitlines()
    # The same files, divided otherwise: one that the teacher learned from judges the student.
    swapped = [row.replace(",train0,train", ",train0,test") for row in rows]
    table.write_text("\n".join(swapped) + "\n")
    with pytest.raises(UsageError, match="learned from cases of the test split: received 1 of 4"):
        distill(build_config(teacher.out), data, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_it_is_refused_whatever_the_images_are_called_now_and_whoever_hands_it_on(
    teacher: TrainResult, tmp_path: Path, discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)
    other = write_other_discs(tmp_path / "other")
    handed_on = distill(build_config(teacher.out), other, tmp_path / "handed", quiet=True)
    data = tmp_path / "data"
    shutil.copytree(discs, data)
    Image.open(data / "images/train0.png").save(data / "images/new.bmp")
    (data / "masks/train0.png").rename(data / "masks/new.png")
    table = data / "manifest.csv"
    row = "images/train0.png,masks/train0.png,train0,train"
    table.write_text(table.read_text().replace(row, "images/new.bmp,masks/new.png,somebody,test"))
    for out in (teacher.out, handed_on.out):
        with pytest.raises(UsageError, match="learned from cases of the test split: received 1 of 4"):
            distill(build_config(out), data, tmp_path / "run", quiet=True)


def test_copies_in_the_students_own_splits_are_told_and_taught_all_the_same(
    teacher: TrainResult,
    tmp_path: Path,
    discs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)
    data = tmp_path / "data"
    shutil.copytree(discs, data)
    shutil.copy(data / "images/train0.png", data / "images/test0.png")
    distill(build_config(teacher.out), data, tmp_path / "run")
    told = capsys.readouterr().err
    assert "1 of 3 images of the test split are learned from too (images/test0.png is images/train" in told
    assert "of the val split" not in told


def test_a_run_keeps_its_teachers(
    teacher: TrainResult, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)
    gone = tmp_path / "gone"
    shutil.copytree(teacher.out, gone)
    config, out = build_config(gone), tmp_path / "run"
    with monkeypatch.context() as patch:
        press_ctrl_c_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            distill(config, discs, out, quiet=True)
    shutil.rmtree(gone)
    resumed = distill(config, discs, out, resume=True, quiet=True)
    whole = distill(build_config(teacher.out), discs, tmp_path / "whole", quiet=True)
    assert resumed.student.sha256 == whole.student.sha256
    assert distill(config, discs, out, resume=True, quiet=True).record == resumed.record
    for file, message in (
        ("teacher.safetensors", "is not the teacher of this run"),
        ("teachers.json", "is damaged"),
    ):
        (out / file).write_bytes(b"another")
        with pytest.raises(IntegrityError, match=message):
            distill(config, discs, out, resume=True, quiet=True)


def test_other_data_may_be_taught(
    teacher: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)
    data = write_other_discs(tmp_path / "data")
    assert distill(build_config(teacher.out), data, tmp_path / "run", quiet=True).control is None


def test_an_unfinished_or_changed_run_is_refused(teacher: TrainResult, discs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(teacher.out, copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="is not what"):
        distill(build_config(copy), discs, tmp_path / "run", quiet=True)
    (copy / "result.json").unlink()
    with pytest.raises(InputError, match="holds no finished run"):
        distill(build_config(copy), discs, tmp_path / "run", quiet=True)


def test_a_folder_that_is_not_there_is_no_unknown_network(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run at .*/gone whose network could teach"):
        distill(build_config(tmp_path / "gone"), discs, tmp_path / "run", quiet=True)


def test_a_role_that_a_run_does_not_have_is_named(teacher: TrainResult) -> None:
    with pytest.raises(InputError, match=r"has no control: received model"):
        load_trained_model(teacher.out, "control")
