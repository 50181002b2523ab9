"""Frames onto the GPU and through the CUDA kernel: choice of module, pinned copies, tables, launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import MachineError
from edgekd.preprocess.context import CudaContext
from edgekd.preprocess.device import CudaDevice
from edgekd.preprocess.kernel import BLOCK_HEIGHT, BLOCK_WIDTH, ENTRY_POINTS, compute_grid, pack_table
from edgekd.preprocess.reference import list_frames
from edgekd.preprocess.tables import build_interpolation_table
from edgekd.specs import PreprocessSpec

# frames, frame and row stride, two tables of (starts, weights, taps), images, image stride
ARGUMENT_TYPES = "PQQPPiPPiPQ"
# Frame sizes whose tables stay on the GPU; a probe has few.
MAX_TABLES = 32


@dataclass(frozen=True)
class FrameGroup:
    """Consecutive frames of one shape in a staging buffer.

    Attributes:
        offset: of the first frame, bytes.
        count: number of frames.
        shape: (H, W) or (H, W, 3).
        frame_bytes: distance from one frame to the next.
    """

    offset: int
    count: int
    shape: tuple[int, ...]
    frame_bytes: int


def split_groups(groups: Sequence[FrameGroup], batch: int) -> list[FrameGroup]:
    """Return the groups cut wherever a batch of ``batch`` frames is full: no part belongs to two batches."""
    parts: list[FrameGroup] = []
    done = 0
    for group in groups:
        taken = 0
        while taken < group.count:
            count = min(group.count - taken, batch - done % batch)
            parts.append(replace(group, offset=group.offset + taken * group.frame_bytes, count=count))
            taken += count
            done += count
    return parts


@dataclass(frozen=True)
class _DeviceTables:
    row_starts: Any
    row_weights: Any
    row_taps: int
    column_starts: Any
    column_weights: Any
    column_taps: int


class FrameStaging:
    """A pinned host buffer and its twin on the GPU; both grow to the largest batch seen and are then kept."""

    def __init__(self, context: CudaContext) -> None:
        self._context = context
        self._pinned: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._used_bytes = 0
        self.device_memory: Any = None

    def copy_frames(self, frames: Sequence[NDArray[Any]] | NDArray[Any]) -> list[FrameGroup]:
        """Copy frames, of any strides and sizes, densely into the pinned buffer; returns where they lie."""
        batch = list_frames(frames)
        self._reserve(sum(frame.nbytes for frame in batch))
        groups: list[FrameGroup] = []
        offset = 0
        for shape, members in groupby(batch, key=lambda frame: frame.shape):
            same = list(members)
            size = same[0].nbytes
            groups.append(FrameGroup(offset, len(same), shape, size))
            for frame in same:
                # uint16 frames stay aligned: every offset is a sum of whole uint16 frames.
                target = self._pinned[offset : offset + size].view(frame.dtype).reshape(shape)
                np.copyto(target, frame)
                offset += size
        self._used_bytes = offset
        return groups

    def close(self) -> None:
        """Give the pinned memory back, inside the active context; may be called twice."""
        self._pinned = np.empty(0, dtype=np.uint8)

    def upload(self) -> None:
        """Queue the copy of the frames to the GPU on the context's stream."""
        used = self._pinned[: self._used_bytes]
        self._context.driver.memcpy_htod_async(int(self.device_memory), used, self._context.stream)

    def _reserve(self, size_bytes: int) -> None:
        if size_bytes <= self._pinned.nbytes:
            return
        if self.device_memory is not None:
            self._context.release(self.device_memory)
        self._pinned = self._context.pin(size_bytes, np.uint8)
        self.device_memory = self._context.allocate(size_bytes)


class KernelLauncher:
    """The preprocessing of one specification on one GPU.

    Args:
        context: the GPU, active.
        spec: the steps that the module was compiled with.
        facts: ``KernelBuild.facts`` of the build.
        read_file: returns the content of a file of the build.
        rebuild: the command that makes the build anew, for messages.

    Raises:
        MachineError: no module fits the GPU and its driver, or the driver does not load it.
    """

    def __init__(
        self,
        context: CudaContext,
        spec: PreprocessSpec,
        facts: Mapping[str, Any],
        read_file: Callable[[str], bytes],
        rebuild: str,
    ) -> None:
        self._context = context
        self._spec = spec
        self.module_facts = choose_module(facts["modules"], context.device, rebuild)
        # A driver reads PTX as a C string; a cubin carries its own length.
        code = read_file(self.module_facts["file"]) + b"\0"
        try:
            self._module = context.driver.module_from_buffer(code)
        except context.driver.Error as error:
            raise MachineError(
                f"the driver of {context.device.name} does not load {self.module_facts['file']}",
                received=str(error),
                action=rebuild,
            ) from error
        self._functions = {
            channels: self._module.get_function(name).prepare(ARGUMENT_TYPES)
            for channels, name in ENTRY_POINTS.items()
        }
        self._tables: dict[tuple[int, int], _DeviceTables] = {}

    def launch(self, frames: int, group: FrameGroup, images: int, image_stride: int) -> None:
        """Queue the preprocessing of a group of frames on the context's stream.

        Args:
            frames: GPU address of the staging buffer.
            group: the frames in it.
            images: GPU address of the first tensor (C, h, w) to write.
            image_stride: elements from one tensor to the next.
        """
        tables = self._find_tables(group.shape[0], group.shape[1])
        channels = 1 if len(group.shape) == 2 else group.shape[2]
        row_stride = group.frame_bytes // group.shape[0]
        self._functions[channels].prepared_async_call(
            compute_grid(self._spec, group.count),
            (BLOCK_WIDTH, BLOCK_HEIGHT, 1),
            self._context.stream,
            frames + group.offset,
            group.frame_bytes,
            row_stride,
            int(tables.row_starts),
            int(tables.row_weights),
            tables.row_taps,
            int(tables.column_starts),
            int(tables.column_weights),
            tables.column_taps,
            images,
            image_stride,
        )

    def close(self) -> None:
        """Unload the module; may be called twice."""
        self._functions.clear()
        self._module = None

    def _find_tables(self, height: int, width: int) -> _DeviceTables:
        if self._spec.crop is not None:
            height, width = self._spec.crop.height, self._spec.crop.width
        if (height, width) not in self._tables:
            if len(self._tables) == MAX_TABLES:
                self._release_oldest_tables()
            self._tables[height, width] = self._upload_tables(height, width)
        return self._tables[height, width]

    def _release_oldest_tables(self) -> None:
        oldest = self._tables.pop(next(iter(self._tables)))
        # A launch that waits in the stream may still read them.
        self._context.synchronize()
        for table in (oldest.row_starts, oldest.row_weights, oldest.column_starts, oldest.column_weights):
            self._context.release(table)

    def _upload_tables(self, height: int, width: int) -> _DeviceTables:
        spec = self._spec
        rows = build_interpolation_table(height, spec.height, spec.antialias)
        columns = build_interpolation_table(width, spec.width, spec.antialias)
        row_starts, row_weights = map(self._context.upload, pack_table(rows))
        column_starts, column_weights = map(self._context.upload, pack_table(columns))
        return _DeviceTables(row_starts, row_weights, rows.taps, column_starts, column_weights, columns.taps)


def choose_module(
    modules: Sequence[Mapping[str, Any]], device: CudaDevice, rebuild: str
) -> Mapping[str, Any]:
    """Return the record of the module to load: the GPU's own cubin, else PTX for it or an earlier GPU.

    Args:
        modules: ``facts["modules"]`` of the build.
        device: the GPU.
        rebuild: the command that makes the build anew, for the message.

    Raises:
        MachineError: no module fits the GPU and its driver.
    """
    cubins = [m for m in modules if m["file"].endswith(".cubin") and m["architecture"] == device.architecture]
    texts = [m for m in modules if m["file"].endswith(".ptx") and m["architecture"] <= device.architecture]
    for module in [*cubins, *texts]:
        if _parse_version(module["driver_cuda"]) <= device.driver_cuda:
            return module
    major, minor = device.driver_cuda
    known = "; ".join(f"{m['file']} from CUDA {m['driver_cuda']} on" for m in modules)
    raise MachineError(
        "no CUDA preprocessing module of this build fits the GPU",
        received=f"{device.name}, sm_{device.architecture}, a driver for CUDA {major}.{minor}",
        expected=known,
        action=f"update the NVIDIA driver, or on this machine: {rebuild} --sm {device.architecture}",
    )


def _parse_version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)
