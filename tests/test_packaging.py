"""The built distributions hold one import package, and the command runs from each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import edgekd

ROOT = Path(__file__).resolve().parent.parent


def _run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist, built from a copy of the checkout."""
    pytest.importorskip("build")
    base = tmp_path_factory.mktemp("distributions")
    source = base / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "demo", "runs", "build", "dist", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    _run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--sdist",
        "--wheel",
        "--outdir",
        str(base),
        cwd=source,
    )
    return base


def _list_package_files(names: list[str]) -> set[str]:
    return {name for name in names if name.endswith((".py", ".cu", ".typed"))}


@pytest.mark.slow
def test_wheel_holds_one_top_level_package(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top_level = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top_level == {"edgekd"}
    files = _list_package_files(names)
    assert {"edgekd/cli.py", "edgekd/export/__init__.py", "edgekd/benchmarks/__init__.py"} <= files
    assert {"edgekd/py.typed", "edgekd/preprocess/kernels.cu"} <= files


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_command_runs_from_distribution(distributions: Path, tmp_path: Path, pattern: str) -> None:
    (archive,) = distributions.glob(pattern)
    target = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    _run(*pip, "--target", str(target), str(archive), cwd=tmp_path)
    assert {path.name for path in target.iterdir() if path.is_dir()} - {"bin"} == {
        "edgekd",
        f"edgekd-{edgekd.__version__}.dist-info",
    }
    script = "import edgekd.export, edgekd.cli; print(edgekd.export.__file__)"
    place = _run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(target))
    assert Path(place.strip()).is_relative_to(target)
    version = _run(sys.executable, "-m", "edgekd", "--version", cwd=tmp_path, PYTHONPATH=str(target))
    assert version.strip() == f"edgekd {edgekd.__version__}"


@pytest.mark.slow
def test_sdist_carries_the_linked_folders(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"edgekd/cli.py", "edgekd/export/__init__.py", "edgekd/preprocess/kernels.cu"} <= names
