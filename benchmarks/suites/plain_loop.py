"""The distillation loop that one writes in an afternoon: the yardstick of ``end_to_end``.

A Dataset reads, resizes and augments PNG files anew in every epoch, in the workers of a DataLoader; the
networks compute in float32 in the default memory layout; the teacher is asked in every step; Adam; validation
after each epoch. Networks, teacher, batch, steps, image size, losses and as many mixtures of two frames for
the teacher to label are those of ``edgekd distill``. It knows nothing of its loop, its data path, its losses
or its optimiser.
"""

from __future__ import annotations

import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler

from edgekd.atomic import write_json_atomic
from edgekd.data import Case, assign_splits, find_cases
from edgekd.distill import load_trained_model
from edgekd.models import build_model

WORKERS = 2


class Frames(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks from their files, each time anew."""

    def __init__(self, cases: Sequence[Case], size: int, *, augment: bool) -> None:
        self._cases, self._size, self._augment = cases, size, augment

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return (1, h, w) float32 and (h, w) int64."""
        case, shape = self._cases[index], (self._size, self._size)
        image = Image.open(case.image).convert("L").resize(shape, Image.Resampling.BILINEAR)
        mask = Image.open(case.masks[0]).convert("L").resize(shape, Image.Resampling.NEAREST)
        if self._augment:
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            angle, limit = random.uniform(-10, 10), round(0.05 * self._size)
            shift = (random.randint(-limit, limit), random.randint(-limit, limit))
            image = image.rotate(angle, Image.Resampling.BILINEAR, translate=shift)
            mask = mask.rotate(angle, Image.Resampling.NEAREST, translate=shift)
        pixels = np.asarray(image, np.float32) / 255
        if self._augment:
            pixels = np.clip(pixels * random.uniform(0.8, 1.2), 0, 1) ** random.uniform(0.8, 1.25)
            pixels = np.clip(pixels + np.random.normal(0, 0.015, pixels.shape), 0, 1).astype(np.float32)
        truth = torch.from_numpy((np.asarray(mask) > 127).astype(np.int64))
        return torch.from_numpy((pixels - 0.5) / 0.25).unsqueeze(0), truth


def compute_loss(logits: Tensor, truths: Tensor, answers: Tensor | None) -> Tensor:
    """Return cross-entropy plus soft Dice of the first frames, which have a truth, plus those to the teacher.

    Args:
        logits: (N, 2, h, w).
        truths: (n, h, w) of the first n frames.
        answers: (N, 2, h, w), the teacher's probabilities.
    """
    labelled = logits[: len(truths)]
    loss = functional.cross_entropy(labelled, truths) + soft_dice(labelled.softmax(1)[:, 1], truths)
    if answers is not None:
        divergence = functional.kl_div(logits.log_softmax(1), answers, reduction="none").sum(1).mean()
        loss = loss + divergence + soft_dice(logits.softmax(1)[:, 1], answers[:, 1])
    return loss


def soft_dice(foreground: Tensor, other: Tensor) -> Tensor:
    """Return 1 - the Dice score of two soft masks."""
    return 1 - (2 * (foreground * other).sum() + 1) / (foreground.sum() + other.sum() + 1)


def ask(teacher: nn.Module, images: Tensor) -> Tensor:
    """Return the teacher's probabilities, mean of the images' and their mirror images'."""
    with torch.no_grad():
        mirrored = teacher(images.flip(-1)).softmax(1).flip(-1)
        return (teacher(images).softmax(1) + mirrored) / 2


def mix(images: Tensor) -> Tensor:
    """Return a mixture of each frame with another one of the batch, mirrored."""
    parts = torch.empty(len(images), 1, 1, 1).uniform_(0.3, 0.7)
    return torch.lerp(images, images[torch.randperm(len(images))].flip(-1), parts)


def validate(student: nn.Module, loader: DataLoader[Any]) -> float:
    """Return the mean Dice of images with a lesion."""
    student.eval()
    scores: list[float] = []
    with torch.no_grad():
        for images, truths in loader:
            masks = student(images).argmax(1)
            for mask, truth in zip(masks, truths, strict=True):
                if truth.any():
                    scores.append(float(2 * (mask * truth).sum() / (mask.sum() + truth.sum())))
    return sum(scores) / max(len(scores), 1)


class Parts:
    """Seconds spent in each part of the loop."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the block's time to a part."""
        begin = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - begin


def run_epoch(
    loader: DataLoader[Any],
    student: nn.Module,
    teacher: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    parts: Parts,
) -> int:
    """Train for an epoch and return its steps."""
    student.train()
    batches, steps = iter(loader), 0
    while True:
        with parts.time("waiting for data"):
            batch = next(batches, None)
        if batch is None:
            return steps
        images, truths = batch
        answer = None
        if teacher is not None:
            images = torch.cat([images, mix(images)])
            with parts.time("teacher"):
                answer = ask(teacher, images)
        with parts.time("student and losses"):
            optimizer.zero_grad()
            loss = compute_loss(student(images), truths, answer)
            loss.backward()
        with parts.time("optimiser"):
            optimizer.step()
        steps += 1


def main(
    data: Annotated[Path, typer.Argument(help="Data set.")],
    teacher: Annotated[Path, typer.Argument(help="Run of `edgekd train`.")],
    out: Annotated[Path, typer.Option(help="Folder for weights and the parts of the time.")],
    student: Annotated[str, typer.Option()] = "unet-narrow",
    size: Annotated[int, typer.Option()] = 64,
    batch_size: Annotated[int, typer.Option()] = 8,
    epochs: Annotated[int, typer.Option(help="Without the teacher.")] = 1,
    distill_epochs: Annotated[int, typer.Option(help="With the teacher.")] = 30,
    epoch_steps: Annotated[int, typer.Option(help="Of an epoch, whatever the number of images.")] = 36,
) -> None:
    """Distil a student from a ready teacher."""
    begin = time.perf_counter()
    torch.manual_seed(0)
    parts = assign_splits(find_cases(data))
    frames = {name: Frames(parts[name], size, augment=name == "train") for name in ("train", "val")}
    order = RandomSampler(frames["train"], num_samples=epoch_steps * batch_size)
    train, val = (
        DataLoader(frames[name], batch_size, sampler=sampler, num_workers=WORKERS, persistent_workers=True)
        for name, sampler in (("train", order), ("val", None))
    )
    master = load_trained_model(teacher).network.eval()
    network = build_model(student, 1, 2, {})
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    spent, steps, dice = Parts(), 0, 0.0
    for epoch in range(epochs + distill_epochs):
        steps += run_epoch(train, network, master if epoch >= epochs else None, optimizer, spent)
        with spent.time("validation"):
            dice = validate(network, val)
        sys.stderr.write(f"epoch {epoch + 1}: val Dice {dice:.3f}\n")
    out.mkdir(parents=True)
    torch.save(network.state_dict(), out / "student.pt")
    seconds = {**spent.seconds, "whole": time.perf_counter() - begin}
    write_json_atomic(out / "parts.json", {"seconds": seconds, "steps": steps, "val_dice": dice})


if __name__ == "__main__":
    typer.run(main)
