"""What must be equal for a run to be continued: every choice, and every byte of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.errors import InputError, IntegrityError, UsageError

CONFIG_FILE = "config.json"
_MISSING = "not there"


def check_same_choices(out: Path, choices: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the key, where a choice differs from the run's."""
    recorded = _read_config(out)
    recorded.pop("data_sha256", None)
    change = find_change(recorded, json.loads(json.dumps(dict(choices))))
    if change is not None:
        key, before, now = change
        raise UsageError(
            f"the run {out} cannot be continued with another {key.removeprefix('config.')}",
            received=now,
            expected=before,
            action="use the former value, or begin a new run",
        )


def check_same_data(out: Path, sha256: Mapping[str, str]) -> None:
    """Raise InputError, naming the split, where the data differs from the run's."""
    change = find_change(_read_config(out)["data_sha256"], dict(sha256))
    if change is not None:
        split, before, now = change
        raise InputError(
            f"the {split} split changed since the run {out} began",
            received=f"sha256 {now[:12]}…",
            expected=f"{before[:12]}…",
            action="restore the files, or begin a new run",
        )


def find_change(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Return the first key (dots lead into tables) whose value differs, and both values."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return None if before == now else (key, before, now)
    for name in [*before, *(name for name in now if name not in before)]:
        inner = f"{key}.{name}" if key else str(name)
        change = find_change(before.get(name, _MISSING), now.get(name, _MISSING), inner)
        if change is not None:
            return change
    return None


def _read_config(out: Path) -> dict[str, Any]:
    try:
        return json.loads((out / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{out / CONFIG_FILE} is damaged", received=error) from error
