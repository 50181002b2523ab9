"""With a known size of frame OpenVINO's resize is a simpler one, and still the NumPy truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.preprocess import build_interpolation_table, preprocess_frames
from edgekd.runtime.openvino_resize import build_band_kernel, choose_bands, simplify_resize
from edgekd.runtime.precision import read_openvino_layers
from edgekd.specs import CropBox, PreprocessSpec

pytest.importorskip("onnx", reason="onnx writes the graphs")
pytest.importorskip("openvino")

import openvino

from edgekd.export.graphs import build_preprocess_graph

RGB = {"color": "rgb", "mean": (0.1, 0.5, 0.7), "std": (0.2, 0.25, 0.4)}
SIXTEEN_BITS = {"frame_dtype": "uint16", "scale": 1 / 65535}


def open_simple(spec: PreprocessSpec, batch: int, height: int, width: int) -> tuple[Any, set[str]]:
    """Return the compiled preprocessing of one size of frame, and the kinds of its operators before that."""
    core = openvino.Core()
    model = core.read_model(build_preprocess_graph(spec).SerializeToString())
    model.reshape({"frame": [batch, height, width, spec.channels]})
    simplify_resize(model, spec)
    kinds = {node.get_type_name() for node in model.get_ordered_ops()}
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), kinds


def assert_truth(spec: PreprocessSpec, batch: int, height: int, width: int) -> set[str]:
    rng = np.random.default_rng(height * width)
    shape = (batch, height, width) if spec.color == "gray" else (batch, height, width, 3)
    frames = rng.integers(0, np.iinfo(spec.frame_dtype).max + 1, shape, dtype=spec.frame_dtype)
    compiled, kinds = open_simple(spec, batch, height, width)
    found = compiled({0: frames.reshape(batch, height, width, spec.channels)})[0]
    value_range = spec.scale * spec.white / np.reshape(spec.std, (-1, 1, 1))
    difference = (np.abs(found - preprocess_frames(list(frames), spec)) / value_range).max()
    assert difference <= 5e-7, (spec, batch, height, width)
    return kinds


@pytest.mark.parametrize(
    "fields",
    [{}, {"antialias": False}, RGB, {**RGB, "frame_order": "bgr"}, SIXTEEN_BITS, {**RGB, **SIXTEEN_BITS}],
    ids=str,
)
@pytest.mark.parametrize(
    # Whole and broken ratios, more rows than are worth it, no bands of columns, enlarged, the same.
    ("height", "width"),
    [(120, 192), (300, 144), (2300, 156), (99, 132), (101, 133), (100, 125), (40, 48), (64, 96)],
)
def test_a_simpler_resize_is_the_truth(fields: dict, height: int, width: int) -> None:
    spec = PreprocessSpec(height=64, width=96, **fields)
    kinds = assert_truth(spec, 2, height, width)
    has_rows = spec.frame_dtype == "uint8" and (height < 2300 or not spec.antialias)
    has_columns = choose_bands(width, 96) is not None
    assert (("Split" in kinds), ("Convolution" in kinds)) == (has_rows, has_columns)
    # Nothing is left of the rows' or the columns' other form.
    assert ("MatMul" in kinds) == (not has_rows or not has_columns)
    assert ("Concat" in kinds) == (not has_columns)


@pytest.mark.parametrize(("width", "has_columns"), [(120, True), (119, False), (40, False), (48, True)])
def test_of_what_is_cropped(width: int, has_columns: bool) -> None:
    crop = CropBox(top=3, left=5, height=30, width=width)
    kinds = assert_truth(PreprocessSpec(height=64, width=96, crop=crop), 2, 50, 130)
    assert "Split" in kinds and ("Convolution" in kinds) == has_columns


def test_the_columns_convolution_is_no_layer_of_the_network() -> None:
    compiled, kinds = open_simple(PreprocessSpec(height=64, width=96), 1, 120, 192)
    assert "Convolution" in kinds
    assert read_openvino_layers(compiled.get_runtime_model(), openvino.Model([], [])) == []


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(2, 400),
    width=st.integers(2, 400),
    out=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    antialias=st.booleans(),
)
def test_any_size_is_the_truth(height: int, width: int, out: tuple[int, int], antialias: bool) -> None:
    assert_truth(PreprocessSpec(height=out[0], width=out[1], antialias=antialias), 1, height, width)


@given(
    bands=st.integers(3, 40),
    band=st.sampled_from([4, 8, 16]),
    step=st.integers(1, 60),
    antialias=st.booleans(),
)
def test_one_kernel_and_the_borders_are_the_whole_table(
    bands: int, band: int, step: int, antialias: bool
) -> None:
    in_size, out_size = bands * step, bands * band
    table = build_interpolation_table(in_size, out_size, antialias)
    expected = np.zeros((out_size, in_size))
    places = table.starts[:, None] + np.arange(table.taps)
    np.put_along_axis(expected, places, table.weights, axis=1)
    kernel, padding, factors = build_band_kernel(table, in_size, bands)
    taps = kernel.shape[1]
    found = np.zeros((out_size, padding + in_size + taps))
    for output in range(out_size):
        start = output // band * step
        found[output, start : start + taps] = kernel[output % band] * factors[output]
    np.testing.assert_allclose(found[:, padding : padding + in_size], expected, atol=1e-12)


def test_graphs_that_take_any_size_or_have_other_names_stay_as_they_are() -> None:
    spec = PreprocessSpec(height=64, width=96)
    core = openvino.Core()
    free = core.read_model(build_preprocess_graph(spec).SerializeToString())
    graph = build_preprocess_graph(spec)
    for node in graph.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("preprocess/planes", "preprocess/other") for name in names]
    other = core.read_model(graph.SerializeToString())
    other.reshape({"frame": [1, 120, 192, 1]})
    for model in (free, other):
        before = [node.get_friendly_name() for node in model.get_ordered_ops()]
        assert not simplify_resize(model, spec)
        assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before


@pytest.mark.parametrize(
    ("in_size", "out_size", "bands"),
    [
        (1024, 256, 32),
        (640, 256, 32),
        (720, 256, 16),
        (1000, 256, None),
        (256, 256, 32),
        # Two bands are all border.
        (20, 16, 4),
        (24, 8, None),
    ],
)
def test_bands_are_chosen_that_all_have_the_same_weights(
    in_size: int, out_size: int, bands: int | None
) -> None:
    assert choose_bands(in_size, out_size) == bands
