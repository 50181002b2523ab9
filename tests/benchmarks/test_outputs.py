"""A result that could not be kept is refused before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd import cli
from edgekd.benchmarks import selection
from edgekd.bundle import Bundle, Recording

runner = CliRunner()


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("benchmark", "--out"),
        ("parity", "--out"),
        ("parity", "--junit"),
        ("parity", "--certificate"),
        ("predict", "--out"),
    ],
)
def test_no_engine_runs_for_a_result_that_cannot_be_kept(
    bundle: Bundle,
    add_build: Callable,
    data: Path,
    reference: Recording,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    option: str,
) -> None:
    add_build("onnx")
    loaded: list[object] = []
    monkeypatch.setattr(selection, "load", lambda *found, **options: loaded.append(found))
    source = [str(data / "images")] if verb == "predict" else ["--data", str(data)]
    for out in (bundle.path / "manifest.json" / "out", Path("/proc/nope/out")):
        done = runner.invoke(cli.app, [verb, str(bundle.path), *source, option, str(out), "--quiet"])
        assert done.exit_code == 2, done.stderr
        assert f"the output {out} cannot be written" in done.stderr
    assert not loaded


def test_reports_are_not_compared_for_a_page_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no report")
    done = runner.invoke(cli.app, ["compare", "gone-1", "gone-2", "--out", str(tmp_path / "file" / "out")])
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
