"""The preprocessing specification's NumPy truth, the CUDA kernel of the same steps and its launcher."""

from __future__ import annotations

from edgekd.preprocess.reference import (
    check_frame,
    convert_to_gray,
    crop_frame,
    list_frames,
    prepare_truth,
    preprocess_frame,
    preprocess_frames,
    resize_labels,
    restore_mask,
)
from edgekd.preprocess.tables import InterpolationTable, build_interpolation_table

__all__ = [
    "InterpolationTable",
    "build_interpolation_table",
    "check_frame",
    "convert_to_gray",
    "crop_frame",
    "list_frames",
    "prepare_truth",
    "preprocess_frame",
    "preprocess_frames",
    "resize_labels",
    "restore_mask",
]
