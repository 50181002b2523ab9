"""The OpenVINO builds: the deploy graph as IR, and a second IR for Model API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.atomic import temporary_folder
from edgekd.bundle import Build, Bundle
from edgekd.errors import GateFailure, MachineError
from edgekd.export.agreement import Runner, check_preprocessing
from edgekd.export.calibration import Calibration
from edgekd.export.drafts import keep_build
from edgekd.export.fixed_shapes import FixedShapes
from edgekd.export.judgement import judge_logits
from edgekd.export.model_api import MODEL_API_FILES, build_model_api
from edgekd.export.openvino_ir import DEPLOY_FILES, save_ir
from edgekd.export.source_graphs import (
    CORE_FILE,
    DEPLOY_FILE,
    PREPROCESS_FILE,
    describe_bundle,
    pick_graph_facts,
)
from edgekd.runtime.openvino import find_device
from edgekd.runtime.precision import OPENVINO_HINTS

# The graph is that of float32; OpenVINO computes it so where it is asked to.
HINTED_PRECISIONS = ("fp16", "bf16")
BATCH = 16


def build_openvino(
    bundle: Bundle,
    graphs: Build,
    precision: str = "fp32",
    deploy: Build | None = None,
    shapes: FixedShapes | None = None,
    calibration: Calibration | None = None,
    device: str = "CPU",
) -> Build:
    """Convert a deploy graph, check it and write ``builds/openvino-<precision>-<device>``.

    fp16 and bf16 are the float32 graph, computed as the runtime asks; int8 is in the graph.

    Args:
        bundle: the bundle.
        graphs: its fp32 ONNX build.
        precision: of the build.
        deploy: the ONNX build whose deploy graph is taken; None takes that of ``graphs``.
        shapes: what the deploy graph shall take alone; None leaves it free.
        calibration: frames to judge fp16 and bf16 by; None leaves them to the golden frames, which is said.
            The graph of int8 was judged when it was made.
        device: ``CPU``, ``GPU`` or ``NPU``; for one that is not here the graph is checked on the processor,
            and the build is ``built, not run``.

    Raises:
        MachineError: openvino is missing, or computes in another precision here.
        GateFailure: its preprocessing differs from the truth, or its precision misses its limits.
    """
    source = graphs if deploy is None else deploy
    openvino = _import_openvino()
    core = openvino.Core()
    model = core.read_model(source.resolve_file(DEPLOY_FILE))
    # Free, also where the ONNX build was given fixed shapes after it had been made.
    model.reshape({"frame": [-1, -1, -1, bundle.manifest.preprocess.channels]})
    for key, value in describe_bundle(bundle).items():
        model.set_rt_info(value, ["edgekd", key.removeprefix("edgekd_")])
    spec = bundle.manifest.preprocess
    preprocess = open_graph(graphs.resolve_file(PREPROCESS_FILE))
    notices = source.record.facts.get("notices")
    facts: dict[str, Any] = {
        "openvino": openvino.__version__,
        "opset": find_opset(model),
        "preprocess_sha256": spec.compute_hash(),
        "preprocess_max_difference": check_preprocessing(preprocess, spec),
        **pick_graph_facts(source),
        **({} if notices is None else {"notices": notices}),
        **_judge_hint(graphs.resolve_file(CORE_FILE), precision, calibration, device),
    }
    with temporary_folder() as folder:
        save_ir(model, folder / "deploy.xml")
        save_ir(build_model_api(model, bundle), folder / MODEL_API_FILES[0])
        files = {name: folder / name for name in (*DEPLOY_FILES, *MODEL_API_FILES)}
        return keep_build(
            bundle,
            target="openvino",
            precision=precision,
            device=device,
            files=files,
            facts=facts,
            shapes=shapes,
        )


def find_opset(model: Any) -> int:
    """Return the newest operator set that a graph uses: what a library must have to read it."""
    versions = (operation.get_type_info().version_id for operation in model.get_ordered_ops())
    return max(int(version.removeprefix("opset")) for version in versions if version.startswith("opset"))


def open_graph(graph: Path, precision: str = "fp32", device: str = "CPU") -> Runner:
    """Return what runs an ONNX graph of one input on a device, in the precision asked of it.

    Raises:
        MachineError: the device cannot compile it.
    """
    core = _import_openvino().Core()
    options = {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision]}
    model = core.read_model(graph)
    if device == "CPU":
        compiled = core.compile_model(model, device, options)
        return lambda value: compiled({0: value})[0]
    # An NPU takes no free batch.
    shape = model.input(0).get_partial_shape()
    shape[0] = 1
    model.reshape(shape)
    try:
        compiled = core.compile_model(model, device, options)
    except RuntimeError as error:
        raise MachineError(
            f"OpenVINO cannot compile the student for {device}",
            received=str(error).strip().splitlines()[-1],
            action="update its driver, or export for another device",
        ) from error
    # The library answers in an array of its own, which the next run writes over.
    return lambda value: np.concatenate([np.array(compiled({0: one[None]})[0]) for one in value])


def _judge_hint(core: Path, precision: str, calibration: Calibration | None, device: str) -> dict[str, Any]:
    """Return the facts of a precision that a hint makes, judged on the validation split if there is one."""
    if precision not in HINTED_PRECISIONS:
        return {}
    if find_device(device, _import_openvino().Core().available_devices) is None:
        said = f"{precision}: judged nowhere yet; on the device: edgekd parity BUNDLE --data DATA"
        return {"notices": [said]}
    if calibration is None:
        said = (
            f"{precision}: judged on the golden frames alone; --calib DATA judges it on the validation split"
        )
        return {"notices": [said]}
    reference, found = (
        _run_batches(open_graph(core, *one), calibration) for one in (("fp32", "CPU"), (precision, device))
    )
    judgement = judge_logits(precision, reference, found, calibration.val_truths)
    if not judgement.passed:
        raise GateFailure(
            f"the student misses its limits in {precision}",
            received=judgement.format(),
            expected=judgement.describe_limits(),
            action="export in another precision, or for another device",
        )
    return {
        "calibration": calibration.describe(),
        "validation": judgement.describe(),
        "notices": [f"{precision}: {judgement.format()}{calibration.remark}"],
    }


def _run_batches(run: Runner, calibration: Calibration) -> NDArray[np.float32]:
    tensors = calibration.val_tensors
    # The library answers in an array of its own, which the next run writes over.
    parts = [np.array(run(tensors[start : start + BATCH])) for start in range(0, len(tensors), BATCH)]
    return np.concatenate(parts)


def _import_openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MachineError("openvino is not installed", action='pip install "edgekd[openvino]"') from error
    return openvino
