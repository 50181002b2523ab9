"""The effective precision is that of 95 % of the multiplications, read from the compiled graph."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.bundle import Bundle, find_build
from edgekd.runtime.precision import (
    Layer,
    choose_openvino_hint,
    read_openvino_layers,
    summarise_precision,
)


def test_ninety_five_percent_decide() -> None:
    layers = [Layer("large", "int8", 95), Layer("head", "fp32", 5)]
    assert summarise_precision(layers) == ("int8", ["head: fp32"])
    assert summarise_precision([Layer("large", "int8", 94), Layer("head", "fp32", 6)]) == (
        "mixed",
        ["head: fp32"],
    )
    assert summarise_precision([]) == ("none", [])


@pytest.mark.parametrize(
    ("precision", "capabilities", "hint"),
    [
        ("fp32", ["FP32", "INT8"], "f32"),
        ("fp16", ["FP32", "FP16"], "f16"),
        ("int8", ["FP32", "FP16", "INT8"], "f32"),
        # An NPU would refuse f32.
        ("int8", ["FP16", "INT8", "EXPORT_IMPORT"], "f16"),
    ],
)
def test_the_hint_is_one_that_the_device_takes(precision: str, capabilities: list[str], hint: str) -> None:
    assert choose_openvino_hint(precision, capabilities) == hint


class Primitive:
    """A layer of a runtime model without weights, as a GPU's is."""

    def __init__(self, name: str, kind: str = "Convolution", origins: str | None = None) -> None:
        told = {"layerType": kind, "runtimePrecision": "f16"} | (
            {"originalLayersNames": origins} if origins else {}
        )
        self._name, self._info = name, {key: SimpleNamespace(value=value) for key, value in told.items()}

    def get_friendly_name(self) -> str:
        return self._name

    def get_rt_info(self) -> dict[str, SimpleNamespace]:
        return self._info


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (["a", "b"], {"a": ("fp16", 32 * 9), "b": ("fp16", 32 * 4)}),
        (
            [("other", "Reorder"), ("x", "Convolution", "a,relu"), "b"],
            {"x": ("fp16", 32 * 9), "b": ("fp16", 32 * 4)},
        ),
        # Two that nobody knows share what is left; one that is not shown is said so.
        (["a", "x", "y"], {"a": ("fp16", 32 * 9), "x": ("fp16", 32 * 2), "y": ("fp16", 32 * 2)}),
        (["a"], {"a": ("fp16", 32 * 9), "the others": ("not shown", 32 * 4)}),
        (["x"], {"x": ("fp16", 32 * 13 // 2), "the others": ("not shown", 32 * 13 // 2)}),
        (["a", "b", "x"], {"a": ("fp16", 32 * 9), "b": ("fp16", 32 * 4), "x": ("fp16", 0)}),
        (["a", "b", ("preprocess/resize", "Gemm")], {"a": ("fp16", 32 * 9), "b": ("fp16", 32 * 4)}),
        ([("image", "Input")], {}),
    ],
)
def test_multiplications_are_those_of_the_graph(
    shown: list[str | tuple[str, ...]], expected: dict[str, tuple[str, int]]
) -> None:
    openvino = pytest.importorskip("openvino")
    from openvino import opset10

    image = opset10.parameter([1, 1, 4, 8], name="image")
    zeros = ([0, 0], [0, 0])
    first = opset10.convolution(
        image, np.ones((1, 1, 3, 3), np.float32), [1, 1], [1, 1], [1, 1], [1, 1], name="a"
    )
    second = opset10.convolution(first, np.ones((4, 1, 1, 1), np.float32), [1, 1], *zeros, [1, 1], name="b")
    graph = openvino.Model([second], [image])
    primitives = [Primitive(one) if isinstance(one, str) else Primitive(*one) for one in shown]
    layers = read_openvino_layers(SimpleNamespace(get_ordered_ops=lambda: primitives), graph)
    assert {layer.name: (layer.precision, layer.macs) for layer in layers} == expected


@pytest.mark.parametrize("size", [None, (768, 1024)])
def test_openvinos_layers_and_their_macs(device_bundle: Bundle, size: tuple[int, int] | None) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    model = core.read_model(find_build(device_bundle, "openvino").resolve_file("deploy.xml"))
    shape = model.input("frame").get_partial_shape()
    shape[0] = 1
    if size is not None:
        # Now the products of the resize have a size too, and are no layers of the network.
        shape[1], shape[2] = size
    model.reshape({"frame": shape})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = read_openvino_layers(compiled.get_runtime_model(), model)
    assert {layer.precision for layer in layers} == {"fp32"}
    assert sum(layer.macs for layer in layers) == device_bundle.manifest.model.macs
