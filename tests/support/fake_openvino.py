"""OpenVINO as it is where an Intel GPU and an NPU are; the processor computes what they are given.

As in the library's plugins: the runtime model of a GPU leaves constants out, so that no layer shows its
weights; that of an NPU shows no layers at all, and it takes the hints f16 and i8 and fixed shapes alone.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

# The processor's are few, so that a test does not depend on which processor runs it.
CAPABILITIES = {"CPU": ["FP32", "INT8"], "GPU": ["FP32", "FP16", "INT8"], "NPU": ["FP16", "INT8"]}


class FakeDevices:
    """Stands for ``openvino.Core``.

    Attributes:
        present: names of the devices.
        truthful: whether devices compute as the hint asks; else they say they took ``f32``.
        broken: whether no device compiles anything.
    """

    real: Any = None
    present: tuple[str, ...] = ("CPU", "GPU.0", "GPU.1", "NPU")
    truthful = True
    broken = False

    def __init__(self) -> None:
        """Wrap the library's own."""
        self._core = FakeDevices.real()
        self.available_devices = list(FakeDevices.present)

    def get_property(self, device: str, name: str) -> Any:
        """Return what the device is said to be."""
        family = device.partition(".")[0]
        if name == "OPTIMIZATION_CAPABILITIES":
            return CAPABILITIES[family]
        return self._core.get_property(device, name) if family == "CPU" else f"Intel {family}"

    def read_model(self, *arguments: Any) -> Any:
        """Return the graph."""
        return self._core.read_model(*arguments)

    def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> Any:
        """Compile for the processor in float32, under the rules of the device."""
        family = device.partition(".")[0]
        if family == "CPU":
            return self._core.compile_model(model, device, options)
        if FakeDevices.broken:
            raise RuntimeError("clBuildProgram: out of resources")
        hint = options["INFERENCE_PRECISION_HINT"]
        if "INFERENCE_NUM_THREADS" in options:
            raise RuntimeError("Unsupported configuration key: INFERENCE_NUM_THREADS")
        if family == "NPU" and hint not in ("f16", "i8"):
            raise RuntimeError(f"Wrong value {hint} for property key INFERENCE_PRECISION_HINT")
        if family == "NPU" and model.is_dynamic():
            raise RuntimeError("to_shape was called on a dynamic shape.")
        compiled = self._core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return _Compiled(compiled, model, family, hint if FakeDevices.truthful else "f32")


class _Compiled:
    def __init__(self, compiled: Any, model: Any, family: str, hint: str) -> None:
        self._compiled, self._model, self._family, self._hint = compiled, model, family, hint
        self.create_infer_request = compiled.create_infer_request

    def get_property(self, name: str) -> Any:
        assert name == "INFERENCE_PRECISION_HINT"
        return SimpleNamespace(get_type_name=lambda: self._hint)

    def get_runtime_model(self) -> Any:
        operations = [] if self._family == "NPU" else [_Primitive(one, self._hint) for one in self._list()]
        return SimpleNamespace(get_ordered_ops=lambda: operations)

    def _list(self) -> list[Any]:
        kinds = ("Convolution", "MatMul")
        return [one for one in self._model.get_ordered_ops() if one.get_type_name() in kinds]

    def __call__(self, inputs: Any) -> Any:
        return self._compiled(inputs)


class _Primitive:
    """A primitive of a GPU's runtime model: named, with its precision, without weights."""

    def __init__(self, operation: Any, precision: str) -> None:
        kind = {"MatMul": "Gemm"}.get(operation.get_type_name(), operation.get_type_name())
        name = operation.get_friendly_name()
        told = {"layerType": kind, "runtimePrecision": precision, "originalLayersNames": name}
        self._info = {key: SimpleNamespace(value=value) for key, value in told.items()}
        self._name = name

    def get_friendly_name(self) -> str:
        return self._name

    def get_rt_info(self) -> Any:
        return self._info

    def inputs(self) -> list[Any]:
        return []
