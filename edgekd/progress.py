"""Progress bars with time left for people at a terminal, and nothing at all elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")


class Progress:
    """A group of bars on stderr; silent where stderr is no terminal or ``quiet`` is asked for.

    Use as a context manager; every method is safe to call in the silent form.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._bars: Any = None
        self._visible = sys.stderr.isatty() and not quiet

    def __enter__(self) -> Progress:
        if self._visible:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as RichProgress

            self._bars = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def add(self, description: str, total: int) -> int:
        """Add a bar of ``total`` steps and return its handle."""
        if self._bars is None:
            return 0
        return int(self._bars.add_task(description, total=total, note=""))

    def advance(self, handle: int, steps: int = 1, *, note: str | None = None) -> None:
        """Move a bar by ``steps`` and, where given, change the note at its end."""
        if self._bars is not None:
            if note is None:
                self._bars.update(handle, advance=steps)
            else:
                self._bars.update(handle, advance=steps, note=note)


def track(items: Iterable[Item], description: str, *, quiet: bool = False) -> Iterator[Item]:
    """Yield each of ``items`` (sized) under one bar."""
    total = len(items) if isinstance(items, Sized) else 0
    with Progress(quiet=quiet) as progress:
        handle = progress.add(description, total)
        for item in items:
            yield item
            progress.advance(handle)
