"""How far TensorRT's builder is, from the library's own monitor to the bars of a terminal."""

from __future__ import annotations

from typing import Any

from edgekd.progress import Progress


def create_monitor(library: Any, progress: Progress) -> Any:
    """Return an ``IProgressMonitor`` that draws one bar for each outermost phase, inner phases as its note.

    Its attribute ``interrupted`` is set by Ctrl-C, which stops the build at its next step: an exception must
    not travel through the library.

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
            try:
                if phase in self.bars:
                    self.left[phase] -= 1
                    progress.advance(self.bars[phase])
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase: str) -> None:
            # The library may end a phase before it has told all of its steps.
            if phase in self.bars:
                progress.advance(self.bars.pop(phase), self.left.pop(phase), note="")

    return Monitor()
