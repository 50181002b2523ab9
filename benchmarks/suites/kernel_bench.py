"""The preprocessing kernel of one specification on the GPU, as the suites measure it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.export.kernels import compile_kernels
from edgekd.preprocess.context import CudaContext
from edgekd.preprocess.device import CudaDevice
from edgekd.preprocess.launcher import FrameStaging, KernelLauncher
from edgekd.specs import PreprocessSpec


class KernelBench:
    """One specification's kernel on the GPU, with room for a batch of frames.

    Args:
        device: the GPU.
        spec: the steps.
        half: write IEEE half precision.
    """

    def __init__(self, device: CudaDevice, spec: PreprocessSpec, *, half: bool = False) -> None:
        self.spec, self._dtype = spec, np.float16 if half else np.float32
        build = compile_kernels(spec, [device.architecture], half=half)
        self.cuda = CudaContext(device)
        with self.cuda.activate():
            self._staging = FrameStaging(self.cuda)
            self._launcher = KernelLauncher(self.cuda, spec, build.facts, build.files.__getitem__, "")
        self._images: Any = None

    def upload(self, frames: NDArray[Any]) -> None:
        """Copy frames to the GPU and make room for their tensors."""
        elements = self.spec.channels * self.spec.height * self.spec.width
        self._shape = (len(frames), self.spec.channels, self.spec.height, self.spec.width)
        with self.cuda.activate():
            (self._group,) = self._staging.copy_frames(list(frames))
            self._staging.upload()
            if self._images is not None:
                self.cuda.release(self._images)
            self._images = self.cuda.allocate(len(frames) * elements * np.dtype(self._dtype).itemsize)
            self.cuda.synchronize()

    def launch(self) -> None:
        """Queue the kernel on all frames; the context must be active."""
        elements = int(np.prod(self._shape[1:]))
        frames = int(self._staging.device_memory)
        self._launcher.launch(frames, self._group, int(self._images), elements)

    def download(self) -> NDArray[Any]:
        """Return the tensors (N, C, h, w)."""
        with self.cuda.activate():
            pinned = self.cuda.pin(self._shape, self._dtype)
            self.cuda.driver.memcpy_dtoh_async(pinned, int(self._images), self.cuda.stream)
            self.cuda.synchronize()
            found = np.array(pinned)
            del pinned  # pycuda frees it while the context is active
            return found

    def close(self) -> None:
        """Give everything back."""
        with self.cuda.activate():
            self._launcher.close()
            self._staging.close()
        self.cuda.close()
