"""What every engine offers, and the segmenter that guards it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edgekd.bundle import Build, Bundle, choose_build
from edgekd.errors import SegmenterFault, UsageError
from edgekd.preprocess import check_frame, list_frames
from edgekd.runtime.limits import FrameLimits
from edgekd.specs import ClassSpec, PreprocessSpec

STAGES = ("preprocess", "upload", "infer", "download", "postprocess")

Frames = Sequence[npt.NDArray[Any]] | npt.NDArray[Any]
Masks = npt.NDArray[np.uint8]
Stage = Callable[[Any], Any]


@dataclass(frozen=True)
class LoadRequest:
    """What an engine's class is called with, as its only argument.

    Attributes:
        bundle: the opened bundle.
        target, precision: names of the build.
        device: ``CPU``, ``GPU``, ``NPU``, or a name of the engine's own such as ``GPU.1``.
        cache: folder for what the engine may keep between runs; None keeps nothing.
        threads: processor threads of the engine; None leaves it to the engine.
        build: the build where it does not stand under its name yet; None finds it there.
    """

    bundle: Bundle
    target: str
    precision: str
    device: str
    cache: Path | None = None
    threads: int | None = None
    build: Build | None = None

    def find_build(self) -> Build:
        """Return the build to run; errors are those of ``bundle.choose_build``."""
        if self.build is not None:
            return self.build
        return choose_build(self.bundle, self.target, self.precision, self.device)

    def prepare_cache(self) -> Path | None:
        """Return the cache, made where it is not there yet.

        Raises:
            UsageError: it cannot be made, or takes no files.
        """
        if self.cache is not None:
            try:
                self.cache.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=self.cache).close()
            except OSError as error:
                raise UsageError(
                    f"the cache {self.cache} cannot be used",
                    received=error.strerror,
                    expected="a folder that takes new files, or can be made",
                    action="name another one",
                ) from error
        return self.cache


class Engine(Protocol):
    """One engine, made by ``Class(request)``; raises MachineError there if this machine cannot run it.

    Attributes:
        name: what reports call it.
        synchronisation: how a stage's end is known to be the end of its work.
    """

    name: str
    synchronisation: str

    @classmethod
    def find_obstacle(cls, build: Build, device: str) -> str | None:
        """Return why this machine cannot run ``build`` on a device, in capitals, or None if it can."""
        ...

    def stages(self) -> Mapping[str, Stage]:
        """Return the steps in order, named by a subset of STAGES.

        The first takes frames (N of them, checked), each passes its result to the next,
        the last returns masks (N, h, w) uint8. What a stage returns may lie in the engine's own memory
        and holds until the next call; the segmenter copies the masks.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """Return what reports need: versions, device and precision really used; JSON-like."""
        ...

    def close(self) -> None:
        """Free what the engine holds; may be called twice."""
        ...


class Segmenter:
    """Frames in, masks out, by one engine; a context manager that closes it.

    Any thread may call `segment` and `close`. Calls wait for each other: one at a time uses the engine, and
    `close` waits for the call that runs. To compute side by side, load one segmenter a thread. The
    `stages` are for one thread alone: between two of them the engine's memory holds what the first returned.

    After an error inside the engine every further call raises SegmenterFault: what it
    holds is unknown, so nothing of it is returned until it is loaded again.
    """

    def __init__(
        self, engine: Engine, spec: PreprocessSpec, classes: ClassSpec, limits: FrameLimits | None = None
    ) -> None:
        """Guard ``engine``, whose masks have the size and classes given; `edgekd.runtime.load` does this."""
        self.limits = limits or FrameLimits()
        self.engine = engine
        self.spec = spec
        self.classes = classes
        self._lock = threading.RLock()
        self._fault: BaseException | None = None
        self._closed = False
        self._accepted: list[tuple[Any, ...]] = []
        self._stages = {name: self._guard(name, stage) for name, stage in engine.stages().items()}

    @property
    def stages(self) -> Mapping[str, Stage]:
        """The engine's steps in order, for a timer: each takes the result of the one before."""
        return self._stages

    @property
    def status(self) -> Literal["ready", "failed", "closed"]:
        """``ready``; ``failed`` after an error of the engine, for good; ``closed`` after `close`."""
        if self._closed:
            return "closed"
        return "ready" if self._fault is None else "failed"

    @property
    def fault(self) -> BaseException | None:
        """The error of the engine that ended its use, or None."""
        return self._fault

    def segment(self, frames: Frames, out: Masks | None = None) -> Masks:
        """Return the masks (N, h, w) uint8 class ids of N frames.

        Args:
            frames: a sequence of frames, or an array (N, H, W) or (N, H, W, 3), uint8 or uint16
                as the spec says; frames in a sequence may differ in size.
            out: (N, h, w) uint8 array to write the masks into; it is what is returned. None takes a new
                one. After an error it holds what it held before.

        Raises:
            InputError: a frame is not what the spec or the build says, or there is none.
            SegmenterFault: the engine failed, now or earlier.
            UsageError: the segmenter is closed, or ``out`` cannot hold the masks.
        """
        self._check_frames(frames)
        if out is not None:
            self._check_out(out, len(frames))
        with self._lock:
            value: Any = frames
            for stage in self._stages.values():
                value = stage(value)
            masks = self._check_masks(value, len(frames))
            if out is None:
                return np.array(masks)
            np.copyto(out, masks)
            return out

    def close(self) -> None:
        """Free the engine; may be called twice. After a fault what cannot be freed is no error of its own."""
        self._close(quietly=False)

    def __enter__(self) -> Segmenter:
        """Return the segmenter itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine; an error on the way out is not masked by one of closing."""
        self._close(quietly=error is not None)

    def _close(self, *, quietly: bool) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self.engine.close()
            except Exception:
                # After a CUDA fault every further call fails; the first error is the one to tell.
                if self._fault is None and not quietly:
                    raise

    def _check_frames(self, frames: Frames) -> None:
        listed = list_frames(frames)
        kinds = [(type(one), getattr(one, "dtype", None), getattr(one, "shape", None)) for one in listed]
        # Everything that is checked. Cameras send the same kind for ever, and to look again cost 20 to 30 µs
        # where the engine had left nothing in the processor's cache.
        if kinds == self._accepted:
            return
        for frame in listed:
            check_frame(frame, self.spec)
        self.limits.check(listed)
        self._accepted = kinds

    def _check_out(self, out: Masks, count: int) -> None:
        shape = (count, self.spec.height, self.spec.width)
        if not isinstance(out, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError("out is no array", received=type(out).__name__, expected=f"uint8 {shape}")
        if out.dtype != np.uint8 or out.shape != shape or not out.flags.writeable:
            kind = "" if out.flags.writeable else ", read only"
            raise UsageError(
                "the masks do not fit into out",
                received=f"{out.dtype} {out.shape}{kind}",
                expected=f"uint8 {shape}, writeable",
            )

    def _guard(self, name: str, stage: Stage) -> Stage:
        def run(value: Any) -> Any:
            with self._lock:
                self._check_usable()
                try:
                    return stage(value)
                except BaseException as error:
                    self._fault = error
                    if isinstance(error, Exception):
                        raise self._build_fault_error(name) from error
                    raise

        return run

    def _check_usable(self) -> None:
        if self._closed:
            raise UsageError("the segmenter is closed", action="load it again with edgekd.runtime.load")
        if self._fault is not None:
            raise self._build_fault_error("an earlier call") from self._fault

    def _build_fault_error(self, place: str) -> SegmenterFault:
        fault = self._fault
        return SegmenterFault(
            f"the engine {self.engine.name} failed in {place}",
            received=f"{type(fault).__name__}: {fault}",
            action="load it again with edgekd.runtime.load; no mask is returned until then",
        )

    def _check_masks(self, masks: Any, count: int) -> Masks:
        shape = (count, self.spec.height, self.spec.width)
        dtype = getattr(masks, "dtype", None)
        if dtype != np.uint8 or masks.shape != shape:
            found = f"{dtype} {getattr(masks, 'shape', '')}"
            self._fault = ValueError(f"masks are {found}, not uint8 {shape}")
            raise self._build_fault_error("its result")
        return masks
