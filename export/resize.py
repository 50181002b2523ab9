"""Resizing inside an ONNX graph, as exact as the NumPy truth and for any frame size.

The operator Resize is no match for it. Engines compute its coordinates in float32, which on a frame of
1920 columns is wrong by 1e-4 of the range; OpenVINO's linear mode leaves ``antialias`` out, and its Pillow
mode took 6.7 ms for 640 by 480 pixels on one core where gathering and multiplying took 0.9 ms (ONNX
Runtime: 1.0 and 0.4 ms). Here the interpolation table is computed in the graph by integer arithmetic, the
lines that a few neighbouring output lines need are taken out, and products with their weights sum them:
3e-7 of the range.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from edgekd.export.nodes import NodeWriter, build_integers
from edgekd.runtime.openvino_resize import COLUMNS, LINES, PLANES, ROWS

# Neighbouring output lines share most of their input lines where these are averaged. Eight rows at a time
# move half of the memory that one at a time does; more of them multiply mostly by zeros.
_ROWS_A_BAND = 8
# A band of columns is a product of its own: from 1024 columns to 8 bands of 32 OpenVINO takes two thirds of
# the time that it takes to turn the rows and to gather columns as rows are. With a free frame size each adds
# 0.05 s to the time that a graph takes to load, so that there are not many.
_MOST_COLUMN_BANDS = 8
_SMALLEST_COLUMN_BAND = 16


class TableNames(NamedTuple):
    """The interpolation of one axis, whose output lines are cut into bands of equal size.

    Attributes:
        first: name of (bands,) int64, the first input line of each band.
        taps: name of an int64 scalar, the number of input lines of a band.
        indices: name of (bands, taps) int64, the input lines of each band.
        weights: name of (bands, lines, taps) float32, what each of them counts in each output line.
    """

    first: str
    taps: str
    indices: str
    weights: str


def add_resize(
    writer: NodeWriter, frame: str, height: int, width: int, channels: int, *, antialias: bool
) -> str:
    """Add nodes that resize ``frame`` (N, H, W, C), of any number type, to (N, C, height, width) float32.

    Bilinear with half-pixel centres; the filter is as in `edgekd.preprocess.tables`.
    """
    shape = writer.add("Shape", frame)
    # Without antialiasing neighbouring rows share none where the frame is made smaller.
    row_band = _choose_row_band(height) if antialias else 1
    rows = _add_table(writer, _add_size(writer, shape, 1), height, row_band, antialias=antialias)
    num_bands = _count_column_bands(width)
    columns = _add_table(writer, _add_size(writer, shape, 2), width, width // num_bands, antialias=antialias)
    # A row of all columns and channels is contiguous: it is gathered before it is widened to float.
    lines = writer.add("Reshape", frame, build_integers(0, 0, -1), name=LINES)
    lines = writer.add("Gather", lines, rows.indices, axis=1)
    lines = writer.add("MatMul", rows.weights, writer.add("Cast", lines, to=TensorProto.FLOAT))
    lines = writer.add("Reshape", lines, build_integers(0, height, -1), name=ROWS)
    if channels > 1:
        pixels = writer.add("Reshape", lines, build_integers(0, 0, -1, channels))
        lines = writer.add("Transpose", pixels, perm=[0, 3, 1, 2])
    # From (N, C height, W) on, with three axes: over a concatenation of four OpenVINO moves the quantiser of
    # the image, and the layer that reads it is float32 then.
    lines = writer.add("Reshape", lines, build_integers(0, channels * height, -1), name=PLANES)
    lines = _add_columns(writer, lines, columns, num_bands)
    return writer.add("Reshape", lines, build_integers(0, channels, height, width))


def _add_columns(writer: NodeWriter, lines: str, columns: TableNames, num_bands: int) -> str:
    """Add nodes that sum the columns of (N, C height, W) float32, a band of neighbours at a time."""
    weights = writer.add("Transpose", columns.weights, perm=[0, 2, 1])
    bands: list[str] = []
    for band in range(num_bands):
        first = writer.add("Gather", columns.first, build_integers(band))
        end = writer.add("Add", first, columns.taps)
        part = writer.add("Slice", lines, first, end, build_integers(2))
        bands.append(writer.add("MatMul", part, writer.add("Gather", weights, build_integers(band))))
    return writer.add("Concat", *bands, axis=2, name=COLUMNS)


def _add_size(writer: NodeWriter, shape: str, axis: int) -> str:
    return writer.add("Gather", shape, np.int64(axis))


def _add_table(writer: NodeWriter, size: str, out_size: int, band: int, *, antialias: bool) -> TableNames:
    """Add the interpolation table of an axis of ``size`` (a scalar tensor) pixels to ``out_size``, in bands.

    Lengths are in units of 1 / (2 out_size) input pixels, in which every centre is an integer, so that only
    the final quotient rounds: output ``o`` sits at ``(2o + 1) size``, input ``i`` at ``(2i + 1) out_size``.
    """
    centres = writer.add("Mul", np.arange(1, 2 * out_size, 2).reshape(-1, band, 1), size)
    support = writer.add("Max", size, np.int64(out_size)) if antialias else np.array(out_size)
    support = writer.add("Mul", support, np.int64(2))
    # From the first line of a band's first output to the last line of its last one.
    length = writer.add("Add", support, writer.add("Mul", size, np.int64(band - 1)))
    taps = writer.add("Div", writer.add("Add", length, np.int64(out_size - 1)), np.int64(out_size))
    taps = writer.add("Min", taps, size)
    first = writer.add("Mul", np.arange(1, 2 * out_size, 2 * band), size)
    # Integer division rounds towards zero, not down: another result only below zero, where 0 is taken.
    first = writer.add("Sub", writer.add("Add", first, np.int64(out_size)), support)
    first = writer.add("Div", first, np.int64(2 * out_size))
    first = writer.add("Max", writer.add("Min", first, writer.add("Sub", size, taps)), np.int64(0))
    steps = writer.add("Range", np.int64(0), taps, np.int64(1))
    indices = writer.add("Add", writer.add("Unsqueeze", first, build_integers(1)), steps)
    return TableNames(first, taps, indices, _add_weights(writer, indices, centres, support, out_size))


def _choose_row_band(height: int) -> int:
    """Return how many output rows are computed at a time, a divisor of ``height``."""
    return max(rows for rows in range(1, _ROWS_A_BAND + 1) if height % rows == 0)


def _count_column_bands(width: int) -> int:
    """Return how many bands the output columns are cut into, a divisor of ``width``.

    Two at least, where that is one: into a single product OpenVINO fuses what follows, and the mark of
    `edgekd.export.openvino_ir` is lost.
    """
    most = max(2, min(_MOST_COLUMN_BANDS, width // _SMALLEST_COLUMN_BAND))
    return max(bands for bands in range(1, most + 1) if width % bands == 0)


def _add_weights(writer: NodeWriter, indices: str, centres: str, support: str, out_size: int) -> str:
    place = writer.add("Add", writer.add("Mul", indices, np.int64(2 * out_size)), np.int64(out_size))
    distance = writer.add("Sub", writer.add("Unsqueeze", place, build_integers(1)), centres)
    distance = writer.add("Cast", writer.add("Abs", distance), to=TensorProto.FLOAT)
    ratio = writer.add("Div", distance, writer.add("Cast", support, to=TensorProto.FLOAT))
    weights = writer.add("Relu", writer.add("Sub", np.float32(1), ratio))
    return writer.add("Div", weights, writer.add("ReduceSum", weights, build_integers(2), keepdims=1))
