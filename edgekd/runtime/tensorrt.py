"""TensorRT and TensorRT-RTX on an NVIDIA GPU; the CUDA preprocessing writes into the engine's input."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.bundle import Build
from edgekd.errors import EdgeKDError, IntegrityError, UsageError
from edgekd.preprocess.context import CudaContext, import_pycuda
from edgekd.preprocess.device import find_device
from edgekd.preprocess.launcher import FrameGroup, FrameStaging, KernelLauncher, choose_module, split_groups
from edgekd.runtime.base import Frames, LoadRequest, Masks, Stage
from edgekd.runtime.facts import format_rebuild
from edgekd.runtime.tensorrt_library import check_engine_facts, import_library
from edgekd.runtime.tensorrt_plan import PlanRunner, align_bytes

ENGINE_FILE = "student.engine"
Exit = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]


class TensorRtEngine:
    """The engine of targets ``tensorrt`` and ``tensorrt-rtx``; see `edgekd.runtime.base.Engine`.

    Frames are copied densely into pinned memory, uploaded, preprocessed by one kernel a frame size into the
    input of the engine, inferred in batches as large as its profile allows, and the masks are downloaded
    into pinned memory.
    """

    synchronisation = "each stage ends by recording a CUDA event on the one stream and waiting for it"

    def __init__(self, request: LoadRequest) -> None:
        """Load the build of a request.

        Raises:
            UsageError: the device is no GPU.
            MachineError: no driver, GPU, pycuda or library, or a build for other ones.
            IntegrityError: a file is not what its record says.
        """
        build = request.find_build()
        device = find_device(parse_device(request.device))
        library = import_library(request.target)
        facts = build.record.facts
        rebuild = format_rebuild(build)
        check_engine_facts(facts["engine"], request.target, library, device, rebuild)
        choose_module(facts["kernels"]["modules"], device, rebuild)
        plan = build.resolve_file(ENGINE_FILE).read_bytes()
        self.name = f"{facts['engine']['library']} on {device.name}"
        self._spec = request.bundle.manifest.preprocess
        self._facts = {
            **facts["engine"],
            "gpu": device.name,
            "sm": device.architecture,
            # What certificates are bound to and charts are grouped by, named as by every engine.
            "engine": request.target,
            "version": library.__version__,
            "device": request.device,
            "device_name": device.name,
            "precision_effective": build.record.precision_effective,
        }
        with contextlib.ExitStack() as stack:
            self._cuda = CudaContext(device)
            stack.push(_build_quiet_exit(self._cuda.close))
            with self._cuda.activate():
                host_code = bool(facts["engine"].get("version_compatible", False))
                self._runner = self._load_plan(request, library, plan, rebuild, host_code)
                stack.push(self._build_exit(self._runner.close))
                self._launcher = self._load_kernels(build, rebuild)
                stack.push(self._build_exit(self._launcher.close))
                self._staging = FrameStaging(self._cuda)
                stack.push(self._build_exit(self._unpin))
            self._cleanup = stack.pop_all()
        self._capacity = 0
        self._device_images: Any = None
        self._device_masks: Any = None
        self._pinned_masks: npt.NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._masks: npt.NDArray[np.uint8] = np.empty((0, 0), dtype=np.uint8)
        # A batch lies densely, and every batch starts where the library accepts an address.
        self._element_bytes = 2 if self._runner.half else 4
        self._batch = self._runner.highest_batch
        self._image_bytes = self._runner.image_elements * self._element_bytes
        self._mask_bytes = self._spec.height * self._spec.width
        self._images_bytes = align_bytes(self._batch * self._image_bytes)
        self._masks_bytes = align_bytes(self._batch * self._mask_bytes)

    @classmethod
    def find_obstacle(cls, build: Build, device: str) -> str | None:
        """Return why this machine cannot run ``build``, or None if it can; loads no plan."""
        facts, rebuild = build.record.facts, format_rebuild(build)
        try:
            gpu = find_device(parse_device(device))
            import_pycuda()
            library = import_library(build.record.target)
            check_engine_facts(facts["engine"], build.record.target, library, gpu, rebuild)
            choose_module(facts["kernels"]["modules"], gpu, rebuild)
        except EdgeKDError as error:
            return str(error)
        return None

    def stages(self) -> Mapping[str, Stage]:
        """Return the steps: preprocess (pinned copy), upload, infer (kernel and engine), download."""
        return {
            "preprocess": self._copy_frames,
            "upload": self._upload,
            "infer": self._infer,
            "download": self._download,
        }

    def facts(self) -> dict[str, Any]:
        """Return library, GPU, precision and the preprocessing module in use."""
        return {**self._facts, "preprocess_module": dict(self._launcher.module_facts)}

    def close(self) -> None:
        """Free plan, modules and memory; may be called twice."""
        self._cleanup.close()

    def _unpin(self) -> None:
        """Drop pinned memory while the context is active: pycuda frees none later."""
        self._staging.close()
        self._pinned_masks = np.empty(0, dtype=np.uint8)

    def _copy_frames(self, frames: Frames) -> list[FrameGroup]:
        with self._cuda.activate():
            return self._staging.copy_frames(frames)

    def _upload(self, groups: list[FrameGroup]) -> list[FrameGroup]:
        with self._cuda.activate():
            self._staging.upload()
            self._cuda.synchronize()
        return groups

    def _infer(self, groups: list[FrameGroup]) -> int:
        count = sum(group.count for group in groups)
        with self._cuda.activate():
            self._reserve(-(-count // self._batch))
            images, masks = int(self._device_images), int(self._device_masks)
            frames, done = int(self._staging.device_memory), 0
            for part in split_groups(groups, self._batch):
                batch, place = divmod(done, self._batch)
                target = images + batch * self._images_bytes + place * self._image_bytes
                self._launcher.launch(frames, part, target, self._runner.image_elements)
                done += part.count
            for batch, start in enumerate(range(0, count, self._batch)):
                self._runner.enqueue(
                    images + batch * self._images_bytes,
                    masks + batch * self._masks_bytes,
                    self._cuda.stream.handle,
                    min(self._batch, count - start),
                )
            self._cuda.synchronize()
        return count

    def _download(self, count: int) -> Masks:
        batches, rest = divmod(count, self._batch)
        used = self._pinned_masks[: batches * self._masks_bytes + rest * self._mask_bytes]
        with self._cuda.activate():
            self._cuda.driver.memcpy_dtoh_async(used, int(self._device_masks), self._cuda.stream)
            self._cuda.synchronize()
        # Batches lie apart in pinned memory, and masks densely.
        masks = self._masks[:count]
        for batch, start in enumerate(range(0, count, self._batch)):
            found = masks[start : start + self._batch]
            offset = batch * self._masks_bytes
            found[...] = np.reshape(used[offset : offset + found.size], found.shape)
        return np.reshape(masks, (count, self._spec.height, self._spec.width))

    def _reserve(self, batches: int) -> None:
        """Make room for the tensors and masks of full batches, once for the largest call seen."""
        if batches <= self._capacity:
            return
        for allocation in (self._device_images, self._device_masks):
            if allocation is not None:
                self._cuda.release(allocation)
        self._device_images = self._cuda.allocate(batches * self._images_bytes)
        self._device_masks = self._cuda.allocate(batches * self._masks_bytes)
        self._pinned_masks = self._cuda.pin(batches * self._masks_bytes, np.uint8)
        self._masks = np.empty((batches * self._batch, self._mask_bytes), np.uint8)
        self._capacity = batches

    def _load_plan(
        self, request: LoadRequest, library: Any, plan: bytes, rebuild: str, host_code: bool
    ) -> PlanRunner:
        shape = (self._spec.channels, self._spec.height, self._spec.width)
        return PlanRunner(
            library,
            request.target,
            plan,
            shape,
            cache=request.prepare_cache(),
            rebuild=rebuild,
            host_code=host_code,
        )

    def _load_kernels(self, build: Build, rebuild: str) -> KernelLauncher:
        facts = build.record.facts
        if facts["preprocess_sha256"] != self._spec.compute_hash():
            raise IntegrityError("the build's preprocessing is not that of the bundle", action=rebuild)
        if facts["kernels"]["half"] != self._runner.half:
            raise IntegrityError(
                "the preprocessing writes another precision than the engine reads", action=rebuild
            )

        def read_file(name: str) -> bytes:
            return build.resolve_file(name).read_bytes()

        return KernelLauncher(self._cuda, self._spec, facts["kernels"], read_file, rebuild)

    def _build_exit(self, function: Callable[[], None]) -> Exit:
        def call_active() -> None:
            with self._cuda.activate():
                function()

        return _build_quiet_exit(call_active)


def _build_quiet_exit(function: Callable[[], None]) -> Exit:
    """Return a callback of an ExitStack that frees something without masking the error that led there."""

    def leave(kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            function()
        except Exception:
            if error is None:
                raise

    return leave


def parse_device(name: str) -> int:
    """Return the number of the GPU that ``GPU`` (the first) or ``GPU.1`` names.

    Raises:
        UsageError: the name is of no GPU.
    """
    match = re.fullmatch(r"GPU(?:\.(\d+))?", name, flags=re.IGNORECASE)
    if match is None:
        raise UsageError(
            "TensorRT runs on an NVIDIA GPU only", received=f"device {name}", expected="GPU or GPU.1"
        )
    return int(match[1] or 0)
