"""What the speed suites time is what they say: both sides of a ratio do the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric (extra train)")
pytest.importorskip("monai", reason="the teachers are MONAI's (extra train)")

import torch

from edgekd.benchmarks.suites import plain_loop, second_phase, step_cost
from edgekd.benchmarks.suites.second_phase import Pair, reach_second_phase
from edgekd.config import TrainConfig
from edgekd.data import write_phantom
from edgekd.distill import loop, train

PAIR = Pair("unet-narrow-xs", "dwnet-xs", 32, 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed") / "data"
    write_phantom(folder, 24, 0, quiet=True)
    return folder


def test_the_bare_step_sees_the_frames_of_the_products_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_phase, "EPOCH_STEPS", 2)
    stage = reach_second_phase(PAIR, data, tmp_path / "run", stored=False)
    assert (stage.phase.number, stage.journal.step) == (2, 0)
    seen: list[tuple[str, int]] = []
    for name, network in (
        ("teacher", stage.phase.teaching.teachers[0].network),
        ("student", stage.phase.learners[0].network),
    ):
        network.register_forward_hook(lambda _, args, __, name=name: seen.append((name, len(args[0]))))
    loop.run_step(stage.setting, stage.phase, stage.journal, 0)
    product = sorted(seen)
    bare = step_cost.build_bare_step(stage)
    seen.clear()
    bare(True)
    # Four frames and four mixtures; the teacher sees their mirror images too.
    assert product == [("student", 8), ("teacher", 8), ("teacher", 8)]
    assert sorted(seen) == product


def test_a_pair_is_measured_from_every_side(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_phase, "EPOCH_STEPS", 2)
    monkeypatch.setattr(step_cost, "EPOCHS", 1)
    (tmp_path / "data").symlink_to(data)
    found = step_cost.measure_pair(PAIR, 3, tmp_path)
    assert {name: len(values) for name, values in found["samples_ns"].items()} == dict.fromkeys(
        ("online", "bare pair", "stored", "bare student"), 3
    )
    assert found["ratios"]["online / bare pair"]["cpu"] > 0.5
    assert all(0.2 < part["cpu"] <= 1 for part in found["part of an epoch inside the networks"].values())


def test_the_plain_loop_takes_the_steps_it_was_asked_for(data: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    config = TrainConfig(model="unet-narrow-xs", image_size=32, batch_size=4, epochs=1, accelerator="cpu")
    train(config, data, teacher, quiet=True)
    numbers = {"size": 32, "batch-size": 4, "epochs": 1, "distill-epochs": 2, "epoch-steps": 3}
    options = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    command = [
        sys.executable,
        "-m",
        plain_loop.__name__,
        str(data),
        str(teacher),
        "--out",
        str(tmp_path / "out"),
    ]
    # In a process of its own: the DataLoader's handler of SIGCHLD would stay in this one, and where AMX is
    # in use a signal's frame does not fit the stack that pytest's faulthandler keeps for it.
    subprocess.run([*command, "--student", "dwnet-xs", *options], check=True, capture_output=True)
    parts = json.loads((tmp_path / "out/parts.json").read_text())
    assert parts["steps"] == 9 and parts["seconds"]["teacher"] > 0
    assert "student.pt" in {path.name for path in (tmp_path / "out").iterdir()}


def test_the_plain_loss_is_zero_for_a_student_that_is_its_teacher_and_right() -> None:
    truths = torch.zeros(2, 8, 8, dtype=torch.int64)
    truths[:, 2:5, 3:6] = 1
    logits = torch.nn.functional.one_hot(truths, 2).movedim(-1, 1) * 200.0 - 100
    more = torch.cat([logits, torch.randn(2, 2, 8, 8) * 50])
    assert plain_loop.compute_loss(more, truths, more.softmax(1)).item() == pytest.approx(0, abs=0.05)
    assert plain_loop.compute_loss(more, truths, more.flip(1).softmax(1)).item() > 1
