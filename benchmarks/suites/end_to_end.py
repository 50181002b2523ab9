"""``edgekd distill`` with stored answers beside a plain PyTorch loop of the same steps, as whole processes.

Both take the same ready teacher, student, images, size, batch, steps and validation, and pay for everything
from the start of Python to the last file. The processes run in turn, in an order that changes from round to
round; beside the clock stands the processor time of each with its children. A third command, the product
with the teacher asked in every step, tells what the stored answers give; memory layout and optimiser are
timed in turn too, layer by layer.

Run it with real images, ``EDGEKD_DATA=FOLDER python -m edgekd.benchmarks.suites.end_to_end --out FILE``.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer

from edgekd.atomic import write_json_atomic
from edgekd.benchmarks.environment import describe_conditions, describe_environment
from edgekd.benchmarks.suites import plain_loop
from edgekd.config import read_environment
from edgekd.distill.schedule import build_optimizer
from edgekd.errors import UsageError
from edgekd.models import build_model

FIRST_EPOCHS = 1
Sample = tuple[float, float]
"""Wall and processor time, s."""


class Setup(NamedTuple):
    """What all commands have in common."""

    teacher: str
    student: str
    size: int
    batch_size: int
    epochs: int
    epoch_steps: int
    views: int
    precision: str


def write_subset(folder: Path, count: int) -> Path:
    """Write a table of the first cases of BUSI, which are read in place.

    Raises:
        UsageError: EDGEKD_DATA is unset.
    """
    root = read_environment().data
    if root is None:
        raise UsageError(
            "this suite needs real images", action="set EDGEKD_DATA to a folder that holds busi/"
        )
    with (root / "busi/manifest.csv").open(newline="") as file:
        rows = list(itertools.islice(csv.DictReader(file), count))
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "group"])
        writer.writerows(
            [root / "busi" / row["image"], root / "busi" / row["mask"], row["group"]] for row in rows
        )
    return folder


def list_commands(setup: Setup, data: Path, teacher: Path, folder: Path) -> dict[str, list[str]]:
    """Return the commands that are compared, each to be completed by its output folder."""
    choices = {
        "student": setup.student,
        "teacher": str(teacher),
        "image_size": setup.size,
        "batch_size": setup.batch_size,
        "epochs": FIRST_EPOCHS,
        "distill_epochs": setup.epochs,
        "min_epoch_steps": setup.epoch_steps,
        "precision": setup.precision,
    }
    stored = {"views": setup.views, "store_answers": True}
    commands: dict[str, list[str]] = {}
    for name, values in {"stored": choices | stored, "online": choices}.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(values))
        commands[name] = ["edgekd", "distill", str(data), "--config", str(path), "--out"]
    plain = ["edgekd.benchmarks.suites.plain_loop", str(data), str(teacher), "--student", setup.student]
    numbers = {"size": setup.size, "batch-size": setup.batch_size, "epochs": FIRST_EPOCHS}
    numbers |= {"distill-epochs": setup.epochs, "epoch-steps": setup.epoch_steps}
    for name, number in numbers.items():
        plain += [f"--{name}", str(number)]
    return {"plain": [*plain, "--out"], **commands}


def measure_commands(commands: Mapping[str, list[str]], folder: Path, rounds: int) -> dict[str, list[Sample]]:
    """Return wall and processor time of each command, round by round."""
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    for number in range(rounds):
        names = list(commands)[:: 1 if number % 2 else -1]
        for name in names:
            samples[name].append(_run([*commands[name], str(folder / f"{name}-{number}")]))
            typer.echo(
                f"{name}: wall {samples[name][-1][0]:.1f} s, cpu {samples[name][-1][1]:.1f} s", err=True
            )
    return samples


def _run(arguments: list[str]) -> Sample:
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


def measure_layers(setup: Setup, rounds: int) -> dict[str, float]:
    """Return medians of processor time, ms: the student's step and the teacher's forward in both layouts."""
    images = torch.randn(setup.batch_size, 1, setup.size, setup.size)
    truths = (torch.rand(setup.batch_size, setup.size, setup.size) > 0.5).long()
    steps: dict[str, Callable[[], object]] = {}
    for layout, memory_format in (
        ("contiguous", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        laid = images.contiguous(memory_format=memory_format)
        for optimizer in ("Adam", "fused AdamW"):
            student: Any = build_model(setup.student, 1, 2, {}).to(memory_format=memory_format)  # pyright: ignore
            updater: Any = (
                build_optimizer(student, 0.01)
                if "fused" in optimizer
                else torch.optim.Adam(student.parameters())
            )
            steps[f"student step, {layout}, {optimizer}"] = _build_step(student, updater, laid, truths)
        teacher: Any = build_model(setup.teacher, 1, 2, {}).to(memory_format=memory_format).eval()  # pyright: ignore
        steps[f"teacher forward, {layout}"] = _build_forward(teacher, laid)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            if number:
                taken[name].append((time.process_time() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


def _build_step(student: Any, optimizer: Any, images: Any, truths: Any) -> Callable[[], object]:
    def step() -> None:
        optimizer.zero_grad()
        plain_loop.compute_loss(student(images), truths, None).backward()
        optimizer.step()

    return step


def _build_forward(teacher: Any, images: Any) -> Callable[[], object]:
    def forward() -> Any:
        with torch.no_grad():
            return teacher(images)

    return forward


def summarise(samples: Mapping[str, list[Sample]]) -> dict[str, dict[str, float]]:
    """Return the medians of the ratios, by wall clock and by processor time."""
    pairs = (("plain", "stored"), ("plain", "online"), ("online", "stored"))
    return {
        f"{name} / {other}": {
            clock: statistics.median(a[i] / b[i] for a, b in zip(samples[name], samples[other], strict=True))
            for clock, i in (("wall", 0), ("cpu", 1))
        }
        for name, other in pairs
        if name in samples and other in samples
    }


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    cases: Annotated[int, typer.Option(help="Of BUSI.")] = 64,
    size: Annotated[int, typer.Option(help="Side of the images, pixels.")] = 64,
    epochs: Annotated[int, typer.Option(help="With the teacher.")] = 60,
    epoch_steps: Annotated[int, typer.Option(help="Of an epoch, as min_epoch_steps.")] = 36,
    views: Annotated[int, typer.Option(help="Whose answers are stored.")] = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    teacher: Annotated[str, typer.Option()] = "dynunet",
    student: Annotated[str, typer.Option()] = "unet-narrow",
    precision: Annotated[str, typer.Option(help="Of the product; the plain loop's is float32.")] = "auto",
    online: Annotated[
        bool, typer.Option(help="Also run the product with the teacher asked every step.")
    ] = True,
) -> None:
    """Measure the commands in turn, print the ratios and write them with samples and parts."""
    setup = Setup(teacher, student, size, 8, epochs, epoch_steps, views, precision)
    conditions = describe_conditions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, ready = write_subset(folder / "data", cases), folder / "teacher"
        training = ["edgekd", "train", str(data), "--model", teacher, "--epochs", "1", "--precision", "fp32"]
        _run([*training, "--image-size", str(size), "--out", str(ready)])
        commands = list_commands(setup, data, ready, folder)
        chosen = {name: words for name, words in commands.items() if online or name != "online"}
        samples = measure_commands(chosen, folder, rounds)
        parts = [json.loads((folder / f"plain-{k}/parts.json").read_text()) for k in range(rounds)]
    layers = measure_layers(setup, 9)
    found = {
        "ratios": summarise(samples),
        "samples_s": samples,
        "plain_parts": parts,
        "layers_cpu_ms": layers,
    }
    for ratio, value in found["ratios"].items():
        typer.echo(f"{ratio}: wall {value['wall']:.2f}, cpu {value['cpu']:.2f}")
    machine = {**describe_environment(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    about = {**setup._asdict(), "cases": cases, "first_epochs": FIRST_EPOCHS}
    write_json_atomic(out, {"environment": machine, "conditions": conditions, "setup": about, **found})


if __name__ == "__main__":
    typer.run(main)
