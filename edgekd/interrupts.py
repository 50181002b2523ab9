"""Ctrl-C, remembered: a library that is interrupted while it loads may raise another error, or none."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_pressed = threading.Event()


@contextlib.contextmanager
def remembered_interrupts() -> Iterator[None]:
    """Remember Ctrl-C in the block, beside raising KeyboardInterrupt; other handlers are left as they are."""
    _pressed.clear()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def check_interrupt() -> None:
    """Raise KeyboardInterrupt where Ctrl-C was pressed before: no verdict may follow on one that was lost."""
    if _pressed.is_set():
        raise KeyboardInterrupt


def _remember(signum: int, frame: Any) -> None:
    _pressed.set()
    signal.default_int_handler(signum, frame)
