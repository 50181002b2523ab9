"""OpenVINO: the deploy graph on the processor, an Intel GPU or an NPU."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from edgekd.bundle import NOT_SHOWN, Build
from edgekd.errors import MachineError
from edgekd.runtime.base import LoadRequest, Masks, Stage
from edgekd.runtime.deploy import DeployStages
from edgekd.runtime.facts import (
    check_build_record,
    check_capability,
    check_openvino_format,
    format_other_engine,
    format_rebuild,
)
from edgekd.runtime.limits import FrameLimits
from edgekd.runtime.openvino_luma import LumaWriter
from edgekd.runtime.openvino_resize import has_fast_kernels, has_simple_resize, simplify_resize
from edgekd.runtime.precision import choose_openvino_hint, read_openvino_layers, summarise_precision


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
        build = request.find_build()
        core = openvino.Core()
        _check_device(request.device, core.available_devices, build)
        check_build_record(build, request.bundle)
        check_openvino_format(build, f"OpenVINO {openvino.__version__}", _list_opsets(openvino))
        capabilities = core.get_property(request.device, "OPTIMIZATION_CAPABILITIES")
        check_capability(build, request.device, capabilities)
        hint = choose_openvino_hint(request.precision, capabilities)
        graph = _read_graph(core, build)
        if has_simple_resize(request.device, hint):
            simplify_resize(graph, request.bundle.manifest.preprocess)
        compiled = _compile(core, graph, build, request, hint)
        self._facts: dict[str, Any] = {
            "engine": self.name,
            "version": openvino.__version__,
            "device": request.device,
            "device_name": core.get_property(request.device, "FULL_DEVICE_NAME"),
            "threads": request.threads,
            **_read_precision(compiled, graph, build, request, hint),
        }
        self._request: Any = compiled.create_infer_request()
        self._wrap: Any = openvino.Tensor
        self._bound: Masks | None = None
        self.limits = FrameLimits.read(build.record.facts, format_rebuild(build, resize=True))
        spec = request.bundle.manifest.preprocess
        self._write_luma = LumaWriter(core, spec, request.threads) if has_fast_kernels() else None
        self._stages = DeployStages(
            spec, self._run, frames_a_run=self.limits.batch or 1, write_luma=self._write_luma
        )

    @classmethod
    def find_obstacle(cls, build: Build, device: str) -> str | None:
        """Return why the device is not there or does not take the build, or None."""
        import openvino

        core = openvino.Core()
        try:
            _check_device(device, core.available_devices, build)
            check_openvino_format(build, f"OpenVINO {openvino.__version__}", _list_opsets(openvino))
            check_capability(build, device, core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
        except MachineError as error:
            return str(error)
        return None

    def stages(self) -> Mapping[str, Stage]:
        """Return ``preprocess`` (channels, batches), ``infer`` (the graph), ``postprocess`` (order)."""
        return self._stages.list()

    def facts(self) -> dict[str, Any]:
        """Return the library's version, the device and the precision read back from the compiled graph."""
        return dict(self._facts)

    def close(self) -> None:
        """Drop the infer request and with it the compiled model."""
        self._request = self._bound = None
        if self._write_luma is not None:
            self._write_luma.close()

    def _run(self, pixels: npt.NDArray[Any], masks: Masks) -> None:
        # The request reads the frame where it lies and writes into the masks themselves.
        if masks is not self._bound:
            self._request.set_output_tensor(self._wrap(masks, shared_memory=True))
            self._bound = masks
        self._request.infer({"frame": pixels}, share_inputs=True, share_outputs=True)


def _read_graph(core: Any, build: Build) -> Any:
    build.resolve_file("deploy.bin")
    path = build.resolve_file("deploy.xml")
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise _build_compile_error(build, "this version", error) from error
    # A fixed batch keeps every shape behind the resize static, which costs less than it saves to batch.
    shape = model.input("frame").get_partial_shape()
    if shape[0].is_dynamic:
        shape[0] = 1
        model.reshape({"frame": shape})
    return model


def _compile(core: Any, graph: Any, build: Build, request: LoadRequest, hint: str) -> Any:
    options: dict[str, Any] = {
        # The library's own default is bf16 or f16 where the device has it.
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if request.threads is not None:
        options["INFERENCE_NUM_THREADS"] = request.threads
    cache = request.prepare_cache()
    if cache is not None:
        options["CACHE_DIR"] = str(cache)
    try:
        return core.compile_model(graph, request.device, options)
    except RuntimeError as error:
        raise _build_compile_error(build, request.device, error) from error


def _build_compile_error(build: Build, device: str, error: RuntimeError) -> MachineError:
    return MachineError(
        f"OpenVINO cannot compile {build.name} for {device}",
        received=str(error).strip().splitlines()[-1],
        action=format_rebuild(build),
    )


def _list_opsets(openvino: Any) -> list[int]:
    """Return the operator sets that the library has, each a module of it."""
    names = (module.name for module in pkgutil.iter_modules(openvino.__path__))
    return [int(match[1]) for match in (re.fullmatch(r"opset(\d+)", name) for name in names) if match]


def find_device(device: str, available: Sequence[str]) -> str | None:
    """Return the first available device that a name means, or None; the only GPU is ``GPU`` and ``GPU.0``."""
    return next(
        (name for name in available if device in (name, f"{name}.0") or name.startswith(f"{device}.")), None
    )


def _check_device(device: str, available: list[str], build: Build) -> None:
    if find_device(device, available) is None:
        raise MachineError(
            f"OpenVINO finds no device {device} here",
            received=", ".join(available) or "none",
            action="use one of those with --device, install the driver of the device, or build for another "
            f"engine, as in: {format_other_engine(build)}",
        )


def _read_precision(
    compiled: Any, graph: Any, build: Build, request: LoadRequest, hint: str
) -> dict[str, Any]:
    layers = read_openvino_layers(compiled.get_runtime_model(), graph)
    effective, others = summarise_precision(layers)
    expected, read_from = build.record.precision_asked, "the compiled graph"
    if not layers and request.device.startswith("NPU"):
        # It shows no layers: that it took the hint is all that can be known.
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        effective, expected = (NOT_SHOWN, NOT_SHOWN) if taken == hint else (f"the hint {taken}", expected)
        read_from = f"nothing: the device took the hint {hint} and shows no layers"
    if effective != expected:
        raise MachineError(
            f"OpenVINO would run {build.name} in another precision than it was built for",
            received=effective,
            expected=expected,
        )
    return {
        "precision_effective": effective,
        "precision_read_from": read_from,
        "layers_in_other_precision": others,
    }
