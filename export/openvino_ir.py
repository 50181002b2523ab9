"""OpenVINO's files of a graph, whose preprocessing stays float32 where the network is computed in less."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgekd.atomic import explain_full_disk
from edgekd.bundle import BuildRecord, Bundle
from edgekd.errors import MachineError
from edgekd.export.agreement import check_preprocessing
from edgekd.runtime.openvino_resize import find_tensors, has_simple_resize, simplify_resize
from edgekd.runtime.precision import OPENVINO_HINTS, PREPROCESS_PREFIX

DEPLOY_FILES = ("deploy.xml", "deploy.bin")


def save_ir(model: Any, path: Path) -> None:
    """Write a graph as ``path`` and the file of its weights beside it, in float32.

    Raises:
        MachineError: there is no room.
    """
    openvino: Any = importlib.import_module("openvino")
    try:
        # The library would halve the weights to float16 by default.
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise MachineError(
            "OpenVINO could not write its graph",
            received=str(error).strip().splitlines()[-1],
            expected=f"room in {path.parent.parent}",
            action="free some space there, or name another folder by TMPDIR",
        ) from error
    with explain_full_disk(path):
        _keep_preprocessing(path)


def measure_fixed(
    bundle: Bundle, record: BuildRecord, folder: Path, frame_size: tuple[int, int]
) -> dict[str, float]:
    """Return how far frames of one size are from the truth, where the runtime gives them a simpler resize.

    Raises:
        GateFailure: too far.
    """
    if not has_simple_resize(record.device, OPENVINO_HINTS[record.precision_asked]):
        return {}
    openvino: Any = importlib.import_module("openvino")
    core, spec = openvino.Core(), bundle.manifest.preprocess
    model = core.read_model(folder / DEPLOY_FILES[0])
    image = find_tensors(model, ["image"])["image"]
    part = openvino.Model([image], model.get_parameters())
    part.reshape({"frame": [1, *frame_size, spec.channels]})
    if not simplify_resize(part, spec):
        return {}
    compiled = core.compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS["fp32"]})
    difference = check_preprocessing(lambda frames: compiled({0: frames})[0], spec, frame_size)
    return {"fixed_preprocess_max_difference": difference}


def _keep_preprocessing(path: Path) -> None:
    """Mark the float layers of the preprocessing as ``precise``, which exempts them from a device's hint.

    In bf16 it is wrong by up to 6e-3 of the range, in float32 by 2e-7. The library reads the mark; its Python
    side has no way to set it. What the library rewrites on a device loses it: with a free frame size the
    weights of the columns, which are computed at run time, and some slices without antialiasing. Versions
    before 2026 keep a marked Range of integers in 64 bits, between others of 32, and fail.
    """
    tree = ElementTree.parse(path)
    for layer in tree.iter("layer"):
        is_float = any(port.get("precision") == "FP32" for port in layer.iterfind("output/port"))
        if not is_float or not layer.get("name", "").startswith(f"{PREPROCESS_PREFIX}/"):
            continue
        info = layer.find("rt_info")
        if info is None:
            info = ElementTree.Element("rt_info")
            # The schema wants it before the ports.
            layer.insert(0 if layer.find("data") is None else 1, info)
        # Some versions write the mark of a graph that was read, and none reads it twice.
        if info.find("attribute[@name='precise']") is None:
            ElementTree.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    tree.write(path, encoding="utf-8", xml_declaration=True)
