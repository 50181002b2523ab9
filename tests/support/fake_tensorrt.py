"""A stand-in for the runtime half of ``tensorrt_rtx``: a plan that runs the tiny student on host memory.

Only what EdgeKD uses, under the library's names; a test compares these names with the real library's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import ALIGNMENT, FakeDriver

PLAN = b"vtrt plan"
Infer = Callable[[np.ndarray], np.ndarray]

FLOAT, HALF, UINT8 = (SimpleNamespace(name=name) for name in ("FLOAT", "HALF", "UINT8"))


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self.input_shape: tuple[int, ...] | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.input_shape = shape
        lowest, highest = self._engine.batches
        return name == "image" and lowest <= shape[0] <= highest and shape[1:] == self._engine.image_shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % ALIGNMENT == 0, "the library wants aligned addresses"
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        if engine.fails:
            engine.logger.log(SimpleNamespace(name="ERROR"), "enqueueV3: out of memory")
            return False
        assert self.input_shape is not None, "a dynamic batch was never fixed"
        image, mask, shape = self._addresses["image"], self._addresses["mask"], self.input_shape
        engine.library.batches_run.append(shape[0])

        def run() -> None:
            size = int(np.prod(shape)) * 4
            engine.driver.check_inside(image, size)
            values = np.frombuffer(ctypes.string_at(image, size), dtype=np.float32)
            result = engine.infer(values.reshape(shape))
            engine.driver.check_inside(mask, result.nbytes)
            ctypes.memmove(mask, result.tobytes(), result.nbytes)

        engine.driver.streams[stream_handle].add(run)
        return True


class FakeEngine:
    num_io_tensors = 2

    def __init__(self, library: FakeTensorRt, logger: Any) -> None:
        self.driver, self.infer, self.image_shape = library.driver, library.infer, library.image_shape
        self.fails, self.logger, self.library = library.fails, logger, library
        self.batches = library.batches

    def get_tensor_name(self, index: int) -> str:
        return ("image", "mask")[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if name == "image" else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Any:
        return self.library.input_dtype if name == "image" else self.library.output_dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.image_shape) if name == "image" else (-1, *self.image_shape[1:])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert (name, profile_index) == ("image", 0)
        lowest, highest = self.batches
        return [(batch, *self.image_shape) for batch in (lowest, lowest, highest)]

    def create_runtime_config(self) -> FakeRuntimeConfig:
        return FakeRuntimeConfig(self.library)

    def create_execution_context(self, runtime_config: Any = None) -> FakeContext:
        self.driver.check_current()
        if runtime_config is not None:
            assert runtime_config.cache is not None
        return FakeContext(self)


class FakeRuntimeConfig:
    def __init__(self, library: FakeTensorRt) -> None:
        self._library = library
        self.cache: FakeRuntimeCache | None = None

    def create_runtime_cache(self) -> FakeRuntimeCache:
        return FakeRuntimeCache(self._library)

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self.cache = cache
        return True


class FakeRuntimeCache:
    def __init__(self, library: FakeTensorRt) -> None:
        self._library = library

    def deserialize(self, blob: bytes) -> bool:
        self._library.caches_read.append(blob)
        return True

    def serialize(self) -> bytes:
        return b"compiled kernels"


class FakeTensorRt:
    """The module itself; ``input_dtype``, ``output_dtype`` and ``fails`` make plans that are refused.

    ``batches`` are the smallest and largest of the plan's profile.
    """

    __version__ = "9.9.9"
    float16 = HALF
    ComputeCapability = IntEnum("ComputeCapability", {"NONE": 0, "CURRENT": 1, "SM86": 86, "SM89": 89})

    class ILogger:
        pass

    def __init__(self, driver: FakeDriver, image_shape: tuple[int, int, int], infer: Infer) -> None:
        self.driver, self.image_shape, self.infer = driver, image_shape, infer
        self.input_dtype, self.output_dtype = FLOAT, UINT8
        self.fails = False
        self.batches = (1, 1)
        self.batches_run: list[int] = []
        self.host_code_allowed: list[bool] = []
        self.caches_read: list[bytes] = []

    def Runtime(self, logger: Any) -> FakeRuntime:  # noqa: N802
        return FakeRuntime(self, logger)


class FakeRuntime:
    engine_host_code_allowed = False

    def __init__(self, library: FakeTensorRt, logger: Any) -> None:
        self._library, self._logger = library, logger

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        self._library.driver.check_current()
        self._library.host_code_allowed.append(self.engine_host_code_allowed)
        if plan != PLAN:
            self._logger.log(SimpleNamespace(name="VERBOSE"), "chatter")
            self._logger.log(SimpleNamespace(name="ERROR"), "deserialize: magic tag does not match")
            return None
        return FakeEngine(self._library, self._logger)
