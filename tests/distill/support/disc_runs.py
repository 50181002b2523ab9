"""A tiny data set of bright discs, configurations that train on it in a second, and Ctrl-C in between."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.config import DistillConfig, TrainConfig
from edgekd.distill.batches import BatchBuilder

COUNTS = {"train": 10, "val": 3, "test": 3}
COMMON = {"image_size": 32, "batch_size": 4, "accelerator": "cpu", "seed": 3}


def write_discs(root: Path, counts: dict[str, int] = COUNTS, *, seed: int = 11) -> Path:
    """Write noisy frames of 40×36 pixels, each with a disc, as a CSV data set that names its splits."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["image,mask,group,split"]
    for split, count in counts.items():
        for index in range(count):
            y, x = np.mgrid[:40, :36]
            center = rng.uniform(12, 26, 2)
            disc = np.hypot(y - center[0], x - center[1]) < rng.uniform(6, 10)
            image = np.clip(rng.normal(70, 20, (40, 36)) + 110 * disc, 0, 255).astype(np.uint8)
            name = f"{split}{index}.png"
            Image.fromarray(image).save(root / "images" / name)
            Image.fromarray(disc.astype(np.uint8) * 255).save(root / "masks" / name)
            rows.append(f"images/{name},masks/{name},{split}{index},{split}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def build_distill_config(**changes: object) -> DistillConfig:
    """Return a configuration of 2 + 2 epochs of 2 steps with networks of a few thousand parameters.

    A teacher among the changes is taken as it is, so that it may be a finished run.
    """
    values = {
        "student": "unet-narrow",
        "student_options": {"width": 2},
        "epochs": 2,
        "distill_epochs": 2,
        "lr": 1e-2,
    }
    teacher = {"teacher": "unet-wide", "teacher_options": {"width": 4}, "teacher_lr": 1e-2}
    values |= {} if "teacher" in changes else teacher
    return DistillConfig.model_validate({**COMMON, **values, **changes})


def build_train_config(**changes: object) -> TrainConfig:
    """Return a configuration that trains the student of `build_distill_config` alone, for as many epochs."""
    values = {"model": "unet-narrow", "model_options": {"width": 2}, "epochs": 4, "lr": 1e-2}
    return TrainConfig.model_validate({**COMMON, **values, **changes})


def press_ctrl_c_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send SIGINT to this process in the middle of the run's step ``step``, counted from 0."""
    build, calls = BatchBuilder.build, iter(range(1000))

    def interrupt(*arguments: Any, **options: Any) -> Any:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return build(*arguments, **options)

    monkeypatch.setattr(BatchBuilder, "build", interrupt)
