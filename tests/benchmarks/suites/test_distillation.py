"""The suite from plan to report on a few phantom frames."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric (extra train)")
pytest.importorskip("monai", reason="the teachers are MONAI's (extra train)")

from edgekd.benchmarks.suites.distillation.__main__ import app
from edgekd.benchmarks.suites.distillation.cells import find_data, run_cell
from edgekd.benchmarks.suites.distillation.experiments import build_experiments
from edgekd.benchmarks.suites.distillation.gains import Gain
from edgekd.benchmarks.suites.distillation.plan import (
    Plan,
    Student,
    find_cell,
    format_makefile,
    list_cells,
    list_choices,
    read_plan,
    write_plan,
)
from edgekd.benchmarks.suites.distillation.report import describe_verdict, write_report
from edgekd.benchmarks.suites.distillation.results import read_results
from edgekd.benchmarks.suites.distillation.sets import keep_masks, locate_set
from edgekd.config import DistillConfig, TrainConfig
from edgekd.config_reader import build_config
from edgekd.data import find_cases, read_mask, write_phantom
from edgekd.distill import golden
from edgekd.distill.plan import make_plan
from edgekd.errors import InputError, UsageError

STUDENT = Student(label="tiny", name="unet-narrow", options={"width": 2})


def build_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "sets": ("phantom",),
        "students": (STUDENT,),
        "seeds": (0,),
        "common": {"image_size": 32, "accelerator": "cpu"},
        "teacher": {"model": "unet-narrow", "model_options": {"width": 2}, "epochs": 1},
        "distill": {"epochs": 1},
    }
    return Plan.model_validate({**values, **changes})


def test_every_experiment_is_valid_and_a_cell_is_named_once() -> None:
    for plan in build_experiments().values():
        names = [cell.name for cell in list_cells(plan)]
        assert len(set(names)) == len(names)
        assert all(find_cell(plan, name).name == name for name in names)
        first = {(cell.kind, cell.method): cell for cell in reversed(list_cells(plan))}
        for cell in first.values():
            choices = list_choices(plan, cell)
            if cell.kind == "student":
                # Any teacher will do; the default one takes half a second to count.
                choices |= {"teacher": "unet-narrow-xs"}
                make_plan(build_config(DistillConfig, choices), control=False)
            else:
                build_config(TrainConfig, choices)


def test_a_plan_keeps_the_defaults_of_its_day(tmp_path: Path) -> None:
    write_plan(build_plan(), tmp_path)
    plan = read_plan(tmp_path)
    plan.defaults["distill"]["temperature"] = 7.5  # as if it had been the default then
    teacher, student = list_cells(plan)
    assert list_choices(plan, student)["temperature"] == 7.5
    assert list_choices(plan, student)["epochs"] == 1
    assert list_choices(plan, teacher)["lr"] == TrainConfig().lr


def test_a_part_of_the_masks_has_a_folder_of_its_own(tmp_path: Path) -> None:
    plan = build_plan(mask_part=0.5)
    teacher = list_cells(plan)[0]
    write_phantom(tmp_path / "data" / "phantom", 24, 0, quiet=True)
    kept, frames = find_data(plan, teacher, tmp_path)
    assert frames is not None and len(find_cases(kept).cases) + len(list(frames.iterdir())) == 24
    assert len(find_cases(find_data(build_plan(), teacher, tmp_path)[0]).cases) == 24


def test_an_experiment_of_other_sets_and_fewer_masks(tmp_path: Path) -> None:
    options = [
        "--experiment",
        "ablation",
        "--set",
        "phantom",
        "--set",
        "own",
        "--mask-part",
        "0.1",
        "--size",
        "96",
    ]
    result = CliRunner().invoke(app, ["plan", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    changed, usual = read_plan(tmp_path), build_experiments()["ablation"]
    assert (changed.sets, changed.mask_part) == (("phantom", "own"), 0.1)
    assert changed.common == {**usual.common, "image_size": 96}
    assert (changed.methods, changed.teacher) == (usual.methods, usual.teacher)
    assert result.output.startswith(f"{len(list_cells(changed))} cells")
    assert CliRunner().invoke(app, ["plan", str(tmp_path), "--set", "../x"]).exit_code == 1


def test_all_wait_for_the_teacher_who_makes_the_data() -> None:
    text = format_makefile(build_plan(methods={"default": {}, "other": {"losses": "cwd:1"}}, longer=True))
    needs = dict(re.findall(r"^(\S+\.json):(.*)$", text, re.MULTILINE))
    assert needs == {
        "phantom-teacher.json": "",
        "phantom-tiny-s0-default.json": " phantom-teacher.json",
        "phantom-tiny-s0-other.json": " phantom-teacher.json",
        "phantom-tiny-s0-longer.json": " phantom-teacher.json",
    }


def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        build_plan(methods={"kl, twice": {}})
    with pytest.raises(UsageError, match="did you mean 'phantom-teacher'"):
        find_cell(build_plan(), "phantom-teachr")
    with pytest.raises(InputError, match="no experiment"):
        read_plan(tmp_path)


def test_from_plan_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "NUM_GOLDEN_FRAMES", 1)
    write_phantom(tmp_path / "data" / "phantom", 24, 0, quiet=True)
    plan = build_plan(methods={"default": {}, "cwd": {"losses": "cwd:1"}}, longer=True)
    write_plan(plan, tmp_path)
    assert read_plan(tmp_path).model_copy(update={"defaults": {}}) == plan
    plan = read_plan(tmp_path)
    with pytest.raises(InputError, match="no cell"):
        read_results(plan, tmp_path)
    for cell in list_cells(plan):
        path = run_cell(plan, cell, tmp_path)
        assert path.name == f"{cell.name}.json"
    results = read_results(plan, tmp_path)
    assert results.missing == ()
    content = json.loads((tmp_path / "phantom-tiny-s0-default.json").read_text())
    for role in ("student", "control"):
        for split in ("val", "test"):
            counts = content["confusions"][role][split]
            hits = sum(row[0] + row[3] for row in counts)
            assert hits / (32 * 32 * len(counts)) == pytest.approx(content["networks"][role][split]["acc"])
    longer = json.loads((tmp_path / "phantom-tiny-s0-longer.json").read_text())
    assert longer["config"]["epochs"] == 4
    ablation = write_report(results, tmp_path)
    assert "Methods on the validation split" in ablation
    assert "the interval is about cases alone: default; cwd." in ablation
    # The same cells, as an experiment of the default method alone.
    text = write_report(read_results(build_plan(longer=True), tmp_path), tmp_path)
    for heading in ("Gain on the test split", "Scores on the test split", "Twice the steps"):
        assert heading in text
    assert "the interval is about cases alone: phantom, tiny; mean." in text
    assert "(interval over cases alone, as of one seed)" in text
    assert (tmp_path / "gains.png").stat().st_size > 10_000
    gains = json.loads((tmp_path / "gains.json").read_text())
    assert gains["mean"]["dice"]["low"] <= gains["mean"]["dice"]["delta"] <= gains["mean"]["dice"]["high"]
    others = build_plan(common={"image_size": 64, "accelerator": "cpu"})
    with pytest.raises(InputError, match=r"phantom-teacher was run by another plan.*image_size 32.*64"):
        read_results(others, tmp_path)
    with pytest.raises(InputError, match=r"run by another plan.*mask_part 1\.0.*mask_part 0\.5"):
        read_results(build_plan(mask_part=0.5), tmp_path)
    content["data_sha256"]["val"] = "0" * 64
    (tmp_path / "phantom-tiny-s0-default.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"saw different data.*val .* and 00000000"):
        read_results(plan, tmp_path)
    # A finished cell is not trained again.
    before = (tmp_path / "runs/phantom-teacher/model.safetensors").stat().st_mtime_ns
    run_cell(plan, list_cells(plan)[0], tmp_path)
    assert (tmp_path / "runs/phantom-teacher/model.safetensors").stat().st_mtime_ns == before


def test_a_part_of_the_masks_is_kept_by_group_and_the_rest_become_frames(tmp_path: Path) -> None:
    write_phantom(tmp_path / "phantom", 60, 0, quiet=True)
    folder = keep_masks(tmp_path / "phantom", 0.4, tmp_path / "part")
    full = {case.image.resolve(): case for case in find_cases(tmp_path / "phantom").cases}
    rows = list(csv.DictReader((folder / "manifest.csv").read_text().splitlines()))
    kept = {Path(row["image"]) for row in rows}
    free = {link.resolve() for link in (folder / "unlabelled").iterdir()}
    assert kept | free == full.keys()
    assert not kept & free
    assert free
    groups = [{full[path].group for path in part} for part in (kept, free)]
    assert not groups[0] & groups[1]
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_several_masks_of_a_case_are_merged_where_a_part_is_kept(tmp_path: Path) -> None:
    for index in range(20):
        for suffix, rows in (("", slice(0, 0)), ("_mask", slice(0, 2)), ("_mask_1", slice(4, 6))):
            pixels = np.zeros((8, 8), np.uint8)
            pixels[rows] = 255
            (tmp_path / "set/benign").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / f"set/benign/b{index}{suffix}.png")
    folder = keep_masks(tmp_path / "set", 0.5, tmp_path / "part")
    for case in find_cases(folder).cases:
        assert read_mask(case.masks, 2).sum(axis=1).tolist() == [8, 8, 0, 0, 8, 8, 0, 0]


def test_a_set_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_DATA", str(tmp_path))
    with pytest.raises(InputError, match="'busi' is not here"):
        locate_set("busi", tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.001, 0.02, "helped"), (-0.01, 0.02, "not shown to help"), (-0.02, -0.001, "did harm")],
)
def test_the_verdict_is_plain(low: float, high: float, expected: str) -> None:
    dice = Gain((low + high) / 2, low, high, low, 0.5, 3, 3)
    assert expected in describe_verdict({"dice": dice})
