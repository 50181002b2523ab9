"""Data sets: finding cases, reading them, dividing them, checking them, and a synthetic one. Never torch."""

from __future__ import annotations

from edgekd.data.cases import Case, Dataset
from edgekd.data.check import CheckReport, check_dataset
from edgekd.data.frames import LoadedFrames, hash_image, list_images, load_frames
from edgekd.data.inspection import Finding
from edgekd.data.layouts import find_cases
from edgekd.data.loading import (
    LoadedCases,
    count_learned,
    hash_cases,
    hash_pixels,
    load_cases,
    read_case,
    read_frame,
    shorten_hashes,
)
from edgekd.data.phantom import render_phantom, write_phantom
from edgekd.data.readers import read_image, read_mask
from edgekd.data.splits import SPLITS, assign_splits

__all__ = [
    "SPLITS",
    "Case",
    "CheckReport",
    "Dataset",
    "Finding",
    "LoadedCases",
    "LoadedFrames",
    "assign_splits",
    "check_dataset",
    "count_learned",
    "find_cases",
    "hash_cases",
    "hash_image",
    "hash_pixels",
    "list_images",
    "load_cases",
    "load_frames",
    "read_case",
    "read_frame",
    "read_image",
    "read_mask",
    "render_phantom",
    "shorten_hashes",
    "write_phantom",
]
