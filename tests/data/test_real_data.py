"""Real data sets, where EDGEKD_DATA names a folder of them, are found, divided, checked and loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgekd.data import assign_splits, check_dataset, find_cases, load_cases
from edgekd.specs import ClassSpec, PreprocessSpec


def _find_root(name: str) -> Path:
    folder = os.environ.get("EDGEKD_DATA")
    if not folder:
        pytest.skip("EDGEKD_DATA names no folder of real images")
    root = Path(folder) / name
    if not root.is_dir():
        pytest.skip(f"EDGEKD_DATA holds no {name}")
    return root


@pytest.mark.parametrize(
    ("name", "layout"), [("busi-layout", "busi"), ("hc18", "csv"), ("dsb2018", "csv"), ("busi", "csv")]
)
def test_real_set_is_read_without_fault(name: str, layout: str) -> None:
    root = _find_root(name)
    dataset = find_cases(root)
    assert dataset.layout == layout
    parts = assign_splits(dataset)
    groups = [{case.group_or_name for case in cases} for cases in parts.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    report = check_dataset(root, quiet=True)
    assert not report.has_faults and report.summary["usable_cases"] == len(dataset.cases)
    some = dataset.cases[:6]
    loaded = load_cases(some, PreprocessSpec(height=64, width=64), ClassSpec(), quiet=True)
    assert np.isfinite(loaded.images).all() and loaded.truths.max() == 1


def test_busi_layout_merges_all_masks_of_an_image() -> None:
    dataset = find_cases(_find_root("busi-layout"))
    counts = {case.name: len(case.masks) for case in dataset.cases}
    assert counts["benign/benign (195)"] == 3 and counts["malignant/malignant (1)"] == 1
