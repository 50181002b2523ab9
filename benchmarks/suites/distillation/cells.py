"""Running one cell: a training run of the product, and its scores case by case as JSON."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgekd.atomic import write_json_atomic
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.suites.distillation.plan import PATHS, Cell, Plan, list_choices
from edgekd.benchmarks.suites.distillation.sets import keep_masks, locate_set
from edgekd.config import DistillConfig, FitConfig, TrainConfig
from edgekd.config_reader import build_config
from edgekd.distill import (
    RunRecord,
    distill,
    load_trained_model,
    predict_masks,
    train,
)
from edgekd.distill.inputs import Inputs, load_inputs
from edgekd.distill.schedule import count_steps
from edgekd.metrics import count_confusions

RUNS, ANSWERS = "runs", "answers"
JUDGED = ("val", "test")


def run_cell(plan: Plan, cell: Cell, out: Path, *, threads: int = 1) -> Path:
    """Run a cell, or what is left of it, and return its JSON file.

    Args:
        plan: the experiment.
        cell: which.
        out: the folder of the experiment.
        threads: of torch; one a process is fastest where several cells run side by side.
    """
    torch.set_num_threads(threads)
    data, unlabelled = find_data(plan, cell, out)
    folder = out / RUNS / cell.name
    resume = folder.is_dir()
    choices = list_choices(plan, cell) | _list_paths(cell, out, unlabelled)
    if cell.kind == "student":
        config = build_config(DistillConfig, choices)
        with_control = cell.method == plan.base_method
        cache = out / ANSWERS if config.store_answers else None
        record = distill(
            config, data, folder, control=with_control, resume=resume, cache=cache, quiet=True
        ).record
    else:
        config = build_config(TrainConfig, choices)
        record = train(config, data, folder, resume=resume, quiet=True).record
    path = out / f"{cell.name}.json"
    inputs = load_inputs(data, config, quiet=True)
    write_json_atomic(path, _describe(plan, cell, config, record, folder, inputs))
    return path


def find_data(plan: Plan, cell: Cell, out: Path) -> tuple[Path, Path | None]:
    """Return a cell's data set, made where it is not there yet, and the folder of frames without masks."""
    full = locate_set(cell.set, out)
    if plan.mask_part == 1:
        return full, None
    folder = keep_masks(full, plan.mask_part, out / "data" / f"{cell.set}-{plan.mask_part:g}")
    return folder, folder / "unlabelled"


def _list_paths(cell: Cell, out: Path, unlabelled: Path | None) -> dict[str, str]:
    """Return the places that a cell's run reads besides its data."""
    if cell.kind != "student":
        return {}
    paths = {"teacher": out / RUNS / f"{cell.set}-teacher", "unlabeled": unlabelled}
    return {name: str(path) for name, path in paths.items() if path is not None}


def _describe(
    plan: Plan, cell: Cell, config: FitConfig, record: RunRecord, folder: Path, inputs: Inputs
) -> dict[str, Any]:
    roles = [name for name in record.networks if cell.kind != "student" or not name.startswith("teacher")]
    confusions = {role: _count_cases(folder, role, inputs, config.classes.count) for role in roles}
    machine = describe_environment()
    return {
        "mask_part": plan.mask_part,
        "cell": {"kind": cell.kind, "set": cell.set, "student": cell.student, "seed": cell.seed}
        | {"method": cell.method},
        "networks": {role: record.networks[role].model_dump(mode="json") for role in roles},
        "groups": {split: inputs.splits[split].groups for split in JUDGED},
        "confusions": confusions,
        "seconds": record.seconds,
        "steps_per_epoch": count_steps(
            len(inputs.splits["train"].images), config.batch_size, config.min_epoch_steps
        ),
        "config": {key: value for key, value in record.config.items() if key not in PATHS},
        "data_sha256": record.data_sha256,
        "environment": {**record.environment, "cores": machine["cpu"]["usable_cores"]}
        | {"machine": platform.machine(), "processor": machine["cpu"]["model"]},
    }


def _count_cases(folder: Path, role: str, inputs: Inputs, num_classes: int) -> Mapping[str, Any]:
    """Return split → (N, K * K) confusion counts, rows the truth, one line a case."""
    trained = load_trained_model(folder, role)
    counts: dict[str, Any] = {}
    for split in JUDGED:
        cases = inputs.splits[split]
        masks = predict_masks(trained.network, cases.images)
        matrices = count_confusions(cases.truths, masks, num_classes)
        counts[split] = matrices.reshape(len(matrices), -1).tolist()
    return counts
