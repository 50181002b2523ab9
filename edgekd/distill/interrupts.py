"""Ctrl-C between steps and not inside one, on every process after the same step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
from lightning_fabric import Fabric


class HurriedInterrupt(KeyboardInterrupt):
    """A second Ctrl-C, that did not wait for the step to end."""


class Interrupts:
    """Holds Ctrl-C back until it is asked for; a second one raises HurriedInterrupt at once.

    Use as a context manager, which at its end raises what was held back. Only the main thread can hold
    signals back; elsewhere nothing changes.

    Args:
        fabric: its processes stop together, whichever of them was told to.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric, self._previous = fabric, None
        self._pending = self._allowed = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous: Any = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if self._pending and error is None:
            raise KeyboardInterrupt

    def stop_if_asked(self) -> None:
        """Raise KeyboardInterrupt where Ctrl-C was pressed, on any process; every process must ask."""
        if self._ask_all():
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let Ctrl-C raise at once in this block, unless other processes would wait for this one then."""
        if self._fabric.world_size > 1:
            yield
            return
        self.stop_if_asked()
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False

    def _ask_all(self) -> bool:
        if self._fabric.world_size == 1:
            return self._pending
        flag = torch.tensor(float(self._pending), device=self._fabric.device)
        return bool(torch.as_tensor(self._fabric.all_reduce(flag, reduce_op="sum")) > 0)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self._pending:
            raise HurriedInterrupt
        self._pending = True
        if self._allowed:
            raise KeyboardInterrupt
