"""How far TensorRT's builder is, from the library's own monitor to the bars of a terminal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from edgekd.progress import Progress


def create_monitor(library: Any, progress: Progress) -> Any:
    """Return an ``IProgressMonitor`` that draws one bar for each outermost phase, inner phases as its note.

    Where its attribute ``interrupted`` is set the build stops at its next step.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        progress: an open group of bars.
    """

    class Monitor(library.IProgressMonitor):
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.interrupted = False
            self.bars: dict[str, int] = {}
            self.left: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.bars[phase] = progress.add(phase, steps)
                self.left[phase] = steps
            else:
                for bar in self.bars.values():
                    progress.advance(bar, 0, note=phase)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self.bars:
                self.left[phase] -= 1
                progress.advance(self.bars[phase])
            return not self.interrupted

        def phase_finish(self, phase: str) -> None:
            # The library may end a phase before it has told all of its steps.
            if phase in self.bars:
                progress.advance(self.bars.pop(phase), self.left.pop(phase), note="")

    return Monitor()


@contextlib.contextmanager
def hold_interrupts(monitor: Any) -> Iterator[None]:
    """Let Ctrl-C mark the monitor instead of raising: the library swallows what its callbacks raise."""
    if threading.current_thread() is not threading.main_thread():
        # Signals are handled in the main thread alone.
        yield
        return

    def mark(*_: object) -> None:
        monitor.interrupted = True

    before = signal.signal(signal.SIGINT, mark)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
