"""Reading the small files in which Linux tells facts; what cannot be read is no fact."""

from __future__ import annotations

import re
from pathlib import Path


def read_text(path: Path) -> str:
    """Return the text without blanks around it, empty where it cannot be read: sensors may refuse."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def read_int(path: Path) -> int | None:
    """Return the integer a file holds, None where there is none."""
    text = read_text(path)
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def read_number(path: Path) -> float | None:
    """Return the number a file holds, None where there is none."""
    try:
        return float(read_text(path))
    except ValueError:
        return None
