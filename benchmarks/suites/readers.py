"""Readers other than ours: Model API on the OpenVINO builds, Polygraphy's runners on the ONNX graphs.

Model API opens ``model_api.xml`` by itself and gets frames as OpenCV reads them; its masks stand beside those
that ``edgekd predict`` writes. It leaves the precision to the device: first with its own defaults, beside the
build in the precision that the device takes then, and with a hint beside every other build. Polygraphy
compares ONNX Runtime with OpenVINO on the core and the engine graph, fed with the bundle's golden tensors,
and its command runs and examines the files.

These packages are no dependencies of EdgeKD: ``pip install openvino-model-api opencv-python-headless
polygraphy``, then
``EDGEKD_DATA=FOLDER python -m edgekd.benchmarks.suites.readers BUNDLE --out FILE``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from edgekd.atomic import write_json_atomic
from edgekd.benchmarks import run_prediction
from edgekd.benchmarks.environment import describe_environment
from edgekd.bundle import Build, Bundle, GoldenFrames, find_build, format_export, list_builds, read_golden
from edgekd.config import read_environment
from edgekd.errors import GateFailure, MachineError, UsageError
from edgekd.export.source_graphs import CORE_FILE, ENGINE_FILE
from edgekd.runtime.catalogue import PROCESSOR
from edgekd.runtime.precision import OPENVINO_HINTS

MODULES = ("model_api.models", "cv2", "polygraphy", "openvino", "onnxruntime")
PACKAGES = ("openvino-model-api", "opencv-python-headless", "polygraphy", "openvino", "onnxruntime")
# Polygraphy's own default for ONNX Runtime against another library.
TOLERANCE = 1e-3


def list_busi_frames(count: int) -> list[Path]:
    """Return files of BUSI spread evenly over the set, which is sorted by class.

    Raises:
        UsageError: EDGEKD_DATA is unset, or holds fewer.
    """
    root = read_environment().data
    found = [] if root is None else sorted((root / "busi/images").glob("*.png"))
    if len(found) < count:
        raise UsageError(
            f"this suite needs {count} real images",
            received=f"{len(found)}",
            action="set EDGEKD_DATA to a folder that holds busi/",
        )
    return [found[index * len(found) // count] for index in range(count)]


def list_openvino_cells(bundle: Bundle) -> list[tuple[str, str | None]]:
    """Return precision and hint of each OpenVINO build; no hint for the device's own choice, which is first.

    Raises:
        UsageError: the bundle holds no build in that precision.
    """
    default = _import("openvino").Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    own = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}[default.get_type_name()]
    builds = [
        one.record.precision_asked
        for one in list_builds(bundle, "openvino")
        if one.record.device == PROCESSOR
    ]
    if own not in builds:
        raise UsageError(
            f"this processor takes {own} by itself, and the bundle holds no such OpenVINO build",
            received=", ".join(builds) or "none",
            action=format_export(bundle.path, "openvino", own),
        )
    return [(own, None), *((one, OPENVINO_HINTS[one]) for one in builds if one != own)]


def compare_model_api(
    bundle: Bundle, images: Sequence[Path], precision: str, hint: str | None
) -> dict[str, Any]:
    """Return how many pixels of each frame Model API classifies otherwise than ``edgekd predict``."""
    cv2, models, adapters = _import("cv2"), _import("model_api.models"), _import("model_api.adapters")
    path = str(find_build(bundle, "openvino", precision).resolve_file("model_api.xml"))
    options = {} if hint is None else {"INFERENCE_PRECISION_HINT": hint}
    core = _import("openvino").Core()
    model = models.Model.create_model(
        adapters.OpenvinoAdapter(core, path, device="CPU", plugin_config=options)
    )
    rows: list[dict[str, Any]] = []
    for image, ours in zip(images, predict_masks(bundle, images, precision), strict=True):
        theirs = model(cv2.imread(str(image))).resultImage
        different = int(np.count_nonzero(theirs != ours)) if theirs.shape == ours.shape else -1
        rows.append(
            {
                "image": image.name,
                "shape": list(ours.shape),
                "lesion_pixels": int((ours > 0).sum()),
                "different": different,
            }
        )
    return {"build": precision, "hint": hint, "labels": model.params.labels, "frames": rows}


def predict_masks(bundle: Bundle, images: Sequence[Path], precision: str) -> list[np.ndarray]:
    """Return the masks at frame size that ``edgekd predict`` writes for some images by an OpenVINO build."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for image in images:
            shutil.copy(image, folder / "images")
        options = {"target": "openvino", "precision": precision, "quiet": True}
        run_prediction(bundle, folder / "images", folder / "out", **options)
        return [np.asarray(Image.open(folder / "out/masks" / image.name)).copy() for image in images]


def compare_runners(build: Build, name: str, tensors: np.ndarray) -> dict[str, Any]:
    """Return what Polygraphy's Comparator says of ONNX Runtime beside OpenVINO on a graph of ``image``."""
    onnxrt, comparator = _import("polygraphy.backend.onnxrt"), _import("polygraphy.comparator")
    path = build.resolve_file(name)
    session = onnxrt.SessionFromOnnx(str(path))
    runners = [onnxrt.OnnxrtRunner(session, name="onnxrt"), _build_openvino_runner(path)]
    results = comparator.Comparator.run(runners, data_loader=[{"image": tensor[None]} for tensor in tensors])
    compare = comparator.CompareFunc.simple(atol=TOLERANCE, rtol=TOLERANCE, check_error_stat="max")
    passed = bool(comparator.Comparator.compare_accuracy(results, compare_func=compare))
    pairs = zip(*(iterations for _, iterations in results), strict=True)
    largest = max(float(np.abs(a[key].astype(float) - b[key]).max()) for a, b in pairs for key in a)
    runs = {name: len(iterations) for name, iterations in results}
    return {"graph": name, "passed": passed, "runs": runs, "largest_difference": largest}


def _build_openvino_runner(path: Path) -> Any:
    base, common = _import("polygraphy.backend.base"), _import("polygraphy.common")

    class OpenVinoRunner(base.BaseRunner):
        compiled: Any = None

        def activate_impl(self) -> None:
            self.compiled = (
                _import("openvino").Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            )

        def get_input_metadata_impl(self) -> Any:
            port = self.compiled.inputs[0]
            shape = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
            return common.TensorMetadata().add(port.get_any_name(), np.float32, shape)

        def infer_impl(self, feed_dict: dict[str, Any]) -> dict[str, Any]:
            begin = time.perf_counter()
            found = self.compiled(feed_dict)
            self.inference_time = time.perf_counter() - begin
            return {port.get_any_name(): found[port] for port in self.compiled.outputs}

        def deactivate_impl(self) -> None:
            self.compiled = None

    return OpenVinoRunner("openvino")


def run_commands(build: Build, folder: Path, golden: GoldenFrames) -> list[dict[str, Any]]:
    """Return how Polygraphy's command fares: it compares ONNX Runtime with the golden answers."""
    comparator, files = _import("polygraphy.comparator"), _import("polygraphy.json")
    files.save_json([{"image": tensor[None]} for tensor in golden.tensors], str(folder / "inputs.json"))
    answers = {CORE_FILE: ("logits", golden.logits), ENGINE_FILE: ("mask", golden.masks)}
    reports: list[dict[str, Any]] = []
    for name, (output, values) in answers.items():
        results = comparator.RunResults()
        results.add([{output: value[None]} for value in values], runner_name="golden")
        results.save(str(folder / f"{output}.json"))
        graph = str(build.resolve_file(name))
        loads = [
            "--load-inputs",
            str(folder / "inputs.json"),
            "--load-outputs",
            str(folder / f"{output}.json"),
        ]
        tolerances = ["--atol", str(TOLERANCE), "--rtol", str(TOLERANCE)]
        reports.append(_run_command("run", graph, "--onnxrt", "--validate", *loads, *tolerances))
        reports.append(_run_command("inspect", "model", graph, "--show", "layers"))
    return reports


def _import(name: str) -> Any:
    """Import a reader, which is no dependency of EdgeKD and unknown to the type checker."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MachineError(
            f"this suite needs {error.name}", action=f"pip install {' '.join(PACKAGES)}"
        ) from error


def _run_command(*arguments: str) -> dict[str, Any]:
    program = Path(sys.executable).with_name("polygraphy")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    shown = " ".join(Path(word).name if "/" in word else word for word in arguments)
    failed = done.stdout.splitlines()[-20:] if done.returncode != 0 else []
    return {"command": f"polygraphy {shown}", "exit_code": done.returncode, "failure": failed}


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with an fp32 ONNX build and OpenVINO builds.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    count: Annotated[int, typer.Option(help="Frames of BUSI.", min=1)] = 20,
) -> None:
    """Let the readers read, write what they saw, and fail where one saw something else than we do."""
    for name in MODULES:
        _import(name)
    opened = Bundle.open(bundle)
    graphs, golden = find_build(opened, "onnx"), read_golden(opened)
    images = list_busi_frames(count)
    model_api = [compare_model_api(opened, images, *cell) for cell in list_openvino_cells(opened)]
    runners = [compare_runners(graphs, name, golden.tensors) for name in (CORE_FILE, ENGINE_FILE)]
    with tempfile.TemporaryDirectory() as folder:
        commands = run_commands(graphs, Path(folder), golden)
    different = {one["build"]: sum(frame["different"] != 0 for frame in one["frames"]) for one in model_api}
    passed = (
        not any(different.values())
        and all(runner["passed"] for runner in runners)
        and all(command["exit_code"] == 0 for command in commands)
    )
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    found = {"model_api": model_api, "runners": runners, "commands": commands, "passed": passed}
    manifest = opened.manifest
    about = {"model": manifest.model.name, "preprocess": manifest.preprocess.model_dump(mode="json")}
    write_json_atomic(
        out, {"environment": describe_environment(), "versions": versions, "student": about, **found}
    )
    typer.echo(f"Model API: of {count} masks differ {different}; Polygraphy: {runners}")
    if not passed:
        raise GateFailure("a reader sees something else than we do", received=str(out))


if __name__ == "__main__":
    typer.run(main)
