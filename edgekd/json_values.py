"""Numbers that JSON does not know, made into null: the one home of that rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast


def replace_non_finite(value: Any) -> Any:
    """Return a copy of nested dicts and sequences in which NaN and infinities, unknown to JSON, are None."""
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value)
        return {str(key): replace_non_finite(item) for key, item in items.items()}
    if isinstance(value, (list, tuple)):
        return [replace_non_finite(item) for item in cast("list[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
