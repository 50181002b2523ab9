"""A stand-in for ``pycuda.driver`` on host memory, strict about what a GPU would punish.

Work given to a stream waits until the stream or an event on it is waited for: a missing wait is missing data.
A "cubin" is the path of a kernel compiled for the host. Copies outside an allocation, calls without a current
context and launches with wrong arguments fail.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from kernel_shim import call_kernel

ALIGNMENT = 256


class FakeAllocation:
    def __init__(self, driver: FakeDriver, size: int) -> None:
        self._driver = driver
        self.size = size
        self._memory = np.full(size + ALIGNMENT, 0xA5, dtype=np.uint8)
        self.address = -(-self._memory.ctypes.data // ALIGNMENT) * ALIGNMENT

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self._driver.check_current()
        self._driver.allocations.remove(self)


class FakeStream:
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver
        self._work: list[Callable[[], object]] = []
        self.handle = 4096 + len(driver.streams)
        driver.streams[self.handle] = self

    def add(self, work: Callable[[], object]) -> None:
        self._driver.check_current()
        self._work.append(work)

    def synchronize(self) -> None:
        self._driver.check_current()
        while self._work:
            self._work.pop(0)()


class FakeEvent:
    stream: FakeStream

    def record(self, stream: FakeStream) -> FakeEvent:
        self.stream = stream
        return self

    def synchronize(self) -> FakeEvent:
        self.stream.synchronize()
        return self


class FakeContext:
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def push(self) -> None:
        self._driver.depth += 1

    def pop(self) -> None:
        self._driver.depth -= 1

    def detach(self) -> None:
        # In pycuda this leaves the context on the thread's stack, and does nothing from another thread.
        self._driver.detached += 1


class FakeFunction:
    def __init__(self, driver: FakeDriver, library: Path, channels: int) -> None:
        self._driver, self._library, self._channels = driver, library, channels
        self._types = ""

    def prepare(self, types: str) -> FakeFunction:
        self._types = types
        return self

    def prepared_async_call(self, grid: Any, block: Any, stream: FakeStream, *arguments: Any) -> None:
        assert len(grid) == 3 and len(block) == 3
        assert len(arguments) == len(self._types) and all(isinstance(value, int) for value in arguments)
        self._driver.launches.append((self._channels, grid))
        stream.add(lambda: call_kernel(self._library, self._channels, grid, block, self._types, arguments))


class FakeModule:
    def __init__(self, driver: FakeDriver, code: bytes) -> None:
        assert code.endswith(b"\0")
        self._driver, self._library = driver, Path(code.rstrip(b"\0").decode())

    def get_function(self, name: str) -> FakeFunction:
        channels = {"preprocess_gray_frames": 1, "preprocess_color_frames": 3}[name]
        return FakeFunction(self._driver, self._library, channels)


class FakeDriver:
    """The module itself: only what EdgeKD uses, under pycuda's names."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        self.depth = 0
        self.retained = 0
        self.detached = 0
        self.leaked = 0
        self.allocations: list[FakeAllocation] = []
        self.streams: dict[int, FakeStream] = {}
        self.launches: list[tuple[int, tuple[int, int, int]]] = []
        self.pinned_sizes: list[int] = []
        self._pinned: list[weakref.ref[np.ndarray]] = []

    def check_current(self) -> None:
        assert self.depth > 0, "a CUDA call without a current context"

    def init(self) -> None:
        pass

    def Device(self, index: int) -> FakeDriver:  # noqa: N802
        return self

    def retain_primary_context(self) -> FakeContext:
        self.retained += 1
        return FakeContext(self)

    def Stream(self) -> FakeStream:  # noqa: N802
        self.check_current()
        return FakeStream(self)

    def Event(self) -> FakeEvent:  # noqa: N802
        self.check_current()
        return FakeEvent()

    def mem_alloc(self, size: int) -> FakeAllocation:
        self.check_current()
        self.allocations.append(FakeAllocation(self, size))
        return self.allocations[-1]

    def pagelocked_empty(self, shape: Any, dtype: Any) -> np.ndarray:
        self.check_current()
        array = np.full(shape, 0x5A, dtype=dtype)
        self.pinned_sizes.append(array.size)
        self._pinned.append(weakref.ref(array))
        weakref.finalize(array, self._note_unpinned)
        return array

    def memcpy_htod(self, target: Any, source: np.ndarray) -> None:
        self.check_current()
        self.check_inside(int(target), source.nbytes)
        ctypes.memmove(int(target), source.ctypes.data, source.nbytes)

    def memcpy_htod_async(self, target: int, source: np.ndarray, stream: FakeStream) -> None:
        assert self._is_pinned(source), "an asynchronous copy from memory that is not pinned"
        stream.add(lambda: self.memcpy_htod(target, source))

    def memcpy_dtod_async(self, target: int, source: int, size: int, stream: FakeStream) -> None:
        self.check_inside(target, size)
        self.check_inside(source, size)
        stream.add(lambda: ctypes.memmove(target, source, size))

    def memcpy_dtoh_async(self, target: np.ndarray, source: int, stream: FakeStream) -> None:
        assert self._is_pinned(target) and target.flags.c_contiguous
        self.check_inside(source, target.nbytes)
        stream.add(lambda: ctypes.memmove(target.ctypes.data, source, target.nbytes))

    def module_from_buffer(self, code: bytes) -> FakeModule:
        self.check_current()
        return FakeModule(self, code)

    def check_inside(self, address: int, size: int) -> None:
        """Fail unless one live allocation holds the whole range."""
        held = any(a.address <= address and address + size <= a.address + a.size for a in self.allocations)
        assert held, f"{size} bytes at {address:#x} are in no allocation"

    def list_pinned(self) -> list[int]:
        return [id(ref()) for ref in self._pinned if ref() is not None]

    def check_released(self) -> None:
        """Fail unless all memory was given back where pycuda can, and the context is held for good."""
        assert (self.depth, self.allocations, self.list_pinned(), self.leaked) == (0, [], [], 0)
        assert (self.retained, self.detached) in ((0, 0), (1, 0))

    def _note_unpinned(self) -> None:
        # pycuda frees pinned memory only while its context is current.
        self.leaked += self.depth == 0

    def _is_pinned(self, array: np.ndarray) -> bool:
        return any(np.shares_memory(array, pinned) for ref in self._pinned if (pinned := ref()) is not None)
