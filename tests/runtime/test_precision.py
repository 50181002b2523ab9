"""The effective precision is that of 95 % of the multiplications, read from the compiled graph."""

from __future__ import annotations

import pytest

from edgekd.bundle import Bundle, find_build
from edgekd.runtime.precision import Layer, read_openvino_layers, summarise_precision


def test_ninety_five_percent_decide() -> None:
    layers = [Layer("large", "int8", 95), Layer("head", "fp32", 5)]
    assert summarise_precision(layers) == ("int8", ["head: fp32"])
    assert summarise_precision([Layer("large", "int8", 94), Layer("head", "fp32", 6)]) == (
        "mixed",
        ["head: fp32"],
    )
    assert summarise_precision([]) == ("none", [])


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
    layers = read_openvino_layers(compiled.get_runtime_model())
    assert {layer.precision for layer in layers} == {"fp32"}
    assert sum(layer.macs for layer in layers) == device_bundle.manifest.model.macs
