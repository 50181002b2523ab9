"""ONNX Runtime: the deploy graph on the processor, or on a GPU through CUDA."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from edgekd.bundle import Build, find_build
from edgekd.errors import MachineError
from edgekd.runtime.base import LoadRequest, Masks, Stage
from edgekd.runtime.frames import Batch, merge_masks, pack_frames

_PROVIDERS = {"CPU": "CPUExecutionProvider", "GPU": "CUDAExecutionProvider"}
# TF32 would round the factors of every product to 10 bits of mantissa in what is called fp32.
_PROVIDER_OPTIONS: Mapping[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}}


class OnnxEngine:
    """One ONNX Runtime session; there is no fallback from a GPU to the processor."""

    name = "onnx"
    synchronisation = "run returns when the mask is in host memory; infer includes any transfer"

    def __init__(self, request: LoadRequest) -> None:
        """Start a session on device ``CPU``, or ``GPU``, which is CUDA.

        Raises:
            MachineError: the build is missing, or the device's provider is not there or does not start.
        """
        onnxruntime = _import_onnxruntime()
        # The graph is the same for every device.
        build = find_build(request.bundle, "onnx", request.precision)
        self._spec = request.bundle.manifest.preprocess
        self._provider = _choose_provider(request.device)
        _check_provider(self._provider, request.precision)
        self._session: Any = onnxruntime.InferenceSession(
            build.resolve_file("deploy.onnx").read_bytes(),
            sess_options=_build_options(request.threads),
            providers=[(self._provider, _PROVIDER_OPTIONS.get(self._provider, {}))],
        )
        used = self._session.get_providers()
        if used[0] != self._provider:
            raise MachineError(
                f"ONNX Runtime could not start {self._provider}",
                received=used[0],
                action="see the log of ONNX Runtime for the library that is missing",
            )
        self._facts = {
            "engine": self.name,
            "version": onnxruntime.__version__,
            "device": request.device,
            "provider": self._provider,
            "threads": request.threads,
            "precision_effective": build.record.precision_effective,
        }

    @classmethod
    def find_obstacle(cls, build: Build) -> str | None:
        """Return why the provider of the build's device is not there, or None."""
        try:
            _choose_provider(build.record.device)
        except MachineError as error:
            return str(error)
        return None

    def stages(self) -> Mapping[str, Stage]:
        """Return ``preprocess`` (channels, batches), ``infer`` (the graph), ``postprocess`` (order)."""
        return {"preprocess": self._pack, "infer": self._infer, "postprocess": merge_masks}

    def facts(self) -> dict[str, Any]:
        """Return the library's version, the provider in use and the precision."""
        return dict(self._facts)

    def close(self) -> None:
        """Drop the session."""
        self._session = None

    def _pack(self, frames: Any) -> list[Batch]:
        return pack_frames(frames, self._spec)

    def _infer(self, batches: list[Batch]) -> list[tuple[tuple[int, ...], Masks]]:
        return [(batch.places, self._session.run(["mask"], {"frame": batch.pixels})[0]) for batch in batches]


def _build_options(threads: int | None) -> Any:
    options = _import_onnxruntime().SessionOptions()
    # Threads that spin between frames take the processor from whatever else the device does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _choose_provider(device: str) -> str:
    provider = _PROVIDERS.get(device.upper())
    if provider is None:
        raise MachineError(
            "ONNX Runtime has no such device", received=device, expected="one of " + ", ".join(_PROVIDERS)
        )
    available: list[str] = _import_onnxruntime().get_available_providers()
    if provider not in available:
        raise MachineError(
            f"ONNX Runtime has no {provider} here",
            received=", ".join(available),
            action="pip install onnxruntime-gpu in place of onnxruntime, or use --device CPU",
        )
    return provider


def _check_provider(provider: str, precision: str) -> None:
    if precision == "int8" and provider != _PROVIDERS["CPU"]:
        raise MachineError(
            f"{provider} has no int8 convolutions and would compute them in float",
            received="an int8 build",
            expected="--device CPU, or a TensorRT build for the GPU",
        )


def _import_onnxruntime() -> Any:
    # It has no type stubs, and is loaded with the first engine, not with this package.
    return importlib.import_module("onnxruntime")
