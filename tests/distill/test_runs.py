"""Whole runs on the discs: what they leave, that they repeat, and that the control is a fair one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from disc_runs import build_distill_config, build_train_config, write_discs
from PIL import Image

from edgekd.answers import show_distillation
from edgekd.bundle import Bundle, load_recording, read_golden
from edgekd.data import LoadedCases, find_cases
from edgekd.distill import (
    DistillResult,
    describe_gain,
    distill,
    evaluate,
    load_trained_model,
    pick_masks,
    predict_logits,
    train,
)
from edgekd.distill.devices import gains_from_bf16
from edgekd.distill.gain import estimate_gain
from edgekd.distill.inputs import load_inputs
from edgekd.distill.teacher import FrozenTeacher
from edgekd.errors import InputError, IntegrityError, UsageError


@pytest.fixture(scope="module")
def finished(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> DistillResult:
    """A finished distillation with its control. Read only."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "run"
    return distill(build_distill_config(), discs, out, control=True, quiet=True)


def load(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_run_folder_is_complete(finished: DistillResult) -> None:
    names = {path.name for path in finished.out.iterdir()}
    assert names == {
        "config.json", "state", "curves.jsonl", "curves.png", "teacher.safetensors",
        "control.safetensors", "student.edgekd", "reference.npz", "result.json",
    }  # fmt: skip
    assert finished.control is not None
    assert finished.student.model == finished.control.model
    assert finished.student.epoch == finished.control.epoch == 4
    assert finished.teacher.epoch in (1, 2)
    assert finished.record.precision == ("bf16" if gains_from_bf16("cpu") else "fp32")
    for fact in finished.record.networks.values():
        assert 0 <= fact.test["dice"] <= 1


def test_the_curves_tell_each_epoch(finished: DistillResult) -> None:
    records = [json.loads(line) for line in (finished.out / "curves.jsonl").read_text().splitlines()]
    assert [(record["epoch"], record["phase"]) for record in records] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert [sorted(record["learners"]) for record in records[1:3]] == [
        ["student", "teacher"],
        ["control", "student"],
    ]
    student, control = (records[2]["learners"][name] for name in ("student", "control"))
    assert sorted(student["losses"]) == ["ce", "dice", "kl", "tdice", "total"]
    assert sorted(control["losses"]) == ["ce", "dice", "total"]
    assert student["lr"] == control["lr"]
    assert student["val"]["num_images"] == 3
    assert (finished.out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_students_rate_is_one_curve_through_both_phases(finished: DistillResult) -> None:
    records = [json.loads(line) for line in (finished.out / "curves.jsonl").read_text().splitlines()]
    rates = [record["learners"]["student"]["lr"] for record in records]
    assert rates == sorted(rates, reverse=True)
    teacher = [record["learners"]["teacher"]["lr"] for record in records[:2]]
    # The teacher's curve ends with phase 1, the student's does not.
    assert teacher[1] < 0.3 * rates[1]


def test_the_control_is_bit_for_bit_the_student_trained_alone(
    finished: DistillResult, discs: Path, tmp_path: Path
) -> None:
    alone = train(build_train_config(select="last"), discs, tmp_path / "alone", quiet=True)
    control = load(finished.out / "control.safetensors")
    assert are_equal(control, load(alone.out / "model.safetensors"))
    assert not are_equal(control, load(finished.bundle / "student.safetensors"))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    finished: DistillResult, discs: Path, tmp_path: Path
) -> None:
    again = distill(build_distill_config(), discs, tmp_path / "again", quiet=True)
    assert again.student.sha256 == finished.student.sha256
    assert again.teacher.sha256 == finished.teacher.sha256
    other = distill(build_distill_config(seed=4), discs, tmp_path / "other", quiet=True)
    assert other.student.sha256 != finished.student.sha256


def test_the_recorded_hashes_are_those_of_the_files(finished: DistillResult) -> None:
    for role in ("teacher", "student", "control"):
        fact = finished.record.networks[role]
        # A network loads only where the file has the recorded hash.
        assert load_trained_model(finished.out, role).model == fact.model


def test_the_bundle_holds_the_student_and_golden_frames_it_agrees_with(finished: DistillResult) -> None:
    bundle = Bundle.open(finished.bundle)
    assert bundle.manifest.model == finished.student.model
    assert bundle.manifest.metrics == {"val": finished.student.val, "test": finished.student.test}
    assert bundle.manifest.training["config"]["seed"] == 3
    golden = read_golden(bundle)
    assert len(golden) == 8
    student = load_trained_model(finished.bundle)
    logits = predict_logits(student.network, golden.tensors)
    np.testing.assert_array_equal(logits, golden.logits)
    np.testing.assert_array_equal(pick_masks(logits), golden.masks)
    assert golden.truths.max() == 1


def test_the_reference_is_what_evaluate_records(finished: DistillResult, discs: Path, tmp_path: Path) -> None:
    result = evaluate(finished.out, discs, record=tmp_path / "again.npz", quiet=True)
    reference, again = load_recording(finished.out / "reference.npz"), load_recording(tmp_path / "again.npz")
    assert reference.source == "pytorch"
    assert reference.manifest_sha256 == Bundle.open(finished.bundle).manifest_sha256
    assert reference.data_sha256 == again.data_sha256 == finished.record.data_sha256["test"]
    np.testing.assert_array_equal(reference.logits, again.logits)
    np.testing.assert_array_equal(reference.masks, again.masks)
    assert result.scores.to_dict() == finished.student.test
    assert tuple(one.to_dict() for one in result.class_scores) == finished.student.test_classes
    assert finished.student.test_classes[1]["dice"] == finished.student.test["dice"]


def test_a_run_with_several_classes_shows_each(finished: DistillResult) -> None:
    assert [table.title for table in show_distillation(finished).tables] == ["Test split"]
    row = {"dice": 0.5, "iou": 0.4, "num_images": 3}
    several = tuple({"name": name, **row} for name in ("background", "cyst", "solid"))
    student = finished.student.model_copy(update={"test_classes": several})
    networks = {**finished.record.networks, "student": student}
    record = finished.record.model_copy(update={"networks": networks})
    tables = show_distillation(dataclasses.replace(finished, record=record)).tables
    assert tables[1].rows == (("cyst", "50.00", "40.00", "3"), ("solid", "50.00", "40.00", "3"))


def test_evaluate_takes_other_splits_and_all(finished: DistillResult, discs: Path) -> None:
    assert evaluate(finished.out, discs, split="val", quiet=True).scores.to_dict() == finished.student.val
    assert evaluate(finished.bundle, discs, split="all", quiet=True).scores.num_images == 16
    with pytest.raises(UsageError, match="did you mean 'test'"):
        evaluate(finished.out, discs, split="tset", quiet=True)


def test_evaluate_says_where_cases_were_learned_from(
    finished: DistillResult, discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = write_discs(tmp_path / "others", {"test": 2, "train": 1}, seed=12)
    mixed = write_discs(tmp_path / "mixed", {"test": 2, "train": 1}, seed=12)
    learned = next(case for case in find_cases(discs).cases if case.split == "train")
    table = (mixed / "manifest.csv").read_text()
    shutil.copy(learned.image, mixed / "images" / "again.png")
    shutil.copy(learned.masks[0], mixed / "masks" / "again.png")
    (mixed / "manifest.csv").write_text(table + "images/again.png,masks/again.png,again,test\n")
    for model, data, split, told in (
        (finished.bundle, discs, "all", "learned from 10 of these 16 cases"),
        (finished.bundle, discs, "train", "learned from 10 of these 10 cases"),
        (finished.bundle, discs, "test", ""),
        (finished.bundle, others, "all", ""),
        (finished.bundle, mixed, "test", "learned from 1 of these 3 cases"),  # under another name
        (finished.out, mixed, "test", "learned from 1 of these 3 cases"),
    ):
        result = evaluate(model, data, split=split)
        count = result.cases_learned_from
        assert told.startswith(f"learned from {count} of" if count else "") and bool(count) is bool(told)
        shown = [line for line in capsys.readouterr().err.splitlines() if "learned from" in line]
        assert (told in "".join(shown)) and bool(shown) is bool(told)


def test_evaluate_on_data_whose_split_is_empty_names_all(finished: DistillResult, tmp_path: Path) -> None:
    others = write_discs(tmp_path / "others", {"test": 2, "train": 1})
    assert evaluate(finished.out, others, quiet=True).scores.num_images == 2
    with pytest.raises(InputError, match=r"received 1 in train, 0 in val, 2 in test.*--split all") as caught:
        evaluate(finished.out, others, split="val", quiet=True)
    assert "salt" not in str(caught.value)


def test_evaluate_of_a_file_names_its_folder(finished: DistillResult, discs: Path) -> None:
    with pytest.raises(InputError, match=r"received a file, expected the folder of a run, or a bundle"):
        evaluate(finished.bundle / "student.safetensors", discs, quiet=True)


def test_training_helps(discs: Path, tmp_path: Path) -> None:
    result = train(build_train_config(epochs=25), discs, tmp_path / "run", quiet=True)
    assert result.model.test["dice"] > 0.8
    assert result.model.test["dice"] > result.record.untrained_test["dice"] + 0.2
    assert result.model.epoch is not None
    with pytest.raises(UsageError, match="a recording refers to a bundle"):
        evaluate(result.out, discs, record=tmp_path / "r.npz", quiet=True)


def test_an_existing_folder_is_left_alone(discs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        train(build_train_config(), discs, tmp_path / "out", quiet=True)
    assert not list((tmp_path / "out").iterdir())


def test_an_existing_folder_is_refused_before_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="--resume"):
        train(build_train_config(), tmp_path / "nothing", tmp_path / "out", quiet=True)


def test_bad_data_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        train(build_train_config(), tmp_path / "nothing", tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "unet-narow"}, "did you mean 'unet-narrow'"),
        ({"student_options": {"widht": 2}}, "did you mean 'width'"),
        ({"image_size": 40}, "multiples of 16"),
        ({"losses": "ce:1"}, "unknown loss to the teacher"),
    ],
)
def test_bad_choices_are_refused_before_anything_is_written(
    discs: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        distill(build_distill_config(**changes), discs, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_no_best_weights_are_chosen_by_a_split_of_background(discs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(discs, data)
    for mask in (data / "masks").glob("val*.png"):
        Image.fromarray(np.zeros((40, 36), np.uint8)).save(mask)
    with pytest.raises(InputError, match="received 3 cases, all of them background"):
        distill(build_distill_config(), data, tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="all of them background"):
        train(build_train_config(), data, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    last = train(build_train_config(select="last", epochs=1), data, tmp_path / "run", quiet=True)
    assert last.record.networks["model"].val["dice"] is None


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_network_that_cannot_learn_from_one_image_is_refused_before_anything_is_written(
    discs: Path, tmp_path: Path, role: str
) -> None:
    # At 32 pixels its deepest batch norm sees one value a channel of each image.
    changes = {role: "dynunet-s", "batch_size": 1} | ({"student_options": {}} if role == "student" else {})
    with pytest.raises(UsageError, match=r"'dynunet-s' cannot learn from one image of 32×32 a step"):
        distill(build_distill_config(**changes), discs, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_frames_of_12_bits_in_16_are_told_of_and_brighter_ones_refused(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(discs, data)
    for path in (data / "images").iterdir():
        pixels = np.asarray(Image.open(path)).astype(np.uint16)
        Image.fromarray(pixels * 16).save(path)  # up to 4080
    for bits, told in ((None, True), (12, False)):
        load_inputs(data, build_distill_config(frame_dtype="uint16", bits_stored=bits))
        assert ("so that the networks see little contrast" in capsys.readouterr().err) is told
    with pytest.raises(InputError, match=r"brighter than the configuration promises.*at most 2047"):
        load_inputs(data, build_distill_config(frame_dtype="uint16", bits_stored=11), quiet=True)
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.fromarray(np.full((40, 36), 5000, np.uint16)).save(frames / "bright.png")
    changes = {"frame_dtype": "uint16", "bits_stored": 12, "unlabeled": str(frames)}
    with pytest.raises(InputError, match=r"bright\.png has.*values up to 5000.*at most 4095"):
        load_inputs(data, build_distill_config(**changes), quiet=True)


def test_a_loss_that_is_not_finite_names_learner_and_step(discs: Path, tmp_path: Path) -> None:
    config = build_train_config(model="odd_networks:build_exploding", model_options={})
    with pytest.raises(UsageError, match=r"the model diverged in epoch 1, step 2.*smaller learning rate"):
        train(config, discs, tmp_path / "out", quiet=True)


def test_dropout_does_not_break_the_controls_equality(discs: Path, tmp_path: Path) -> None:
    name = "odd_networks:build_dropout"
    config = build_distill_config(student=name, student_options={}, distill_epochs=1)
    both = distill(config, discs, tmp_path / "both", control=True, quiet=True)
    alone = train(
        build_train_config(model=name, model_options={}, epochs=3, select="last"),
        discs,
        tmp_path / "alone",
        quiet=True,
    )
    assert are_equal(load(both.out / "control.safetensors"), load(alone.out / "model.safetensors"))


def test_a_teacher_that_changes_is_an_error(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fault: the teacher follows the mode of the whole, so its batch norms learn.
    monkeypatch.setattr(FrozenTeacher, "train", torch.nn.Module.train)
    with pytest.raises(IntegrityError, match="the frozen teacher changed"):
        distill(build_distill_config(distill_epochs=1), discs, tmp_path / "out", quiet=True)


def test_a_run_with_its_control_says_what_it_gained(finished: DistillResult) -> None:
    gain = finished.record.gain
    assert gain is not None and finished.control is not None
    for metric in ("acc", "miou", "dice", "kappa"):
        assert gain[metric]["delta"] == pytest.approx(
            finished.student.test[metric] - finished.control.test[metric], abs=1e-12
        )
        assert gain[metric]["interval_low"] <= gain[metric]["delta"] <= gain[metric]["interval_high"]
        assert gain[metric]["num_groups"] == 3
        assert gain[metric]["verdict"] == "undecided"
    assert "fewer than 20 groups decide nothing, and the test split has 3" in describe_gain(gain)


class Threshold(torch.nn.Module):
    """Foreground where a pixel is above a level."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(level))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), image - self.level], dim=1)


def draw_squares(sizes: list[int]) -> LoadedCases:
    """Return a case for each size, a square of that side with a row above that a low level takes for it."""
    truths = np.zeros((len(sizes), 8, 8), np.uint8)
    for truth, size in zip(truths, sizes, strict=True):
        truth[2 : 2 + size, 2 : 2 + size] = 1
    images = truths[:, None].astype(np.float32)
    images[:, :, 0] = 0.5
    names = tuple(str(index) for index in range(len(sizes)))
    return LoadedCases(images, truths, names, names, ((8, 8),) * len(sizes), names)


def test_the_gain_is_the_students_and_not_the_controls() -> None:
    # The control takes the row for a lesion.
    gain = estimate_gain(Threshold(0.7), Threshold(0.3), draw_squares([4] * 4), 2, seed=0)
    assert gain["dice"]["delta"] == pytest.approx(1 - 2 * 16 / (16 + 24))
    assert gain["acc"]["delta"] == pytest.approx(8 / 64)


@pytest.mark.parametrize(
    ("sizes", "verdict", "sentence"),
    [
        ([3, 4, 5, 6] * 5, "helped", "distillation helped in this run"),
        (
            [3, 4, 5, 6] * 4 + [3, 4, 5],
            "undecided",
            "fewer than 20 groups decide nothing, and the test split has 19",
        ),
        ([4], "undecided", "the test split has 1"),
        ([4] * 25, "undecided", "equal on all (Dice +20.00 points"),
    ],
    ids=["enough", "too few", "one", "all equal"],
)
def test_a_clear_gain_is_claimed_of_enough_groups_that_differ_alone(
    sizes: list[int], verdict: str, sentence: str
) -> None:
    gain = estimate_gain(Threshold(0.7), Threshold(0.3), draw_squares(sizes), 2, seed=0)
    assert gain["dice"]["delta"] > 0.1
    assert gain["dice"]["verdict"] == verdict
    assert sentence in describe_gain(gain)
    assert ("distillation helped in this run" in describe_gain(gain)) == (verdict == "helped")


def test_where_nothing_differs_no_gain_is_shown() -> None:
    gain = estimate_gain(Threshold(0.7), Threshold(0.7), draw_squares([4] * 25), 2, seed=0)
    assert gain["dice"]["verdict"] == "not shown"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.03, "helped in this run: Dice +2.00 points"),
        (-0.01, 0.05, "is not shown to help"),
        (-0.03, -0.01, "did harm"),
        (None, 0.01, "cannot be told"),
    ],
)
def test_the_gain_is_said_plainly(low: float | None, high: float, expected: str) -> None:
    middle = 0.0 if low is None else (low + high) / 2
    dice = {"delta": middle, "interval_low": low, "interval_high": high, "degenerate": False}
    assert expected in describe_gain({"dice": {**dice, "num_groups": 20}})
    assert "the test split has 19" in describe_gain({"dice": {**dice, "num_groups": 19}})
