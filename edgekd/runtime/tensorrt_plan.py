"""A TensorRT plan made ready to run: deserialised, its tensors checked, its execution context."""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path
from typing import Any

from edgekd.atomic import write_bytes_atomic
from edgekd.errors import EdgeKDError, IntegrityError, MachineError, SegmenterFault
from edgekd.runtime.tensorrt_library import PACKAGES, MessageLog, create_runtime

# What setTensorAddress of the library promises to accept.
ADDRESS_ALIGNMENT_BYTES = 256


class PlanRunner:
    """One plan with one image in and one mask out, run on a stream; needs a current CUDA context throughout.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        target: its target name.
        plan: the raw plan.
        image_shape: (C, h, w) of the tensor the plan must take.
        cache: folder for what TensorRT-RTX compiles on the device; None compiles again at every start.
        rebuild: the command that makes the build anew, for messages.
        host_code: the plan is version compatible and brings code for the processor, which is to be run. Only
            for files whose hash was checked.

    Attributes:
        half: the plan takes half precision instead of float.
        lowest_batch, highest_batch: the batch sizes that its profile allows.

    Raises:
        MachineError: the plan cannot be deserialised here; the message carries the library's log.
        IntegrityError: its tensors are not those of an engine graph.
    """

    def __init__(
        self,
        library: Any,
        target: str,
        plan: bytes,
        image_shape: tuple[int, int, int],
        *,
        cache: Path | None,
        rebuild: str,
        host_code: bool = False,
    ) -> None:
        self._log = MessageLog(library)
        self._cache_file = self._name_cache_file(cache, plan) if target == "tensorrt-rtx" else None
        self._runtime_cache: Any = None
        self._context: Any = None
        self._batch = 0
        self._image_shape = image_shape
        self.image_elements = math.prod(image_shape)
        self._runtime: Any = create_runtime(library, self._log, host_code=host_code)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise MachineError(
                f"{PACKAGES[target]} cannot load the engine",
                received=self._log.format_errors(),
                action=rebuild,
            )
        try:
            self._input, self._output = self._check_tensors(library, image_shape)
            self.half: bool = self._engine.get_tensor_dtype(self._input) == library.float16
            self.lowest_batch, self.highest_batch = self._read_batches()
            self._context = self._create_context()
        except BaseException:
            self._release()
            raise

    def enqueue(self, image: int, mask: int, stream: int, count: int = 1) -> None:
        """Queue one inference of a batch on a stream.

        Args:
            image: GPU address of the tensors (batch, C, h, w), a multiple of ADDRESS_ALIGNMENT_BYTES.
            mask: GPU address of the masks (batch, h, w) uint8, likewise.
            stream: handle of the CUDA stream.
            count: images that are meant, at most ``highest_batch``. The batch has ``lowest_batch`` at least:
                memory for these is needed, and what is in the further ones does not matter.

        Raises:
            SegmenterFault: the library refuses; the message carries its log.
        """
        context = self._context
        batch = max(count, self.lowest_batch)
        accepted = (
            (batch == self._batch or context.set_input_shape(self._input, (batch, *self._image_shape)))
            and context.set_tensor_address(self._input, image)
            and context.set_tensor_address(self._output, mask)
            and context.execute_async_v3(stream)
        )
        if not accepted:
            raise SegmenterFault("TensorRT did not start the inference", received=self._log.format_errors())
        self._batch = batch

    def close(self) -> None:
        """Keep what was compiled, where a cache is given, and free the plan; may be called twice."""
        try:
            if self._runtime_cache is not None and self._cache_file is not None:
                write_bytes_atomic(self._cache_file, bytes(self._runtime_cache.serialize()))
        except (EdgeKDError, OSError) as error:
            # The masks are there already: only the next start is slower.
            warnings.warn(f"the cache of TensorRT-RTX was not written: {error}", RuntimeWarning, stacklevel=2)
        finally:
            self._release()

    def _release(self) -> None:
        # The library wants them gone in this order.
        self._runtime_cache = None
        self._context = None
        self._engine = None
        self._runtime = None

    def _check_tensors(self, library: Any, image_shape: tuple[int, int, int]) -> tuple[str, str]:
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {
            name: (engine.get_tensor_mode(name).name, engine.get_tensor_dtype(name).name) for name in names
        }
        inputs = [name for name in names if found[name] in (("INPUT", "FLOAT"), ("INPUT", "HALF"))]
        outputs = [name for name in names if found[name] == ("OUTPUT", "UINT8")]
        if len(names) != 2 or len(inputs) != 1 or len(outputs) != 1:
            raise IntegrityError(
                "the plan is no engine graph",
                received=f"tensors {found}",
                expected="one image in (FLOAT or HALF) and one mask out (UINT8)",
            )
        # A free batch stays -1 whatever the profile is.
        shape = tuple(engine.get_tensor_shape(inputs[0]))
        if shape[1:] != image_shape or shape[0] not in (-1, 1):
            raise IntegrityError(
                "the plan was built for another tensor", received=shape, expected=(1, *image_shape)
            )
        return inputs[0], outputs[0]

    def _read_batches(self) -> tuple[int, int]:
        if self._engine.get_tensor_shape(self._input)[0] != -1:
            return 1, 1
        lowest, _, highest = self._engine.get_tensor_profile_shape(self._input, 0)
        return lowest[0], highest[0]

    def _create_context(self) -> Any:
        if self._cache_file is None:
            context = self._engine.create_execution_context()
        else:
            config = self._engine.create_runtime_config()
            self._runtime_cache = config.create_runtime_cache()
            # A cache of another driver or GPU is refused by the library and then written anew.
            if self._cache_file.is_file():
                self._runtime_cache.deserialize(self._cache_file.read_bytes())
            config.set_runtime_cache(self._runtime_cache)
            context = self._engine.create_execution_context(config)
        if context is None:
            raise MachineError("TensorRT cannot prepare the engine", received=self._log.format_errors())
        return context

    def _name_cache_file(self, cache: Path | None, plan: bytes) -> Path | None:
        return (
            None if cache is None else cache / f"tensorrt-rtx-{hashlib.sha256(plan).hexdigest()[:16]}.cache"
        )


def align_bytes(size_bytes: int) -> int:
    """Return the next multiple of ADDRESS_ALIGNMENT_BYTES."""
    return -(-size_bytes // ADDRESS_ALIGNMENT_BYTES) * ADDRESS_ALIGNMENT_BYTES
