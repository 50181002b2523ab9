"""Interrupted runs: the weights in the end are those of a run that nobody interrupted, bit for bit."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disc_runs import build_distill_config, build_train_config, press_ctrl_c_at, write_discs
from PIL import Image

from edgekd.config import DistillConfig, TrainConfig
from edgekd.distill import DistillResult, distill, finish, golden, load_resumed_config, loop, train
from edgekd.errors import InputError, IntegrityError, MachineError, UsageError

STEPS = 2
"""Steps an epoch: 10 training images, batches of 4."""


@pytest.fixture(scope="module", autouse=True)
def one_golden_frame() -> Iterator[None]:
    """Keep the end of each run short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)
        yield


@pytest.fixture(scope="module")
def whole(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> DistillResult:
    """A run that nobody interrupted. Read only."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run"
    return distill(build_distill_config(), discs, out, control=True, quiet=True)


def hash_networks(result: DistillResult) -> dict[str, str]:
    return {name: fact.sha256 for name, fact in result.record.networks.items()}


def read_losses(out: Path) -> list[Any]:
    return [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [0, 3, 4])
def test_ctrl_c_in_any_phase_and_resume(
    whole: DistillResult, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        press_ctrl_c_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            distill(build_distill_config(), discs, out, control=True, quiet=True)
    state = json.loads((out / "state" / (out / "state/current").read_text() / "state.json").read_text())
    # The step in which Ctrl-C came is finished and saved.
    assert state["journal"]["epoch"] * STEPS + state["journal"]["step"] == step + 1
    resumed = distill(build_distill_config(), discs, out, control=True, resume=True, quiet=True)
    assert hash_networks(resumed) == hash_networks(whole)
    assert read_losses(out) == read_losses(whole.out)


def test_ctrl_c_during_validation_and_resume(
    whole: DistillResult, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, calls = loop.score_network, iter(range(100))

    def interrupt(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return score(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "score_network", interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill(build_distill_config(), discs, tmp_path / "run", control=True, quiet=True)
    state = tmp_path / "run/state"
    journal = json.loads((state / (state / "current").read_text() / "state.json").read_text())["journal"]
    # Every step of the epoch is kept.
    assert (journal["epoch"], journal["step"]) == (1, STEPS)
    resumed = distill(build_distill_config(), discs, tmp_path / "run", control=True, resume=True, quiet=True)
    assert hash_networks(resumed) == hash_networks(whole)


def test_a_death_while_finishing_and_resume(
    whole: DistillResult, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finish, "save_recording", die)
        with pytest.raises(KeyboardInterrupt):
            distill(build_distill_config(), discs, tmp_path / "run", control=True, quiet=True)
    assert (tmp_path / "run/student.edgekd").is_dir()
    resumed = distill(build_distill_config(), discs, tmp_path / "run", control=True, resume=True, quiet=True)
    assert hash_networks(resumed) == hash_networks(whole)
    assert (resumed.out / "reference.npz").is_file()


@pytest.mark.parametrize("writes", [1, 4, 10, 16])
def test_a_full_disk_and_resume(
    whole: DistillResult, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    flush, calls = os.fsync, iter(range(1000))

    def refuse(handle: int) -> None:
        if next(calls) >= writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(MachineError, match="the disk is full"):
            distill(build_distill_config(), discs, tmp_path / "run", control=True, quiet=True)
    resumed = distill(build_distill_config(), discs, tmp_path / "run", control=True, resume=True, quiet=True)
    assert hash_networks(resumed) == hash_networks(whole)


def test_best_weights_survive_an_interruption(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_train_config(epochs=6, select="best")
    expected = train(config, discs, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        press_ctrl_c_at(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            train(config, discs, tmp_path / "run", quiet=True)
    resumed = train(config, discs, tmp_path / "run", resume=True, quiet=True)
    assert resumed.model.sha256 == expected.model.sha256
    assert resumed.model.epoch == expected.model.epoch


def test_the_same_data_in_another_order_trains_the_same_network(discs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    data = tmp_path / "data"
    shutil.copytree(discs, data)
    shutil.copytree(discs / "images", folder, ignore=shutil.ignore_patterns("val*", "test*"))
    results = []
    for out in ("run", "again"):
        config = build_distill_config(unlabeled=str(folder))
        results.append(distill(config, data, tmp_path / out, quiet=True))
        table = data / "manifest.csv"
        head, *rows = table.read_text().splitlines()
        table.write_text("\n".join([head, *rows[::-1]]) + "\n")
        for index, path in enumerate(sorted(folder.iterdir(), reverse=True)):
            path.rename(folder / f"renamed{index}.png")
    assert hash_networks(results[0]) == hash_networks(results[1])


def test_a_finished_run_says_so_and_is_left_alone(
    whole: DistillResult, discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(discs, changed)
    image = min((changed / "images").iterdir())
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    before = {path: path.stat().st_mtime_ns for path in whole.out.rglob("*")}
    again = distill(build_distill_config(), discs, whole.out, control=True, resume=True)
    assert "is finished already" in capsys.readouterr().err
    assert again.record == whole.record
    for data, match in ((discs.parent / "nowhere", "nowhere"), (changed, "the .* split changed since")):
        with pytest.raises(InputError, match=match):
            distill(build_distill_config(), data, whole.out, control=True, resume=True, quiet=True)
    assert before == {path: path.stat().st_mtime_ns for path in whole.out.rglob("*")}


@pytest.mark.parametrize(
    ("changes", "control", "key"),
    [
        ({"lr": 0.5}, True, "another lr: received lr 0.5, expected lr 0.01"),
        ({"augment": {"noise": 0.0}}, True, "another augment.noise"),
        ({}, False, "another control"),
    ],
)
def test_a_changed_choice_is_named(
    whole: DistillResult, discs: Path, changes: dict[str, Any], control: bool, key: str
) -> None:
    with pytest.raises(UsageError, match=key):
        distill(build_distill_config(**changes), discs, whole.out, control=control, resume=True, quiet=True)


def test_a_machine_of_another_precision_is_named(whole: DistillResult, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole.out, out)
    record = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(record | {"precision": "bf16"}))
    with pytest.raises(MachineError, match=r"another precision: received fp32.*expected bf16"):
        distill(build_distill_config(precision="auto"), discs, out, control=True, resume=True, quiet=True)
    # An option named anew is an option, whatever the machine.
    with pytest.raises(
        UsageError, match=r"another precision: received precision bf16, expected precision auto"
    ):
        load_resumed_config(DistillConfig, out, None, {"precision": "bf16"})


def test_an_option_that_the_run_did_not_know_yet_counts_as_what_runs_did_then(
    whole: DistillResult, discs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole.out, out)
    record = json.loads((out / "config.json").read_text())
    del record["config"]["mix"]
    (out / "config.json").write_text(json.dumps(record))
    again = distill(
        load_resumed_config(DistillConfig, out), discs, out, control=True, resume=True, quiet=True
    )
    assert again.record == whole.record
    with pytest.raises(UsageError, match="another mix: received mix True, expected mix False"):
        distill(build_distill_config(mix=True), discs, out, control=True, resume=True, quiet=True)


def test_a_run_goes_on_with_its_own_choices(
    whole: DistillResult, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        press_ctrl_c_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            distill(build_distill_config(), discs, out, control=True, quiet=True)
    config = load_resumed_config(DistillConfig, out)
    assert config == build_distill_config()
    resumed = distill(config, discs, out, resume=True, quiet=True)
    assert hash_networks(resumed) == hash_networks(whole)


def test_choices_named_again_must_agree_and_all_that_differ_are_listed(
    whole: DistillResult, tmp_path: Path
) -> None:
    path = tmp_path / "again.json"
    path.write_text(json.dumps({"augment": {"flip": True}, "student_options": {"width": 2}, "epochs": 3}))
    same = {"lr": 0.01, "seed": 3, "batch_size": None, "epochs": 2}
    assert load_resumed_config(DistillConfig, whole.out, path, same) == build_distill_config()
    with pytest.raises(UsageError) as caught:
        load_resumed_config(DistillConfig, whole.out, path, {"student": "dwnet", "augment.noise": 0.5})
    received, expected = str(caught.value).split(", expected ")
    for part in ("augment.noise 0.5", "epochs 3", "student dwnet"):
        assert part in received
    for part in ("augment.noise 0.03", "epochs 2", "student unet-narrow"):
        assert part in expected
    with pytest.raises(UsageError, match="unknown configuration key"):
        load_resumed_config(DistillConfig, whole.out, None, {"epocs": 3})


def test_a_run_of_another_kind_or_none_is_refused(whole: DistillResult, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not begun by `edgekd train`.*continue it with `edgekd distill`"):
        load_resumed_config(TrainConfig, whole.out)
    with pytest.raises(InputError, match=r"a folder without config\.json"):
        load_resumed_config(TrainConfig, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"config\.json is damaged"):
        load_resumed_config(TrainConfig, tmp_path)


def test_changed_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_discs(tmp_path / "data")
    with monkeypatch.context() as patch:
        press_ctrl_c_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(build_train_config(), data, tmp_path / "run", quiet=True)
    shutil.copy(data / "images/train0.png", data / "images/val0.png")
    with pytest.raises(InputError, match="the val split changed"):
        train(build_train_config(), data, tmp_path / "run", resume=True, quiet=True)


def test_there_must_be_a_run_to_continue(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run to continue.*received no such folder"):
        train(build_train_config(), discs, tmp_path / "run", resume=True, quiet=True)


def cut_weights(state: Path) -> None:
    path = next(state.glob("p*/model.safetensors"))
    path.write_bytes(path.read_bytes()[:-10])


def cut_journal(state: Path) -> None:
    path = next(state.glob("p*/state.json"))
    path.write_text(path.read_text()[:20])


def remove_folder(state: Path) -> None:
    shutil.rmtree(next(state.glob("p*")))


@pytest.mark.parametrize("damage", [cut_weights, cut_journal, remove_folder])
def test_a_damaged_checkpoint_is_an_integrity_error(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    with monkeypatch.context() as patch:
        press_ctrl_c_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(build_train_config(), discs, tmp_path / "run", quiet=True)
    damage(tmp_path / "run/state")
    with pytest.raises(IntegrityError, match="checkpoint"):
        train(build_train_config(), discs, tmp_path / "run", resume=True, quiet=True)


def test_a_changed_teacher_file_is_an_integrity_error(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        press_ctrl_c_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            distill(build_distill_config(), discs, tmp_path / "run", quiet=True)
    path = tmp_path / "run/teacher.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="not the teacher"):
        distill(build_distill_config(), discs, tmp_path / "run", resume=True, quiet=True)


PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from edgekd.distill import clocks, distill
from disc_runs import build_distill_config
data, out, resume, interval = sys.argv[1:]
clocks.SAVE_INTERVAL_S, clocks.SAVE_SHARE = float(interval), 1.0
distill(build_distill_config(epochs=6, distill_epochs=6), Path(data), Path(out), control=True,
        resume=resume == "resume", quiet=True)
"""


def start(data: Path, out: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    arguments = [str(data), str(out), "resume" if resume else "new", "0.05"]
    paths = [str(root), str(Path(__file__).parent / "support")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=root, env=environment)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.slow
def test_sigkill_at_three_random_moments_gives_the_weights_of_the_whole_run(
    discs: Path, tmp_path: Path
) -> None:
    begin = time.monotonic()
    config = build_distill_config(epochs=6, distill_epochs=6)
    distill(config, discs, tmp_path / "whole", control=True, quiet=True)
    duration_s = time.monotonic() - begin
    moments = random.Random(int(time.time()))
    killed = 0
    out = tmp_path / "killed"
    for attempt in range(3):
        process = start(discs, out, resume=attempt > 0)
        # A run that continues has written its state before; its next checkpoint moves the pointer.
        before = (out / "state/current").read_text() if attempt else None
        wait_for(out / "state/current", process)
        while process.poll() is None and before is not None and (out / "state/current").read_text() == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, duration_s / 6))
        process.kill()
        killed += process.wait(timeout=60) == -signal.SIGKILL
    assert killed == 3
    process = start(discs, out, resume=True)
    assert process.wait(timeout=300) == 0
    whole, resumed = (json.loads((path / "result.json").read_text()) for path in (tmp_path / "whole", out))
    for name in ("teacher", "student", "control"):
        assert resumed["networks"][name]["sha256"] == whole["networks"][name]["sha256"]
    assert read_losses(out) == read_losses(tmp_path / "whole")
