"""One GPU held through pycuda: its primary context, one stream, and the memory that was taken there."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgekd.errors import MachineError
from edgekd.preprocess.device import CudaDevice

_held: dict[tuple[Any, int], Any] = {}
_lock = threading.Lock()


class CudaContext:
    """The primary context of a GPU, shared with every other CUDA library of the process, and one stream.

    The context itself is held until the process ends, as the CUDA runtime holds it too. Everything but the
    constructor and `close` is to be called inside ``with context.activate()``, which works from any thread.

    Attributes:
        driver: the module ``pycuda.driver``.
        device: facts of the GPU.
        stream: the ``pycuda.driver.Stream`` that all work goes to.

    Raises:
        MachineError: pycuda or a driver is missing, or the GPU takes no work (it is full, or another's).
    """

    def __init__(self, device: CudaDevice) -> None:
        self.driver = import_pycuda()
        self.device = device
        self._allocations: list[Any] = []
        self._is_open = True
        try:
            self.driver.init()
            self._context: Any = _hold_primary_context(self.driver, device.index)
            with self.activate():
                self.stream = self.driver.Stream()
                self._event = self.driver.Event()
        except self.driver.Error as error:
            raise MachineError(
                f"{device.name} cannot be used",
                received=str(error),
                action="nvidia-smi shows what holds the GPU and its memory: end that, or take another; "
                "after a fault of the GPU start this process anew",
            ) from error

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make the context current in this thread, and what was current before again afterwards."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, size_bytes: int) -> Any:
        """Return ``size_bytes`` of GPU memory, freed by `close` or `release`; ``int()`` gives its address."""
        allocation = self.driver.mem_alloc(size_bytes)
        self._allocations.append(allocation)
        return allocation

    def release(self, allocation: Any) -> None:
        """Free memory of `allocate` before the end."""
        self._allocations.remove(allocation)
        allocation.free()

    def pin(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialised page-locked host array, which copies to and from the GPU asynchronously."""
        return self.driver.pagelocked_empty(shape, dtype)

    def upload(self, values: NDArray[Any]) -> Any:
        """Copy a contiguous array to newly allocated GPU memory and wait for it."""
        allocation = self.allocate(values.nbytes)
        self.driver.memcpy_htod(allocation, np.ascontiguousarray(values))
        return allocation

    def synchronize(self) -> None:
        """Record an event on the stream and wait for it: all work given to the stream before is then done."""
        self._event.record(self.stream).synchronize()

    def close(self) -> None:
        """Wait for the stream and free all memory, from any thread; may be called twice."""
        if not self._is_open:
            return
        self._is_open = False
        with self.activate():
            # After a fault in a kernel every call fails; the memory then goes with the context.
            with contextlib.suppress(self.driver.Error):
                self.stream.synchronize()
                while self._allocations:
                    self._allocations.pop().free()
            del self.stream, self._event


def _hold_primary_context(driver: Any, index: int) -> Any:
    """Return pycuda's one object for a GPU's primary context.

    Giving it back before the end of the process would leave it on the stack of the calling thread's contexts,
    from another thread pycuda would not give it back at all, and dropped without `detach` it would be ended
    as if pycuda had made it.
    """
    with _lock:
        if (driver, index) not in _held:
            context = driver.Device(index).retain_primary_context()
            atexit.register(context.detach)
            _held[driver, index] = context
        return _held[driver, index]


def import_pycuda() -> Any:
    """Return the module ``pycuda.driver``, imported now.

    Raises:
        MachineError: it is not installed, or finds no driver.
    """
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise MachineError(
            "pycuda, which runs the CUDA preprocessing, cannot be used here",
            received=str(error),
            action='pip install "edgekd[cuda]" (it compiles against the CUDA toolkit of this machine)',
        ) from error
