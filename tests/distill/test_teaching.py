"""Phase 2's choices in whole runs: stored answers, several teachers, features, frames without masks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from disc_runs import build_distill_config, build_train_config
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn

from edgekd.distill import DistillResult, TrainResult, distill, golden, train
from edgekd.distill.answers import AnswerStore, split_answer, stack_answers
from edgekd.distill.augment import Views
from edgekd.distill.batches import Batch, BatchBuilder, Pool
from edgekd.distill.objective import TeacherAnswer
from edgekd.distill.plan import make_plan
from edgekd.distill.teacher import FrozenTeacher
from edgekd.distill.teaching import Teaching, average_logits
from edgekd.errors import IntegrityError, UsageError


@pytest.fixture(autouse=True)
def few_golden_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)


@pytest.fixture(scope="module")
def teachers(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, TrainResult]:
    """Two finished `train` runs that differ in their seed. Read only."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("teachers")
    networks = {"model": "unet-wide", "model_options": {"width": 4}, "epochs": 2}
    first, second = (
        train(build_train_config(**networks, seed=seed), discs, root / str(seed), quiet=True)
        for seed in (1, 2)
    )
    return first, second


def run(teachers: tuple[TrainResult, ...], discs: Path, out: Path, **changes: Any) -> DistillResult:
    names = [str(teacher.out) for teacher in teachers]
    options = {key: changes.pop(key) for key in ("cache", "control", "resume") if key in changes}
    config = build_distill_config(
        teacher=names[0] if len(names) == 1 else names, epochs=1, distill_epochs=3, **changes
    )
    return distill(config, discs, out, quiet=True, **options)


def read_terms(result: DistillResult) -> dict[str, float]:
    lines = (result.out / "curves.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["learners"]["student"]["losses"]


def test_stored_answers_change_nothing_and_are_not_asked_for_again(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = run(teachers[:1], discs, tmp_path / "online", views=1)
    cache = tmp_path / "cache"
    stored = run(teachers[:1], discs, tmp_path / "stored", views=1, store_answers=True, cache=cache)
    assert stored.student.sha256 == online.student.sha256
    files = list(cache.rglob("*.safetensors"))
    assert len(files) == 20  # one view of each of 10 training frames, and as many mixtures

    def refuse(self: FrozenTeacher, images: Tensor) -> Tensor:
        raise AssertionError("the teacher was asked")

    with monkeypatch.context() as patch:
        patch.setattr(FrozenTeacher, "forward", refuse)
        again = run(teachers[:1], discs, tmp_path / "again", views=1, store_answers=True, cache=cache)
    assert again.student.sha256 == online.student.sha256
    files[0].write_bytes(files[0].read_bytes()[:-7])
    with pytest.raises(IntegrityError, match="stored teacher answer"):
        run(teachers[:1], discs, tmp_path / "damaged", views=1, store_answers=True, cache=cache)


def test_a_folder_serves_taps_of_other_names(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    for index, taps in enumerate(("enc8=enc4", "enc4")):
        choices = {"losses": "at:1", "taps": taps, "views": 1, "store_answers": True}
        run(teachers[:1], discs, tmp_path / str(index), **choices, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_tap_may_be_called_logits() -> None:
    answer = TeacherAnswer(torch.ones(2, 2, 4, 4), {"logits": torch.zeros(2, 3, 2, 2)})
    again = stack_answers(split_answer(answer), torch.device("cpu"))
    assert torch.equal(again.logits, answer.logits)
    assert torch.equal(again.features["logits"], answer.features["logits"])


def test_an_answer_that_is_missing_is_asked_for_in_the_same_company(tmp_path: Path) -> None:
    asked: list[int] = []

    class Watched(Columns):
        def forward(self, images: Tensor) -> Tensor:
            asked.append(len(images))
            return super().forward(images)

    store = AnswerStore(tmp_path, {})
    images = torch.randn(3, 1, 2, 2)
    batch = build_batch(images, images, 3)
    teaching = build_teaching(teachers=[FrozenTeacher(Watched())], store=store)
    whole = teaching.answer(batch)
    next(iter(tmp_path.rglob("*.safetensors"))).unlink()
    assert torch.equal(teaching.answer(batch).logits, whole.logits)
    assert asked == [3, 3]
    teaching.answer(batch)
    assert asked == [3, 3]


def test_another_view_policy_is_stored_apart(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for index, changes in enumerate(
        ({}, {"teacher_view": "plain"}, {"teacher_mirror": False}, {"augment": {"noise": 0.01}})
    ):
        run(teachers[:1], discs, tmp_path / str(index), views=1, store_answers=True, cache=cache, **changes)
    run(teachers[1:], discs, tmp_path / "other", views=1, store_answers=True, cache=cache)
    assert len(list(cache.iterdir())) == 5


def test_two_teachers_answer_as_one(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    result = run(teachers, discs, tmp_path / "run")
    assert result.teachers.keys() == {"teacher", "teacher-2"}
    assert [one.sha256 for one in result.teachers.values()] == [one.model.sha256 for one in teachers]
    assert (result.out / "teacher-2.safetensors").is_file()
    assert result.record.ensemble_test is not None
    alone = run(teachers[:1], discs, tmp_path / "alone")
    assert alone.record.ensemble_test is None
    assert alone.student.sha256 != result.student.sha256


def test_several_teachers_must_be_different_runs_and_have_no_common_features(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    for names, changes, message in (
        ([str(teachers[0].out), "unet-wide"], {}, "must all be finished runs"),
        ([str(teachers[0].out)] * 2, {}, "named twice"),
        ([str(one.out) for one in teachers], {"losses": "at:1", "taps": "enc8"}, "need one teacher"),
    ):
        with pytest.raises(UsageError, match=message):
            distill(build_distill_config(teacher=names, **changes), discs, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_features_are_learned_logged_and_thrown_away(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    losses = {"losses": "kl:1,cwd:0.1,tdice:1,at:1,fitnet:1,fcwd:0.1", "taps": "enc4,dec2=dec1"}
    result = run(teachers[:1], discs, tmp_path / "run", **losses, boundary_weight=2)
    assert read_terms(result).keys() == {"ce", "dice", "kl", "cwd", "tdice", "at", "fitnet", "fcwd", "total"}
    assert all(value > 0 for value in read_terms(result).values())
    plain = run(teachers[:1], discs, tmp_path / "plain")
    weights = [safetensors.torch.load_file(one.bundle / "student.safetensors") for one in (result, plain)]
    assert weights[0].keys() == weights[1].keys()


def test_an_interrupted_run_with_projectors_goes_on_to_the_same_weights(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"losses": "fitnet:1,at:1", "taps": "enc4", "truth_weight": 0}
    whole = run(teachers[:1], discs, tmp_path / "whole", **losses)
    assert read_terms(whole).keys() == {"fitnet", "at", "total"}
    build, calls = BatchBuilder.build, iter(range(1000))

    def interrupt(self: BatchBuilder, *arguments: Any, **options: Any) -> Batch:
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return build(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(BatchBuilder, "build", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(teachers[:1], discs, tmp_path / "run", **losses)
    assert (
        run(teachers[:1], discs, tmp_path / "run", **losses, resume=True).student.sha256
        == whole.student.sha256
    )


def test_frames_without_masks_are_for_the_student_alone(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.png").symlink_to(discs / "images" / f"train{index}.png")
    without = run(teachers[:1], discs, tmp_path / "without", control=True)
    result = run(teachers[:1], discs, tmp_path / "with", control=True, unlabeled=str(folder))
    assert result.control is not None and without.control is not None
    assert result.control.sha256 == without.control.sha256
    assert result.student.sha256 != without.student.sha256
    assert "unlabelled" in result.record.data_sha256


def test_mixtures_are_for_the_student_alone_and_may_be_stored(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    common = {"control": True, "views": 2}
    without = run(teachers[:1], discs, tmp_path / "without", mix=False, **common)
    result = run(teachers[:1], discs, tmp_path / "with", **common)
    assert result.control is not None and without.control is not None
    assert result.control.sha256 == without.control.sha256
    assert result.student.sha256 != without.student.sha256
    stored = run(teachers[:1], discs, tmp_path / "stored", store_answers=True, **common)
    assert stored.student.sha256 == result.student.sha256


def test_frames_that_judge_may_not_teach(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.open(discs / "images" / "test1.png").save(folder / "one.bmp")
    (folder / "two.png").symlink_to(discs / "images" / "train1.png")
    with pytest.raises(UsageError, match="received 1 of 2"):
        run(teachers[:1], discs, tmp_path / "run", unlabeled=str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": "zkl:1"}, "degenerate for 2 classes: standardised logits"),
        ({"losses": "dist:1"}, "degenerate for 2 classes: the correlation"),
        ({"losses": "at:1"}, "need taps"),
        ({"taps": "enc8"}, "taps without a loss on features"),
        ({"store_answers": True}, "fixed number of views"),
        ({"losses": "at:1", "taps": "enc99"}, "unknown tap of the network 'unet-narrow'"),
        ({"losses": "fitnet:1", "taps": "enc2=nowhere"}, "unknown tap of the network 'unet-wide'"),
        ({"mix": False, "confidence": 0.5}, "confidence would do nothing .* expected frames without masks"),
        ({"quantize_epochs": 1}, "quantize_epochs would do nothing .* expected quantize"),
        ({"losses": "tdice:1", "temperature": 2}, "temperature would do nothing .* losses kl, zkl beside"),
        ({"losses": "cwd:1", "boundary_weight": 2}, "received boundary_weight 2.0, .* kl, tdice, zkl beside"),
        (
            {"losses": "fitnet:1", "taps": "enc8", "confidence": 0.5},
            "confidence would do nothing .* a loss on logits",
        ),
    ],
)
def test_choices_that_do_not_go_together_are_refused_before_anything_is_written(
    discs: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        distill(build_distill_config(**changes), discs, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"teacher_lr": 1e-2}, {"teacher_options": {"width": 4}}])
def test_a_ready_teacher_takes_no_options_of_training(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=f"the option {next(iter(changes))} would do nothing in this run"):
        run(teachers[:1], discs, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_folder_for_answers_that_are_not_stored_is_refused(
    teachers: tuple[TrainResult, TrainResult], discs: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"cache would do nothing .* expected store_answers"):
        run(teachers[:1], discs, tmp_path / "run", cache=tmp_path / "cache")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "cache"),
    [
        ({}, None),
        ({"losses": "cwd:1", "temperature": 1, "boundary_weight": 0, "confidence": 0}, None),
        ({"losses": "kl:1", "temperature": 4, "boundary_weight": 1}, None),
        ({"losses": "tdice:1,cwd:1", "boundary_weight": 1}, None),
        ({"unlabeled": "frames", "confidence": 0.5, "quantize": "int8", "quantize_epochs": 1}, None),
        ({"confidence": 0.5}, None),
        ({"views": 2, "store_answers": True}, Path("answers")),
    ],
)
def test_options_with_an_effect_and_defaults_are_taken(changes: dict[str, Any], cache: Path | None) -> None:
    assert make_plan(build_distill_config(**changes), control=False, cache=cache).taps == ()


def test_a_shallower_teacher_takes_its_own_sizes_and_is_tapped_where_the_name_says() -> None:
    config = build_distill_config(
        teacher="dynunet",
        teacher_options={"width": 3, "levels": 4},
        image_size=48,  # no multiple of 32, which six levels would need
        losses="fitnet:1",
        taps="enc8,dec4",
    )
    # The student's width 2 and the teacher's 3, eight and four times.
    assert make_plan(config, control=False).tap_channels == {"enc8": (16, 24), "dec4": (8, 12)}


class Columns(nn.Module):
    """Logits (0, image + column number): a network that tells left from right."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        logit = self.scale * image + torch.arange(image.shape[-1]).float()
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def build_teaching(**changes: Any) -> Teaching:
    values: dict[str, Any] = {
        "fabric": Fabric(accelerator="cpu", devices=1),
        "teachers": [FrozenTeacher(Columns())],
        "taps": None,
        "plain_view": False,
        "mirror": False,
        "temperature": 1.0,
        "boundary_weight": 0.0,
        "confidence": 0.0,
        "store": None,
    }
    return Teaching(**{**values, **changes})


def build_batch(images: Tensor, plain: Tensor, num_labelled: int) -> Batch:
    inside = torch.ones(len(images), *images.shape[2:], dtype=torch.bool)
    inside[:, 0, 0] = False
    views = Views(images, torch.zeros_like(inside, dtype=torch.int64), inside, plain)
    return Batch(views, num_labelled, tuple(("", index) for index in range(len(images))))


def test_the_plain_view_is_the_frame_before_gain_and_noise() -> None:
    batch = build_batch(torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 2, 3), 1)
    same, plain = (build_teaching(plain_view=choice).answer(batch).logits for choice in (False, True))
    assert torch.equal(same[:, 1] - plain[:, 1], torch.ones(1, 2, 3))


def test_a_mirrored_answer_does_not_tell_left_from_right() -> None:
    image = torch.randn(2, 1, 3, 5)
    batches = [build_batch(one, one, 2) for one in (image, image.flip(-1))]
    teaching = build_teaching(mirror=True)
    first, second = (teaching.answer(batch).logits for batch in batches)
    torch.testing.assert_close(first.flip(-1), second)
    alone = build_teaching().answer(batches[0]).logits.softmax(1)
    mirrored = build_teaching().answer(batches[1]).logits.softmax(1).flip(-1)
    torch.testing.assert_close(first.softmax(1), (alone + mirrored) / 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"teacher_mirror": False}, False),
        ({"augment": {"flip": False}}, False),
        ({"losses": "at:1", "taps": "enc8"}, False),
        ({"losses": "kl:1,at:1", "taps": "enc8"}, True),
    ],
)
def test_mirror_images_are_asked_about_where_they_show_the_same_classes(
    changes: dict[str, Any], expected: bool
) -> None:
    assert make_plan(build_distill_config(**changes), control=False).mirrors_teacher is expected


def test_doubtful_pixels_count_less_only_where_there_is_no_mask() -> None:
    logits = torch.tensor([[0.0, 3.0, -3.0]]).expand(2, 2, 3)
    answer = TeacherAnswer(torch.stack([torch.zeros_like(logits), logits], dim=1), {})
    batch = build_batch(torch.zeros(2, 1, 2, 3), torch.zeros(2, 1, 2, 3), num_labelled=1)
    weight = build_teaching(confidence=0.9).weigh_pixels(batch, answer)
    assert weight[0].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert weight[1].tolist() == [[0, 1, 1], [0, 1, 1]]


def test_several_logits_are_averaged_as_probabilities() -> None:
    first, second = (
        torch.tensor([[0.0], [2.0]]).view(1, 2, 1, 1),
        torch.tensor([[1.0], [-4.0]]).view(1, 2, 1, 1),
    )
    found = average_logits([first, second]).softmax(1)
    torch.testing.assert_close(found, (first.softmax(1) + second.softmax(1)) / 2)
    assert average_logits([first]) is first


def test_fixed_views_come_again_and_endless_ones_do_not() -> None:
    images, truths = torch.randn(6, 1, 32, 32), torch.zeros(6, 32, 32, dtype=torch.uint8)
    pool = Pool(images, truths, [str(index) for index in range(6)])
    fabric = Fabric(accelerator="cpu", devices=1)
    names: dict[int, list[set[tuple[str, int]]]] = {}
    for views in (0, 2):
        config = build_distill_config(batch_size=6, views=views)
        builder = BatchBuilder(fabric, config, pool)
        names[views] = [set(builder.build(step, with_free=True).names) for step in range(4)]
    assert names[2][0] == names[2][2] != names[2][1] == names[2][3]
    assert len(set().union(*names[0])) == 24


def test_a_small_set_has_long_epochs_where_asked() -> None:
    pool = Pool(torch.randn(6, 1, 32, 32), torch.zeros(6, 32, 32, dtype=torch.uint8), [""] * 6)
    fabric = Fabric(accelerator="cpu", devices=1)
    counts = [
        BatchBuilder(fabric, build_distill_config(min_epoch_steps=steps), pool).steps_per_epoch
        for steps in (0, 5)
    ]
    assert counts == [1, 5]
