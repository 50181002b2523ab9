"""Which bundle is meant where nobody names one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edgekd.bundle import Bundle
from edgekd.errors import InputError
from edgekd.runs import find_last_bundle


def test_the_newest_run_is_taken_and_a_bundle_that_lies_here_is_named(
    student_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run `edgekd distill DATA` here first"):
        find_last_bundle()
    shutil.copytree(student_bundle.path, tmp_path / "a student.edgekd")
    with pytest.raises(InputError, match=r"such as 'a student\.edgekd', which lies here"):
        find_last_bundle()
    for age, name in enumerate(("new", "old")):
        shutil.copytree(student_bundle.path, tmp_path / "runs" / name / "student.edgekd")
        os.utime(tmp_path / "runs" / name / "student.edgekd" / "manifest.json", (1e9 - age, 1e9 - age))
    assert find_last_bundle() == Path("runs/new/student.edgekd")
