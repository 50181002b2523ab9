"""A cheaper resize in place of a deploy graph's, where OpenVINO's CPU device knows the size of the frame.

The graph's own works for any size (`edgekd.export.resize`): it gathers the rows that eight output rows need,
widens them to float and multiplies by weights that are mostly zeros, and cuts the columns into bands, an
operator each for its slice and its product. With a known size the rows are few vectors, summed in bytes as
they lie, and the columns one convolution. Both take their weights from the truth's own table;
`benchmarks/suites/before_the_network.py` times the two forms in turn.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.preprocess.tables import InterpolationTable, build_interpolation_table
from edgekd.processor import read_instructions
from edgekd.runtime.precision import PREPROCESS_PREFIX
from edgekd.specs import PreprocessSpec

# Tensors of a deploy graph: rows (N, H, W C) of the frame, (N, h, W C) resized, (N, C h, W) channel by
# channel, (N, C h, w).
LINES, ROWS, PLANES, COLUMNS = (
    f"{PREPROCESS_PREFIX}/{name}" for name in ("lines", "rows", "planes", "columns")
)
# The library sums them in one pass over the memory while its inputs and output need no more than the eleven
# registers it has for addresses: two a tap. Later passes add to what there is.
_FIRST_TAPS, _MORE_TAPS = 5, 4
# Each is an operator: with hundreds the graph takes a second to compile.
_MOST_TAPS = 32
# Output columns of a band, the channels of the convolution: more multiply mostly by zeros.
_BAND_SIZES = (8, 4, 16)
# Its neighbours on both sides tell what a band in the middle needs.
_LEAST_BANDS = 3


def has_simple_resize(device: str, hint: str) -> bool:
    """Return whether graphs of a known size of frame are changed here, for a device and a precision.

    Not where the layers around the network are computed in bf16: the library would round between rows and
    columns. Nor without AVX2, which its own kernels for these operators need: kept to AVX, the whole took 12
    to 17 times as long.
    """
    return device == "CPU" and hint == "f32" and has_fast_kernels()


def has_fast_kernels() -> bool:
    """Return whether the library writes kernels of its own for chains of operators on this processor."""
    return "avx2" in read_instructions()


def simplify_resize(model: Any, spec: PreprocessSpec) -> bool:
    """Change a deploy graph in place where its frames have a known size; results differ by rounding alone.

    Args:
        model: openvino.Model; one whose tensors have other names, or whose size is free, stays as it is.
        spec: its preprocessing.

    Returns:
        Whether it was changed.
    """
    tensors = find_tensors(model, (LINES, ROWS, PLANES, COLUMNS))
    if len(tensors) < 4 or tensors[LINES].get_partial_shape().is_dynamic:
        return False
    _, height, length = tensors[LINES].get_shape()
    width = length // spec.channels
    rows = build_interpolation_table(height, spec.height, spec.antialias)
    # The library widens 16 bits to 32 at once, and then has no more to gain.
    has_rows = spec.frame_dtype == "uint8" and rows.taps <= _MOST_TAPS
    if has_rows:
        _replace(tensors[ROWS], _sum_rows(tensors[LINES], rows))
    num_bands = choose_bands(width, spec.width)
    if num_bands is not None:
        columns = build_interpolation_table(width, spec.width, spec.antialias)
        _replace(tensors[COLUMNS], _convolve_columns(tensors[PLANES], columns, num_bands, width))
    model.validate_nodes_and_infer_types()
    return has_rows or num_bands is not None


def choose_bands(in_size: int, out_size: int) -> int | None:
    """Return how many equal bands an axis is cut into so that all have the same weights; None if none fit."""
    for size in _BAND_SIZES:
        bands, rest = divmod(out_size, size)
        if rest == 0 and in_size % bands == 0 and bands >= _LEAST_BANDS:
            return bands
    return None


def build_band_kernel(
    table: InterpolationTable, in_size: int, num_bands: int
) -> tuple[NDArray[np.float64], int, NDArray[np.float64]]:
    """Return an interpolation table as one kernel that is applied at every band.

    Args:
        table: of ``in_size`` to ``out_size`` pixels; both are multiples of ``num_bands``.
        in_size: pixels of the axis.
        num_bands: three at least.

    Returns:
        Weights (out_size / num_bands, taps) for the pixels from ``padding`` before the band's first on; the
        padding; and (out_size,) what each output is to be multiplied by, because beyond the border the kernel
        finds zeros where the table has its weights sum to 1.
    """
    out_size = len(table.starts)
    band, step = out_size // num_bands, in_size // num_bands
    middle = slice(num_bands // 2 * band, (num_bands // 2 + 1) * band)
    places = table.starts[middle, None] + np.arange(table.taps) - num_bands // 2 * step
    weights = table.weights[middle]
    used = places[weights > 0]
    padding = max(0, -int(used.min()))
    kernel: NDArray[np.float64] = np.zeros((band, padding + max(step, int(used.max()) + 1)))
    outputs, taps = np.nonzero(weights)
    kernel[outputs, places[outputs, taps] + padding] = weights[outputs, taps]
    factors: NDArray[np.float64] = np.empty((num_bands, band))
    for index in range(num_bands):
        first = index * step - padding
        factors[index] = 1 / kernel[:, max(0, -first) : in_size - first].sum(axis=1)
    return kernel, padding, np.ravel(factors)


def _sum_rows(lines: Any, table: InterpolationTable) -> Any:
    """Return (N, h, W) float32, the sum of the rows of (N, H, W) uint8 that each output row needs."""
    ops = _load_operators()
    # Without antialiasing some read a row that weighs nothing anywhere.
    used = np.flatnonzero(table.weights.any(axis=0))
    gathered = ops.gather(lines, (table.starts + used[:, None]).astype(np.int64), np.int64(1))
    parts = ops.split(gathered, np.int64(1), len(used)).outputs()
    total = None
    for tap, part in enumerate(parts):
        weights = np.reshape(table.weights[:, used[tap]].astype(np.float32), (1, 1, -1, 1))
        term = ops.multiply(ops.convert(part, "f32"), weights)
        if tap >= _FIRST_TAPS and (tap - _FIRST_TAPS) % _MORE_TAPS == 0:
            # With an axis more or less the library ends a pass here.
            is_next = (tap - _FIRST_TAPS) // _MORE_TAPS % 2 == 0
            total = (ops.unsqueeze if is_next else ops.squeeze)(total, np.int64(0))
        total = term if total is None else ops.add(total, term)
    length = lines.get_shape()[2]
    return ops.reshape(total, np.array([-1, len(table.starts), length]), special_zero=False)


def _convolve_columns(planes: Any, table: InterpolationTable, num_bands: int, in_size: int) -> Any:
    """Return (N, rows, w) float32 of (N, rows, W), a convolution whose channels are the columns of a band."""
    ops = _load_operators()
    kernel, padding, factors = build_band_kernel(table, in_size, num_bands)
    band, taps = kernel.shape
    step = in_size // num_bands
    end = taps + (num_bands - 1) * step - in_size - padding
    filters = np.reshape(kernel.astype(np.float32), (band, 1, 1, taps))
    image = ops.unsqueeze(planes, np.int64(1))
    bands = ops.convolution(image, filters, [1, step], [0, padding], [0, end], [1, 1])
    bands.set_friendly_name(f"{PREPROCESS_PREFIX}/bands")
    # (N, band, rows, num_bands): the library keeps channels last, so that nothing is moved.
    columns = ops.transpose(bands, np.array([0, 2, 3, 1]))
    columns = ops.reshape(columns, np.array([0, 0, num_bands * band]), special_zero=True)
    return ops.multiply(columns, factors.astype(np.float32))


def find_tensors(model: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return name → output of those tensors that a graph of OpenVINO has."""
    outputs = [output for node in model.get_ordered_ops() for output in node.outputs()]
    return {name: output for output in outputs for name in names if name in output.get_names()}


def _replace(old: Any, new: Any) -> None:
    """Give what reads one output another one to read."""
    for reader in old.get_target_inputs():
        reader.replace_source_output(new.output(0))


def _load_operators() -> Any:
    return importlib.import_module("openvino.opset8")
