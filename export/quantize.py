"""int8 in the graph: Q/DQ from calibration frames, layers given back to float32 until the gate is met.

One quantiser, ONNX Runtime's, in the form each engine executes:

    cpu       ONNX Runtime and OpenVINO: unsigned activations with a zero point, every operator that can be,
              weights of 7 bits, because processors without VNNI add pairs of 8-bit products in 16 bits and
              saturate (seen: five times the error, without it none).
    tensorrt  signed activations with zero point 0, weights stored as int8 constants, only the inputs of
              multiplying layers; TensorRT reads anything else wrongly or not at all.

The layer that writes the logits stays float32: it costs next to nothing, and rounding its results to 255
steps would decide pixels at the edge by the rounding. On processors a small layer that reads the image does
too: its few channels fill no int8 instruction (from frame to mask the default student took OpenVINO 3 to 5 %
less time, ONNX Runtime 5 %), and trained on BUSI that student needed just this layer back to meet its limits.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.atomic import temporary_folder
from edgekd.export.layers import list_products
from edgekd.export.moves import move_integers
from edgekd.runtime.precision import DECISIVE_SHARE

Form = Literal["cpu", "tensorrt"]
# Of what may be float32 in a graph that is int8, half; the rest is for layers that its limits need back.
LARGEST_FLOAT_SHARE = (1 - DECISIVE_SHARE) / 2
_MULTIPLYING = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def quantize_core(
    core: onnx.ModelProto,
    tensors: NDArray[np.float32],
    form: Form,
    *,
    float_layers: Sequence[str] = (),
    only_layer: str | None = None,
) -> onnx.ModelProto:
    """Return a core graph with Q/DQ pairs, ``image`` and ``logits`` still float32.

    Args:
        core: the float32 graph; every node has a name.
        tensors: (N, C, h, w) float32, preprocessed frames that the ranges are measured on.
        form: of which engine.
        float_layers: names of nodes that stay float32, beside those of `list_float_layers`.
        only_layer: quantise this node alone, to see what it costs.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    excluded = sorted({*float_layers, *list_float_layers(core, form)})
    options: dict[str, Any] = {
        "cpu": {"activation_type": QuantType.QUInt8, "reduce_range": True},
        "tensorrt": {"activation_type": QuantType.QInt8, "op_types_to_quantize": list(_MULTIPLYING)},
    }[form]
    extra: dict[str, Any] = {
        # A range that is shared may begin below 0, where the quantiser's own would have been the Relu.
        "cpu": {"QDQKeepRemovableActivations": True},
        "tensorrt": {
            "ActivationSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": list(_MULTIPLYING),
        },
    }[form]
    with temporary_folder() as folder, _quieten():
        source, target = folder / "core.onnx", folder / "int8.onnx"
        onnx.save(core, source)
        quantize_static(
            source,
            target,
            _build_reader(tensors),
            quant_format=QuantFormat.QDQ,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=None if only_layer is None else [only_layer],
            nodes_to_exclude=excluded,
            extra_options={"WeightSymmetric": True, **extra},
            **options,
        )
        model = onnx.load(target)
    del model.metadata_props[:]
    if form == "cpu":
        move_integers(model)
    return model


def list_float_layers(core: onnx.ModelProto, form: Form) -> list[str]:
    """Return the names of the layers that are float32 from the beginning: the last, and small first ones.

    With these the share of float32 stays within ``LARGEST_FLOAT_SHARE``, unless the last alone is beyond it.
    """
    macs = {product.name: product.macs for product in list_products(core)}
    kept = [find_last_layer(core)]
    room = LARGEST_FLOAT_SHARE * sum(macs.values()) - macs.get(kept[0], 0)
    for node in core.graph.node if form == "cpu" else ():
        if "image" in node.input and node.name not in kept and macs.get(node.name, room + 1) <= room:
            kept.append(node.name)
            room -= macs[node.name]
    return kept


def find_last_layer(core: onnx.ModelProto) -> str:
    """Return the name of the last multiplying layer before the logits."""
    writers = {name: node for node in core.graph.node for name in node.output}
    node = writers["logits"]
    while node.op_type not in _MULTIPLYING and node.input and node.input[0] in writers:
        node = writers[node.input[0]]
    return node.name


def clip_share(tensors: NDArray[np.float32], calibration: NDArray[np.float32]) -> float:
    """Return the part of all values of ``tensors`` beyond the range that calibration frames have."""
    low, high = calibration.min(), calibration.max()
    return float(((tensors < low) | (tensors > high)).mean())


def rank_layers(
    core: onnx.ModelProto, tensors: NDArray[np.float32], form: Form, logits: NDArray[np.float32]
) -> Iterator[tuple[str, float]]:
    """Yield each multiplying layer with the error of the logits when it alone is int8.

    Args:
        core: the float32 graph.
        tensors: (N, C, h, w) float32, for ranges and error.
        form: of which engine.
        logits: (N, K, h, w) float32 of ``core``.

    Returns:
        Name and mean squared error of the logits' differences to class 0, which alone decide the mask.
    """
    from edgekd.export.running import run_graph

    kept = list_float_layers(core, form)
    for product in list_products(core):
        if product.name not in kept:
            quantised = quantize_core(core, tensors, form, only_layer=product.name)
            error = run_graph(quantised, tensors, optimise=True)[0] - logits
            yield product.name, float(((error - error[:, :1]) ** 2).mean())


def _build_reader(tensors: NDArray[np.float32]) -> Any:
    """Return what hands the calibration frames to the library one by one."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._frames = iter(tensors[:, None])

        def get_next(self) -> Any:
            frame = next(self._frames, None)
            return None if frame is None else {"image": frame}

    return Reader()


@contextlib.contextmanager
def _quieten() -> Iterator[None]:
    """Hide the library's advice to preprocess the graph, which the exporter has done already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
