"""The command line as a whole: help, names, what it loads."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from edgekd import cli
from edgekd.bundle import Bundle, read_golden
from edgekd.console import run_app
from edgekd.doctor import examine_machine

runner = CliRunner()
VERBS = [
    ["demo"],
    ["data", "phantom"],
    ["data", "check"],
    ["models"],
    ["train"],
    ["distill"],
    ["evaluate"],
    ["export"],
    ["parity"],
    ["benchmark"],
    ["compare"],
    ["predict"],
    ["inspect"],
    ["doctor"],
]
HEAVY = (
    "numpy",
    "torch",
    "pydantic",
    "PIL",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "matplotlib",
)


def test_help_loads_neither_numpy_nor_an_engine() -> None:
    script = (
        "import sys\nfrom edgekd import cli\n"
        "try:\n    cli.app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.split("LOADED", 1)[1].split()
    assert "typer" in loaded
    assert not set(HEAVY) & set(loaded)


def test_every_verb_is_listed_here() -> None:
    names = {command.name for command in cli.app.registered_commands}
    names |= {command.name for command in cli.data_app.registered_commands}
    assert names == {verb[-1] for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_of_every_verb_shows_an_example_and_the_common_flags(verb: list[str]) -> None:
    done = runner.invoke(cli.app, [*verb, "--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    assert done.exit_code == 0
    assert f"Example: edgekd {' '.join(verb)}" in done.stdout
    for flag in ("--json", "--quiet", "--debug"):
        assert flag in done.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["distil"], "distill"),
        (["train", "--bad"], "--bad"),
        (["models", "--image-size", "x"], "--image-size"),
        (["data", "check"], "DATA"),
    ],
)
def test_wrong_usage_is_one_line_with_a_next_step(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert run_app(cli.app, arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert part in lines[0]
    assert "--help" in lines[0]


def test_wrong_usage_is_json_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(cli.app, ["train", "--json", "--bad"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


@pytest.mark.parametrize(("arguments", "exit_code"), [([], 0), (["--help"], 0), (["data"], 2)])
def test_help_is_shown_where_nothing_is_asked(
    capsys: pytest.CaptureFixture[str], arguments: list[str], exit_code: int
) -> None:
    assert run_app(cli.app, arguments) == exit_code
    shown = capsys.readouterr()
    assert "Usage" in shown.out + shown.err


def test_doctor_names_the_command_for_what_is_missing() -> None:
    done = runner.invoke(cli.app, ["doctor", "--json"])
    assert done.exit_code == 0
    capabilities = json.loads(done.stdout)["capabilities"]
    assert {"Processor", "ONNX Runtime", "OpenVINO", "PyCUDA"} <= {one["name"] for one in capabilities}
    for capability in capabilities:
        if capability["remedy"] is not None:
            assert not capability["available"]
            assert capability["remedy"].startswith('pip install "edgekd[')


@pytest.mark.parametrize("loads", [True, False])
def test_doctor_knows_onnxruntime_by_its_gpu_wheel(loads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_version(name: str) -> str:
        if name == "onnxruntime-gpu":
            return "1.23.0"
        raise importlib.metadata.PackageNotFoundError(name)

    module = types.ModuleType("onnxruntime")
    if loads:
        module.get_available_providers = lambda: ["CUDAExecutionProvider"]  # type: ignore[attr-defined]
    monkeypatch.setattr(importlib.metadata, "version", find_version)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    (found,) = [one for one in examine_machine() if one.name == "ONNX Runtime"]
    assert found.detail.startswith("1.23.0 (onnxruntime-gpu)")
    assert found.available is loads
    # The extra onnx would put the wheel for the processor over it.
    assert found.remedy == (None if loads else "pip install --force-reinstall onnxruntime-gpu")


def test_doctor_advises_no_empty_extra_on_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("edgekd.doctor._find_distribution", lambda _: None)
    remedies = {one.name: one.remedy for one in examine_machine()}
    assert "python3-libnvinfer" in str(remedies["TensorRT"])
    assert remedies["ONNX Runtime"] == 'pip install "edgekd[onnx]"'


def test_doctor_does_not_take_a_package_for_its_driver_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyCUDA's wheel imports anywhere; what needs the driver's library is the module inside.
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text('raise ImportError("undefined symbol: cuArrayCreate_v2")')
    (tmp_path / "pycuda-1.dist-info").mkdir()
    (tmp_path / "pycuda-1.dist-info" / "METADATA").write_text("Name: pycuda\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycuda"]:
        monkeypatch.delitem(sys.modules, name)
    done = runner.invoke(cli.app, ["doctor", "--json"])
    sys.modules.pop("pycuda", None)
    (found,) = [one for one in json.loads(done.stdout)["capabilities"] if one["name"] == "PyCUDA"]
    assert not found["available"] and "undefined symbol" in found["detail"]


def test_export_without_bundle_and_without_runs_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(cli.app, ["export", "--target", "onnx"])
    assert done.exit_code == 2
    assert "edgekd distill DATA" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["parity", "BUNDLE"],
        ["benchmark", "BUNDLE", "--no-gate", "--min-seconds", "0.1", "--min-queries", "2"],
        ["predict", "BUNDLE", "IMAGE", "--out", "OUT"],
    ],
    ids=["parity", "benchmark", "predict"],
)
def test_what_an_engine_compiles_is_kept_in_the_cache(
    device_bundle: Bundle, tmp_path: Path, words: list[str]
) -> None:
    pytest.importorskip("openvino")
    image = tmp_path / "frame.png"
    Image.fromarray(read_golden(device_bundle).frames[0]).save(image)
    places = {"BUNDLE": device_bundle.path, "IMAGE": image, "OUT": tmp_path / "out"}
    cache = tmp_path / "a new" / "cache"
    arguments = [str(places.get(word, word)) for word in words]
    done = runner.invoke(
        cli.app, [*arguments, "--target", "openvino", "--cache", str(cache), "--quiet", "--json"]
    )
    assert done.exit_code == 0, done.stderr
    assert any(cache.iterdir())
    if words[0] != "predict":
        assert f"--cache '{cache}'" in json.loads(done.stdout)["command"]
