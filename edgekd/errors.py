"""Every error that EdgeKD raises on purpose, and the exit code each one ends with.

EdgeKDError                  70  an internal error unless a subclass says otherwise
├── UsageError                2  an option, name or combination that cannot be meant
├── InputError                2  a file, folder or array that cannot be read as what it should be
├── GateFailure               1  a check ran and its answer is no
├── MachineError              3  this machine lacks a backend, device, precision, memory or disk space
├── IntegrityError            4  a file is not what its record says, or is newer than this program
└── SegmenterFault           70  an engine failed while running; it must be loaded again
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgeKDError(Exception):
    """What failed, what was received, what was expected and what to do next.

    Args:
        what: the failure, as one clause without a full stop.
        received: what was found, shown as text.
        expected: what would have been accepted.
        action: the next step for the reader, usually a command.
    """

    exit_code = 70

    def __init__(
        self,
        what: str,
        *,
        received: object = None,
        expected: object = None,
        action: str | None = None,
    ) -> None:
        self.what = what
        self.received = received
        self.expected = expected
        self.action = action
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.received is not None:
            text += f": received {self.received}"
        if self.expected is not None:
            text += f"{',' if self.received is not None else ':'} expected {self.expected}"
        if self.action is not None:
            text += f". Next: {self.action}"
        return text


class UsageError(EdgeKDError):
    """An option, a name or a combination of them that cannot be meant."""

    exit_code = 2


class InputError(EdgeKDError):
    """A file, folder or array that cannot be read as what it should be."""

    exit_code = 2


class GateFailure(EdgeKDError):
    """A check ran to its end and its answer is no."""

    exit_code = 1


class MachineError(EdgeKDError):
    """This machine lacks a backend, a device, a precision, memory or disk space."""

    exit_code = 3


class IntegrityError(EdgeKDError):
    """A file is not what its record says, or was written by a newer program."""

    exit_code = 4


class SegmenterFault(EdgeKDError):
    """An engine failed while running; the segmenter must be loaded again."""


def build_unknown_name_error(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not in a catalogue, offering the nearest one.

    Args:
        kind: what the name should name, for example ``"network"``.
        name: the name received.
        known: every name that would have been accepted.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    action = f"did you mean {nearest[0]!r}?" if nearest else None
    return UsageError(
        f"unknown {kind}", received=repr(name), expected="one of " + ", ".join(names), action=action
    )
