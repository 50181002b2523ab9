"""OpenVINO: the deploy graph on the processor, an Intel GPU or an NPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekd.bundle import Build, find_build
from edgekd.errors import MachineError
from edgekd.runtime.base import LoadRequest, Masks, Stage
from edgekd.runtime.frames import Batch, merge_masks, pack_frames
from edgekd.runtime.precision import OPENVINO_HINTS, read_openvino_layers, summarise_precision


class OpenVinoEngine:
    """One compiled OpenVINO model and its infer request; frames of a batch run one after another."""

    name = "openvino"
    synchronisation = "infer returns when the mask is in host memory; it includes any transfer"

    def __init__(self, request: LoadRequest) -> None:
        """Compile the build for ``CPU``, ``GPU``, ``NPU`` or a full name such as ``GPU.1``.

        Compiled models are kept in ``request.cache``; nothing is kept without it.

        Raises:
            MachineError: the build or device is missing, the device cannot compile the graph, or it would
                compute in another precision than the build's.
        """
        import openvino

        # The graph is the same for every device.
        build = find_build(request.bundle, "openvino", request.precision)
        self._spec = request.bundle.manifest.preprocess
        core = openvino.Core()
        _check_device(request.device, core.available_devices)
        compiled = _compile(core, build, request)
        self._facts: dict[str, Any] = {
            "engine": self.name,
            "version": openvino.__version__,
            "device": request.device,
            "device_name": core.get_property(request.device, "FULL_DEVICE_NAME"),
            "threads": request.threads,
            **_read_precision(compiled, build),
        }
        self._request: Any = compiled.create_infer_request()

    @classmethod
    def find_obstacle(cls, build: Build) -> str | None:
        """Return why the build's device is not there, or None."""
        import openvino

        try:
            _check_device(build.record.device, openvino.Core().available_devices)
        except MachineError as error:
            return str(error)
        return None

    def stages(self) -> Mapping[str, Stage]:
        """Return ``preprocess`` (channels, batches), ``infer`` (the graph), ``postprocess`` (order)."""
        return {"preprocess": self._pack, "infer": self._infer, "postprocess": merge_masks}

    def facts(self) -> dict[str, Any]:
        """Return the library's version, the device and the precision read back from the compiled graph."""
        return dict(self._facts)

    def close(self) -> None:
        """Drop the infer request and with it the compiled model."""
        self._request = None

    def _pack(self, frames: Any) -> list[Batch]:
        return pack_frames(frames, self._spec)

    def _infer(self, batches: list[Batch]) -> list[tuple[tuple[int, ...], Masks]]:
        return [(batch.places, self._infer_batch(batch.pixels)) for batch in batches]

    def _infer_batch(self, pixels: Any) -> Masks:
        masks = np.empty((len(pixels), self._spec.height, self._spec.width), np.uint8)
        for index, frame in enumerate(pixels):
            result = self._request.infer({"frame": frame[None]}, share_inputs=True, share_outputs=True)
            # Copied at once: the request writes its next mask into the same memory.
            masks[index] = result["mask"][0]
        return masks


def _compile(core: Any, build: Build, request: LoadRequest) -> Any:
    build.resolve_file("deploy.bin")
    model = core.read_model(build.resolve_file("deploy.xml"))
    # A fixed batch keeps every shape behind the resize static, which costs less than it saves to batch.
    shape = model.input("frame").get_partial_shape()
    shape[0] = 1
    model.reshape({"frame": shape})
    options: dict[str, Any] = {
        # The library's own default is bf16 or f16 where the device has it.
        "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[request.precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    if request.threads is not None:
        options["INFERENCE_NUM_THREADS"] = request.threads
    if request.cache is not None:
        options["CACHE_DIR"] = str(request.cache)
    try:
        return core.compile_model(model, request.device, options)
    except RuntimeError as error:
        raise MachineError(
            f"OpenVINO cannot compile {build.name} for {request.device}",
            received=str(error).strip().splitlines()[-1],
        ) from error


def _check_device(device: str, available: list[str]) -> None:
    if not any(name == device or name.startswith(f"{device}.") for name in available):
        raise MachineError(
            f"OpenVINO finds no device {device} here",
            received=", ".join(available) or "none",
            action="use one of those with --device, or install the driver of the device",
        )


def _read_precision(compiled: Any, build: Build) -> dict[str, Any]:
    effective, others = summarise_precision(read_openvino_layers(compiled.get_runtime_model()))
    if effective != build.record.precision_effective:
        raise MachineError(
            f"OpenVINO would run {build.name} in another precision than it was built for",
            received=effective,
            expected=build.record.precision_effective,
        )
    return {"precision_effective": effective, "layers_in_other_precision": others}
