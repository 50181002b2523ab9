"""Two processes: the same steps as one that accumulates both halves, one writer, and a death that is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from disc_runs import build_distill_config, write_discs

from edgekd.distill import DistillResult, distill, evaluate, golden, loop, session
from edgekd.distill.batches import BatchBuilder
from edgekd.distill.checkpoints import Journal
from edgekd.distill.objective import compute_losses
from edgekd.distill.results import read_record
from edgekd.processor import count_usable_cores

ROOT = Path(__file__).parents[2]
STEPS = 50
PATIENCE_S = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(count_usable_cores() < 2, reason="two processes need two cores"),
]


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A step an epoch, so that the curves tell each; features, frames without masks, mixtures, stores."""
    free = write_discs(tmp_path_factory.mktemp("free") / "data", {"train": 6}) / "images"
    return {
        # Whatever the processor has: sums of halves agree to 1e-5 in float32 alone.
        "precision": "fp32",
        "batch_size": 8,
        "epochs": STEPS // 2,
        "distill_epochs": STEPS // 2,
        "losses": "kl:1,at:1,fitnet:1,fcwd:0.1",
        "taps": "enc4,dec2",
        "unlabeled": str(free),
        "confidence": 0.6,
        "views": 3,
        "store_answers": True,
    }


def start(data: Path, out: Path, choices: dict[str, Any], *options: str) -> subprocess.Popen[str]:
    config = out.with_suffix(".json")
    config.write_text(build_distill_config(**choices).model_dump_json())
    command = [sys.executable, "-m", "edgekd", "distill", str(data), "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--devices", "2", "--control", "--out", str(out), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def pair(discs: Path, choices: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A finished run of two processes, and what it said. Read only."""
    out = tmp_path_factory.mktemp("pair") / "run"
    process = start(discs, out, choices)
    stdout, stderr = process.communicate(timeout=PATIENCE_S * 2)
    assert process.returncode == 0, stderr
    return SimpleNamespace(out=out, stdout=stdout, stderr=stderr)


def read_curves(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]


def accumulate_phase(setting: loop.Setting, phase: loop.Phase, journal: Journal) -> None:
    """Train as `run_phase`, but one process takes the shares of two in turn and averages."""
    sources = setting.batches._labelled, setting.batches._free
    halves = [
        BatchBuilder(
            SimpleNamespace(device=torch.device("cpu"), global_rank=rank, world_size=2),  # type: ignore[arg-type]
            setting.config,
            *sources,
        )
        for rank in (0, 1)
    ]
    while journal.epoch < phase.end_epoch:
        names = [setting.batches.build(journal.epoch, with_free=False).names] + [
            half.build(journal.epoch, with_free=False).names for half in halves
        ]
        assert set(names[0]) == {*names[1], *names[2]}
        assert len(names[1]) == len(names[2]) == 4
        for learner in phase.learners:
            learner.module.train()
            learner.set_lr(loop._find_lr(setting, learner, journal.epoch, 0))
            buffers = {name: value.clone() for name, value in learner.network.named_buffers()}
            # The first process comes last: its batch-norm buffers are the ones that stay.
            for half in reversed(halves):
                for name, value in learner.network.named_buffers():
                    value.copy_(buffers[name])
                batch = half.build(journal.epoch, with_free=phase.teaching is not None)
                answer = None if phase.teaching is None else phase.teaching.answer(batch)
                inputs = loop._run_learner(learner, batch, phase.teaching, answer)
                losses = compute_losses(learner.terms, inputs)
                (losses["total"] / 2).backward()
                halved = {term: value.item() / 2 for term, value in losses.items()}
                loop._add_losses(journal, learner.name, halved)
            learner.step()
        scores = {learner.name: loop._validate(setting, learner) for learner in phase.learners}
        loop._close_epoch(setting, phase, journal, scores)


@pytest.fixture(scope="module")
def accumulated(
    discs: Path, choices: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> DistillResult:
    """The same run by one process. Read only."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "run_phase", accumulate_phase)
        patch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)
        out = tmp_path_factory.mktemp("accumulated") / "run"
        return distill(build_distill_config(**choices), discs, out, control=True, quiet=True)


def test_two_processes_take_the_steps_of_one_that_accumulates(
    pair: SimpleNamespace, accumulated: DistillResult
) -> None:
    ours, theirs = read_curves(pair.out), read_curves(accumulated.out)
    assert len(ours) == len(theirs) == STEPS
    for one, other in zip(ours, theirs, strict=True):
        assert one["learners"].keys() == other["learners"].keys()
        for name, learner in one["learners"].items():
            assert learner["losses"] == pytest.approx(other["learners"][name]["losses"], rel=0, abs=1e-5)
    assert set(ours[-1]["learners"]["student"]["losses"]) >= {"kl", "at", "fitnet", "fcwd"}
    # Something was learned: equal losses of networks that stand still would prove nothing.
    assert (
        ours[-1]["learners"]["control"]["losses"]["ce"] < 0.7 * ours[0]["learners"]["student"]["losses"]["ce"]
    )


def test_scores_are_those_of_the_whole_split(pair: SimpleNamespace, discs: Path) -> None:
    student = read_record(pair.out).networks["student"]
    last = read_curves(pair.out)[-1]["learners"]["student"]
    for split, said in (("val", student.val), ("test", student.test), ("val", last["val"])):
        found = evaluate(pair.out, discs, split=split, quiet=True).scores
        assert found.num_images == 3
        assert found.to_dict() == said


def test_one_process_writes_and_speaks(pair: SimpleNamespace) -> None:
    assert pair.stdout.count("bundle:") == 1
    assert len(re.findall(r"^epoch 1/50", pair.stderr, re.MULTILINE)) == 1
    assert [path for path in pair.out.rglob(".*")] == []


def list_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are found in /proc")
def test_a_killed_process_is_told_and_the_run_goes_on(
    pair: SimpleNamespace, discs: Path, choices: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(discs, out, choices)
    deadline = time.monotonic() + PATIENCE_S
    while not (out / "state/current").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    (child,) = list_children(process.pid)
    os.kill(child, signal.SIGKILL)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3, stderr
    assert "another process of this run died" in stderr
    assert "--resume" in stderr
    assert not (out / "result.json").exists()
    process = start(discs, out, choices, "--resume")
    _, stderr = process.communicate(timeout=PATIENCE_S * 2)
    assert process.returncode == 0, stderr
    whole, resumed = (read_record(path).networks for path in (pair.out, out))
    assert {name: one.sha256 for name, one in resumed.items()} == {
        name: one.sha256 for name, one in whole.items()
    }
    assert read_curves(out) == read_curves(pair.out)
