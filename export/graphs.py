"""The deploy and engine graphs, made from the core: preprocessing before it, the mask head behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgekd.bundle import Bundle
from edgekd.errors import IntegrityError
from edgekd.export.nodes import NodeWriter, build_integers
from edgekd.export.resize import add_resize
from edgekd.export.source_graphs import describe_bundle
from edgekd.runtime.precision import PREPROCESS_PREFIX
from edgekd.specs import CropBox, PreprocessSpec

OPSET = 18
IR_VERSION = 10
_FRAME_TYPES = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}


def build_engine_graph(core: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph ``image`` (N, C, h, w) float32 → ``mask`` (N, h, w) uint8.

    Args:
        core: the graph ``image`` → ``logits`` (N, K, h, w) float32.

    Raises:
        IntegrityError: the core is not of that form.
    """
    check_core(core)
    return _assemble(core, "engine", list(core.graph.input), NodeWriter(PREPROCESS_PREFIX))


def build_deploy_graph(core: onnx.ModelProto, spec: PreprocessSpec) -> onnx.ModelProto:
    """Return the graph ``frame`` (N, H, W, C) in ``spec.frame_dtype`` → ``mask`` (N, h, w) uint8.

    N, H and W are free; C is ``spec.channels``. A colour frame for a grey student, or the reverse, is
    converted on the host.

    Raises:
        IntegrityError: the core is not of the form that `build_engine_graph` needs.
    """
    check_core(core)
    writer = NodeWriter(PREPROCESS_PREFIX)
    _add_preprocess(writer, spec)
    frame = helper.make_tensor_value_info(
        "frame", _FRAME_TYPES[spec.frame_dtype], ["N", "H", "W", spec.channels]
    )
    return _assemble(core, "deploy", [frame], writer)


def build_preprocess_graph(spec: PreprocessSpec) -> onnx.ModelProto:
    """Return the preprocessing alone, ``frame`` → ``image`` (N, C, h, w) float32, to be measured."""
    writer = NodeWriter(PREPROCESS_PREFIX)
    _add_preprocess(writer, spec)
    shape = ["N", "H", "W", spec.channels]
    frame = helper.make_tensor_value_info("frame", _FRAME_TYPES[spec.frame_dtype], shape)
    image_shape = ["N", spec.channels, spec.height, spec.width]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, image_shape)
    return _build_model("preprocess", [frame], [image], writer.nodes, writer.initializers)


def pack_graph(graph: onnx.ModelProto, bundle: Bundle) -> bytes:
    """Return a graph as the bytes of its file, with the bundle's facts inside."""
    graph.ir_version = min(graph.ir_version, IR_VERSION)
    helper.set_model_props(graph, describe_bundle(bundle))
    return graph.SerializeToString(deterministic=True)


def check_core(core: onnx.ModelProto) -> None:
    """Raise IntegrityError unless ``core`` maps one ``image`` to one ``logits``, 4-D with a free batch."""
    values = [*core.graph.input, *core.graph.output]
    shapes = [_read_shape(value) for value in values]
    free = all(len(shape) == 4 and isinstance(shape[0], str) for shape in shapes)
    if [value.name for value in values] != ["image", "logits"] or not free:
        found = [f"{value.name} {shape}" for value, shape in zip(values, shapes, strict=True)]
        raise IntegrityError(
            "the core graph has another form",
            received="; ".join(found),
            expected="image and logits, both (N, channels, height, width) with any N",
        )


def _add_preprocess(writer: NodeWriter, spec: PreprocessSpec) -> None:
    frame = "frame" if spec.crop is None else _add_crop(writer, "frame", spec.crop)
    pixels = add_resize(writer, frame, spec.height, spec.width, spec.channels, antialias=spec.antialias)
    if spec.color == "rgb" and spec.frame_order == "bgr":
        pixels = writer.add("Gather", pixels, build_integers(2, 1, 0), axis=1)
    # (x * scale - mean) / std as one multiplication and one addition, folded in float64.
    mean, std = (np.reshape(values, (1, -1, 1, 1)) for values in (spec.mean, spec.std))
    pixels = writer.add("Mul", pixels, (spec.scale / std).astype(np.float32))
    writer.add("Add", pixels, (-mean / std).astype(np.float32), name="image")


def _add_crop(writer: NodeWriter, frame: str, crop: CropBox) -> str:
    starts = build_integers(crop.top, crop.left)
    ends = build_integers(crop.top + crop.height, crop.left + crop.width)
    return writer.add("Slice", frame, starts, ends, build_integers(1, 2))


def _add_mask(writer: NodeWriter, num_classes: int, *, through_float: bool) -> None:
    """Add logits → mask; where logits are equal the first class wins, as argmax has it."""
    if num_classes == 2:
        # Gather, not Slice: OpenVINO makes a split of two slices, which copies both, 0.4 ms at 256 by 256.
        background, other = (writer.add("Gather", "logits", np.int64(index), axis=1) for index in range(2))
        ids = writer.add("Greater", other, background)
    else:
        ids = writer.add("ArgMax", "logits", axis=1, keepdims=0, select_last_index=0)
    if through_float:
        ids = writer.add("Cast", ids, to=TensorProto.FLOAT)
    writer.add("Cast", ids, name="mask", to=TensorProto.UINT8)


def _assemble(
    core: onnx.ModelProto, name: str, inputs: Sequence[onnx.ValueInfoProto], before: NodeWriter
) -> onnx.ModelProto:
    batch, num_classes, height, width = _read_shape(core.graph.output[0])
    after = NodeWriter("mask_head")
    # TensorRT's headers promise a conversion to UINT8 from float and half alone.
    _add_mask(after, int(num_classes), through_float=name == "engine")
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, [batch, height, width])
    nodes = [*before.nodes, *core.graph.node, *after.nodes]
    initializers = [*before.initializers, *core.graph.initializer, *after.initializers]
    return _build_model(name, inputs, [mask], nodes, initializers)


def _build_model(
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="edgekd")
    onnx.checker.check_model(model, full_check=True)
    return model


def _read_shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
