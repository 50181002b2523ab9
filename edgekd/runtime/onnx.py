"""ONNX Runtime: the deploy graph on the processor, or on a GPU through CUDA."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.bundle import Build
from edgekd.errors import MachineError
from edgekd.preprocess.device import find_device
from edgekd.runtime.base import LoadRequest, Masks, Stage
from edgekd.runtime.deploy import DeployStages
from edgekd.runtime.facts import (
    check_build_record,
    check_onnx_format,
    check_provider,
    format_other_engine,
    format_rebuild,
    offer_processor,
)
from edgekd.runtime.limits import FrameLimits
from edgekd.runtime.onnx_probe import build_probe
from edgekd.runtime.precision import PREPROCESS_PREFIX

# Levels of the library's logger.
_ERROR, _FATAL = 3, 4
_PROVIDERS = {"CPU": "CPUExecutionProvider", "GPU": "CUDAExecutionProvider"}
# TF32 would round the factors of every product to 10 bits of mantissa in what is called fp32. In fp16 they
# have no more than 10, and without TF32 the library keeps cuDNN off tensor cores for half too.
_CUDA_OPTIONS: Mapping[str, dict[str, str]] = {"fp32": {"use_tf32": "0"}, "fp16": {}}


def list_providers(precision: str) -> list[str]:
    """Return the execution providers that a build is meant for.

    CUDA's has no int8 convolutions and would compute them in float; the processor's has none in half and
    would compute them in float32.
    """
    device = {"int8": "CPU", "fp16": "GPU"}.get(precision)
    return list(_PROVIDERS.values()) if device is None else [_PROVIDERS[device]]


class OnnxEngine:
    """One ONNX Runtime session; there is no fallback from a GPU to the processor."""

    name = "onnx"
    synchronisation = "run returns when the mask is in host memory; infer includes any transfer"

    def __init__(self, request: LoadRequest) -> None:
        """Start a session on device ``CPU``, or ``GPU``, which is CUDA.

        Raises:
            MachineError: the build is missing, or the device or its provider is not there or does not start.
        """
        onnxruntime = _import_onnxruntime()
        build = request.find_build()
        check_build_record(build, request.bundle)
        self._provider = _choose_provider(request.device, build)
        check_onnx_format(build, f"ONNX Runtime {onnxruntime.__version__}", _find_unread)
        self._session: Any = self._start(build, request)
        used = self._session.get_providers()
        if used[0] != self._provider:
            raise MachineError(
                f"ONNX Runtime could not start {self._provider}",
                received=used[0],
                action="see the log of ONNX Runtime for the library that is missing, or "
                + _offer_others(build),
            )
        if self._provider != _PROVIDERS["CPU"]:
            _set_log_level(_FATAL)
        placement = self._check_placement(build)
        self._binding: Any = self._session.io_binding()
        self._bound: Masks | None = None
        run = self._run_bound if request.device == "CPU" else self._run
        self.limits = FrameLimits.read(build.record.facts, format_rebuild(build, resize=True))
        spec = request.bundle.manifest.preprocess
        self._stages = DeployStages(spec, run, frames_a_run=self.limits.batch)
        self._facts = {
            "engine": self.name,
            "version": onnxruntime.__version__,
            "device": request.device,
            "provider": self._provider,
            "threads": request.threads,
            "precision_effective": build.record.precision_effective,
            "placement": placement,
        }

    @classmethod
    def find_obstacle(cls, build: Build, device: str) -> str | None:
        """Return why the provider of the device is not there, or None."""
        try:
            _choose_provider(device, build)
            check_onnx_format(build, f"ONNX Runtime {_import_onnxruntime().__version__}", _find_unread)
        except MachineError as error:
            return str(error)
        return None

    def stages(self) -> Mapping[str, Stage]:
        """Return ``preprocess`` (channels, batches), ``infer`` (the graph), ``postprocess`` (order)."""
        return self._stages.list()

    def facts(self) -> dict[str, Any]:
        """Return the library's version, the provider in use and the precision."""
        return dict(self._facts)

    def close(self) -> None:
        """Drop the session."""
        self._session = self._binding = self._bound = None

    def _check_placement(self, build: Build) -> str:
        """Return where the layers run; the library gives what a provider lacks to the processor in silence.

        What works out shapes belongs there, so that its own `session.disable_cpu_ep_fallback` would refuse
        every graph of free frames.
        """
        if self._provider == _PROVIDERS["CPU"]:
            return self._provider
        if not hasattr(self._session, "get_provider_graph_assignment_info"):
            return f"not shown by this version; asked for {self._provider}"
        strays = [
            node.name
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
            if part.ep_name != self._provider and _is_layer(node)
        ]
        if strays:
            raise MachineError(
                f"ONNX Runtime would compute layers of {build.name} on the processor",
                received=f"{', '.join(strays[:3])}{' …' if len(strays) > 3 else ''}, {len(strays)} in all",
                expected=f"every convolution and product by {self._provider}",
                action=_offer_others(build),
            )
        return f"every convolution and product by {self._provider}"

    def _start(self, build: Build, request: LoadRequest) -> Any:
        options = _build_options(request.threads)
        if self._provider != _PROVIDERS["CPU"]:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            _load_cuda_libraries()
            _set_log_level(_ERROR)
        try:
            return _import_onnxruntime().InferenceSession(
                build.resolve_file("deploy.onnx").read_bytes(),
                sess_options=options,
                providers=[(self._provider, self._list_options(build, request.device))],
                # Of its own accord the library would print to stdout and go on with the processor.
                enable_fallback=0,
            )
        except (*_list_errors(), RuntimeError) as error:
            raise MachineError(
                f"ONNX Runtime cannot load {build.name}",
                received=str(error).strip().splitlines()[0],
                action=format_rebuild(build),
            ) from error

    def _list_options(self, build: Build, device: str) -> dict[str, str]:
        """Return the provider's options, with the number of a GPU that is named by it."""
        if self._provider == _PROVIDERS["CPU"]:
            return {}
        number = _read_number(device)
        return {**_CUDA_OPTIONS[build.record.precision_asked], **({"device_id": number} if number else {})}

    def _run_bound(self, pixels: npt.NDArray[Any], masks: Masks) -> None:
        """Run on the processor: the library writes into ``masks``, which stay bound to its output."""
        if masks is not self._bound:
            self._binding.bind_ortvalue_output(
                "mask", _import_onnxruntime().OrtValue.ortvalue_from_numpy(masks)
            )
            self._bound = masks
        self._binding.bind_cpu_input("frame", pixels)
        self._session.run_with_iobinding(self._binding)

    def _run(self, pixels: npt.NDArray[Any], masks: Masks) -> None:
        np.copyto(masks, self._session.run(["mask"], {"frame": pixels})[0])


def _build_options(threads: int | None) -> Any:
    options = _import_onnxruntime().SessionOptions()
    # Threads that spin between frames take the processor from whatever else the device does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _find_unread(ir_version: int, opset: int) -> str | None:
    """Return why this ONNX Runtime reads no graph of an IR version and opset, or None if it does."""
    try:
        _import_onnxruntime().InferenceSession(
            build_probe(ir_version, opset), sess_options=_build_options(1), providers=[_PROVIDERS["CPU"]]
        )
    except _list_errors() as error:
        return str(error).strip().splitlines()[0]
    return None


def _is_layer(node: Any) -> bool:
    is_product = any(part in node.op_type for part in ("Conv", "MatMul", "Gemm"))
    return is_product and not node.name.startswith(f"{PREPROCESS_PREFIX}/")


def _list_errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises where it does not take a graph; the classes have no common base."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = ("Fail", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException", "EPFail")
    return tuple(getattr(state, name) for name in names)


def _read_number(device: str) -> str:
    """Return the number in the name of one of several devices, or an empty text."""
    return device.partition(".")[2]


def _choose_provider(device: str, build: Build) -> str:
    """Return the execution provider of a device, which is there and for which the build is meant.

    Raises:
        MachineError: there is none, or the build is not meant for it.
    """
    family, dot, number = device.upper().partition(".")
    provider = _PROVIDERS.get(family)
    if provider is None or (dot and (family == "CPU" or not number.isdecimal())):
        raise MachineError(
            "ONNX Runtime has no such device",
            received=device,
            expected="CPU, GPU, or one of several such as GPU.1",
            action=f"use one of those, or build for another engine, as in: {format_other_engine(build)}",
        )
    check_provider(build, provider, list_providers(build.record.precision_asked))
    available: list[str] = _import_onnxruntime().get_available_providers()
    if provider not in available:
        others = offer_processor if build.record.precision_asked == "fp16" else _offer_others
        raise MachineError(
            f"ONNX Runtime has no {provider} here",
            received=", ".join(available),
            action="pip install onnxruntime-gpu in place of onnxruntime where an NVIDIA GPU is; "
            f"elsewhere {others(build)}",
        )
    if family == "GPU":
        # The library offers CUDA also where there is no GPU.
        find_device(int(number or 0))
    return provider


def _set_log_level(level: int) -> None:
    """Let the library log what is at least so severe.

    Errors while it loads tell which library of CUDA is missing. Later ones are kernels that cuDNN tries and
    that do not fit; what goes wrong then is raised. The logger is the process's, there is no other.
    """
    _import_onnxruntime().set_default_logger_severity(level)


def _offer_others(build: Build) -> str:
    """Return what else may run a build's student, as part of a sentence."""
    processor = "" if build.record.precision_asked == "fp16" else "use --device CPU, or "
    return f"{processor}build for another engine, as in: {format_other_engine(build)}"


def _load_cuda_libraries() -> None:
    """Load CUDA's libraries from where pip put them, as the library does not by itself."""
    preload = getattr(_import_onnxruntime(), "preload_dlls", None)
    if preload is not None:
        # What it misses it prints; the session then says what it cannot do without.
        with contextlib.redirect_stdout(sys.stderr):
            preload()


def _import_onnxruntime() -> Any:
    # It has no type stubs, and is loaded with the first engine, not with this package.
    return importlib.import_module("onnxruntime")
