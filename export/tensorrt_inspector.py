"""What TensorRT's engine inspector says about a built engine; needs the GPU that the engine was built for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from edgekd.errors import EdgeKDError
from edgekd.runtime.precision import Layer
from edgekd.runtime.tensorrt_library import MessageLog, create_runtime

INSPECTOR_FILE = "engine_layers.json"
# TensorRT 10 says both in one text ("Row major linear FP16 format"), 11 has a field for each.
_TYPE_FIELDS = ("DataType", "Format/Datatype", "Format")
_TYPES = (
    ("int8", r"Int8|kINT8"),
    ("bf16", r"BF16|BFloat16"),
    ("fp16", r"FP16|Half"),
    ("fp32", r"FP32|Float"),
)


def inspect_engine(library: Any, plan: bytes, *, host_code: bool) -> str:
    """Return the inspector's JSON text on a plan, deserialised here.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        plan: an engine of this library.
        host_code: the plan is version compatible: it brings the lean runtime, which is code.

    Raises:
        EdgeKDError: the plan cannot be loaded on this machine; the message carries the library's log.
    """
    log = MessageLog(library)
    runtime = create_runtime(library, log, host_code=host_code)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EdgeKDError("the engine just built cannot be loaded here", received=log.format_errors())
    return engine.create_engine_inspector().get_engine_information(library.LayerInformationFormat.JSON)


def read_inspected_layers(text: str, parsed: Sequence[Layer]) -> tuple[list[Layer], int]:
    """Return the multiplying layers with the precision that the built engine runs them in.

    An engine's layer is matched by the names of the network's layers it was fused from (``a + b``) or by its
    metadata (``[ONNX Layer: a]``), and computes in the type of its first input. A layer that the engine does
    not name keeps what the network says, which a strongly typed engine follows.

    Args:
        text: the inspector's JSON.
        parsed: the layers of the parsed network.

    Returns:
        The layers, and how many of them the inspector named.
    """
    described = [one for one in json.loads(text).get("Layers", []) if isinstance(one, dict)]
    layers: list[Layer] = []
    found = 0
    for layer in parsed:
        precision = next((p for one in described if (p := _match_precision(one, layer.name))), None)
        found += precision is not None
        layers.append(layer._replace(precision=precision or layer.precision))
    return layers, found


def _match_precision(described: dict[str, Any], name: str) -> str | None:
    fused = str(described.get("Name", "")).split(" + ")
    if name not in fused and f"[ONNX Layer: {name}]" not in str(described.get("Metadata", "")):
        return None
    inputs = described.get("Inputs") or [{}]
    return _read_type(inputs[0])


def _read_type(tensor: dict[str, Any]) -> str | None:
    text = next((str(tensor[field]) for field in _TYPE_FIELDS if field in tensor), "")
    return next((precision for precision, pattern in _TYPES if re.search(rf"\b({pattern})\b", text)), None)
