"""A student of four convolutions, deep enough to be int8: its head does 1 % of the multiplications."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgekd.bundle import Bundle, GoldenFrames, write_bundle
from edgekd.preprocess import preprocess_frames
from edgekd.specs import ClassSpec, ModelSpec, PreprocessSpec

SPEC = PreprocessSpec(height=32, width=32)
CHANNELS = ((1, 8), (8, 8), (8, 8))
# The layers' names, the last of which writes the logits.
LAYERS = ("conv_0", "conv_1", "conv_2", "head")


def build_core(seed: int = 0) -> Any:
    """Return ``image`` (N, 1, 32, 32) → ``logits`` (N, 2, 32, 32): bright against dark, after smoothing."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    nodes, constants, source = [], {}, "image"
    for index, (inputs, outputs) in enumerate(CHANNELS):
        weights = np.abs(rng.normal(1, 0.3, (outputs, inputs, 3, 3))) / (9 * inputs)
        constants |= {f"weight_{index}": weights, f"bias_{index}": rng.normal(0.5, 0.1, outputs)}
        names = [source, f"weight_{index}", f"bias_{index}"]
        nodes.append(
            helper.make_node("Conv", names, [f"wide_{index}"], pads=[1, 1, 1, 1], name=f"conv_{index}")
        )
        source = f"hidden_{index}"
        nodes.append(helper.make_node("Relu", [f"wide_{index}"], [source], name=f"relu_{index}"))
    constants |= {
        "head_weight": np.stack([-np.ones(8), np.ones(8)]).reshape(2, 8, 1, 1),
        "head_bias": np.array([10.0, -10.0]),
    }
    nodes.append(helper.make_node("Conv", [source, "head_weight", "head_bias"], ["logits"], name="head"))
    graph = helper.make_graph(
        nodes,
        "core",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2, 32, 32])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def draw_frames(count: int, seed: int = 1) -> list[np.ndarray]:
    """Return frames (48, 56) uint8: a bright disc of varying place in dark noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :56]
    frames = []
    for _ in range(count):
        row, column, radius = rng.uniform(14, 34), rng.uniform(14, 42), rng.uniform(7, 13)
        disc = np.hypot(rows - row, columns - column) < radius
        frames.append(np.clip(rng.normal(60, 10, (48, 56)) + 130 * disc, 0, 255).astype(np.uint8))
    return frames


def write_data(root: Path) -> Path:
    """Write thirty frames of the student's kind with their masks into an empty folder, and return it."""
    for name in ("images", "masks"):
        (root / name).mkdir()
    for index, frame in enumerate(draw_frames(30, seed=5)):
        Image.fromarray(frame).save(root / "images" / f"{index}.png")
        Image.fromarray((frame > 130).astype(np.uint8) * 255).save(root / "masks" / f"{index}.png")
    return root


def write_deep_student(final: Path) -> Bundle:
    """Write the student as a bundle with its fp32 ONNX build; needs no torch."""
    from edgekd.export.onnx import build_onnx
    from edgekd.export.running import run_graph

    core, frames = build_core(), draw_frames(4)
    tensors = preprocess_frames(frames, SPEC)
    logits = run_graph(core, tensors, optimise=True)[0]
    masks = logits.argmax(axis=1).astype(np.uint8)
    golden = GoldenFrames(tuple(frames), tensors, logits, masks, masks)
    model = ModelSpec(name="deep", in_channels=1, num_classes=2, parameters=1000, macs=10**6)
    bundle = write_bundle(
        final, preprocess=SPEC, classes=ClassSpec(), model=model, files={"golden.npz": golden.to_bytes()}
    )
    build_onnx(bundle, core)
    return bundle


def move_out_of_range(core: Any, factor: float) -> Any:
    """Multiply a layer's result and divide the next layer's weights: the same function in float32."""
    from onnx import numpy_helper

    changed = copy.deepcopy(core)
    for tensor in changed.graph.initializer:
        scale = {"weight_1": factor, "bias_1": factor, "weight_2": 1 / factor}.get(tensor.name)
        if scale is not None:
            values = numpy_helper.to_array(tensor) * np.float32(scale)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return changed
