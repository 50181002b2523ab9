"""Colour frames of 8 bits, as grabbers and OpenCV deliver them, as luma, by OpenVINO on all cores it may use.

NumPy takes 2.5 ms for 1024 by 768 pixels on one core, a quarter of what the default student takes in int8 and
more than all of it with AMX. With AVX2 this takes half of that on two cores; without, twice as long as NumPy.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.preprocess.reference import LUMA_BLUE, LUMA_GREEN, LUMA_RED
from edgekd.specs import PreprocessSpec

# Each holds a copy of a frame.
_MOST_SIZES = 4


class LumaWriter:
    """Writes exactly what `edgekd.preprocess.convert_to_gray` returns; the first of a size takes longer.

    Args:
        core: openvino.Core.
        spec: the order of the channels.
        threads: processor threads; None leaves it to the library.
    """

    def __init__(self, core: Any, spec: PreprocessSpec, threads: int | None) -> None:
        self._core: Any = core
        self._is_rgb = spec.frame_order == "rgb"
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._wrap: Any = importlib.import_module("openvino").Tensor
        self._requests: dict[tuple[int, ...], Any] = {}

    def __call__(self, frame: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> None:
        """Write the luma of (H, W, 3) into (H, W), both contiguous and writeable."""
        request = self._requests.get(frame.shape)
        if request is None:
            if len(self._requests) == _MOST_SIZES:
                del self._requests[next(iter(self._requests))]
            graph = _build_graph(frame.shape, self._is_rgb)
            request = self._core.compile_model(graph, "CPU", self._options).create_infer_request()
            self._requests[frame.shape] = request
        request.set_output_tensor(self._wrap(target, shared_memory=True))
        request.infer([frame], share_inputs=True, share_outputs=True)

    def close(self) -> None:
        """Drop the library's objects: in a cycle of the engine's they would be freed by the collector.

        Freed so, they leave the main thread a signal stack that is gone, and the next signal crashes.
        """
        self._requests.clear()
        self._core = None


def _build_graph(shape: tuple[int, ...], is_rgb: bool) -> Any:
    """Return the graph (H, W, 3) uint8 → (H, W) uint8.

    Floats of 24 bits hold all of its values: at most 255.5, in steps of 2 to the power of -16.
    """
    openvino: Any = importlib.import_module("openvino")
    ops: Any = importlib.import_module("openvino.opset8")
    frame = ops.parameter(shape, np.uint8)
    # As four axes the library turns them 3 to 8 times as fast as with three or two.
    planes = ops.transpose(ops.unsqueeze(frame, np.int64(0)), np.array([0, 3, 1, 2]))
    luma = np.float32(0.5)
    weights = (LUMA_RED, LUMA_GREEN, LUMA_BLUE) if is_rgb else (LUMA_BLUE, LUMA_GREEN, LUMA_RED)
    for plane, weight in zip(ops.split(planes, np.int64(1), 3).outputs(), weights, strict=True):
        luma = ops.add(ops.multiply(ops.convert(plane, "f32"), np.float32(weight / 65536)), luma)
    luma = ops.convert(ops.floor(luma), "u8")
    return openvino.Model([ops.reshape(luma, np.array(shape[:2]), special_zero=False)], [frame])
