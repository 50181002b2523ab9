"""ONNX Runtime as it is where CUDA is; the processor computes in CUDA's place."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from edgekd.preprocess.device import CudaDevice

CUDA, PROCESSOR = "CUDAExecutionProvider", "CPUExecutionProvider"
GPUS = [CudaDevice(index, "RTX 3060", 86, (13, 0)) for index in range(2)]


class CudaSession:
    """A session of CUDA's: what works out shapes, and operators in ``left``, is given to the processor.

    Attributes:
        left: types of operators.
        start: the library's own class.
        started: what the last session was started with.
    """

    left: tuple[str, ...] = ()
    start: Any = None
    started: ClassVar[dict[str, Any]] = {}

    def __init__(self, graph: bytes, sess_options: Any, choices: dict[str, Any]) -> None:
        """Start it on the processor, which computes in CUDA's place."""
        CudaSession.started = choices
        self._session = CudaSession.start(graph, sess_options, providers=[PROCESSOR])
        self.io_binding, self.run = self._session.io_binding, self._session.run

    def get_providers(self) -> list[str]:
        return [CUDA, PROCESSOR]

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        parts = self._session.get_provider_graph_assignment_info()
        nodes = [node for part in parts for node in part.get_nodes()]
        assert any("Conv" in node.op_type for node in nodes)

        def is_left(node: Any) -> bool:
            return node.op_type in ("Shape", *self.left) or node.name.startswith("preprocess/matmul")

        left = [node for node in nodes if is_left(node)]
        others = [node for node in nodes if not is_left(node)]
        return [
            SimpleNamespace(ep_name=PROCESSOR, get_nodes=lambda: left),
            SimpleNamespace(ep_name=CUDA, get_nodes=lambda: others),
        ]


def offer_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library offer CUDA, and the driver two GPUs; sessions stay what they are."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CUDA, PROCESSOR])
    monkeypatch.setattr("edgekd.runtime.onnx.find_device", lambda index: GPUS[index])


def start_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sessions start on CUDA too."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not tell where nodes run")
    offer_cuda(monkeypatch)
    monkeypatch.setattr(CudaSession, "start", onnxruntime.InferenceSession)
    monkeypatch.setattr(onnxruntime, "InferenceSession", _start)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda level: None)
    # The probe of the graph's format asks no CUDA.
    monkeypatch.setattr("edgekd.runtime.onnx._find_unread", lambda *_: None)


def _start(graph: bytes, sess_options: Any, providers: list[Any], **choices: Any) -> Any:
    if CUDA not in (providers[0], providers[0][0]):
        return CudaSession.start(graph, sess_options, providers=providers, **choices)
    return CudaSession(graph, sess_options, {"providers": providers, **choices})
