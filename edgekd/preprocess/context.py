"""One GPU held through pycuda: its primary context, one stream, and the memory that was taken there."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgekd.errors import MachineError
from edgekd.preprocess.device import CudaDevice


class CudaContext:
    """The primary context of a GPU, shared with every other CUDA library of the process, and one stream.

    Everything but the constructor and `close` is to be called inside ``with context.activate()``, which works
    from any thread.

    Attributes:
        driver: the module ``pycuda.driver``.
        device: facts of the GPU.
        stream: the ``pycuda.driver.Stream`` that all work goes to.
    """

    def __init__(self, device: CudaDevice) -> None:
        self.driver = import_pycuda()
        self.device = device
        self.driver.init()
        self._context: Any = self.driver.Device(device.index).retain_primary_context()
        self._allocations: list[Any] = []
        with self.activate():
            self.stream = self.driver.Stream()
            self._event = self.driver.Event()

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
        """Wait for the stream, free all memory and give the primary context back; may be called twice."""
        if self._context is None:
            return
        with self.activate():
            # After a fault in a kernel every call fails; the memory then goes with the context.
            with contextlib.suppress(self.driver.Error):
                self.stream.synchronize()
                while self._allocations:
                    self._allocations.pop().free()
            del self.stream, self._event
        # Dropping the last reference is not enough: pycuda would then end the context as if it had made it.
        self._context.detach()
        self._context = None


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
