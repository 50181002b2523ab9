"""Reading a configuration: a file, options over it, and errors in words of the configuration."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from pydantic import ValidationError

from edgekd.errors import InputError, UsageError, build_unknown_name_error
from edgekd.specs import Spec

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

AnyConfig = TypeVar("AnyConfig", bound=Spec)


def load_config(
    kind: type[AnyConfig], path: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> AnyConfig:
    """Return the configuration from defaults, then a file, then overrides.

    Args:
        kind: TrainConfig, DistillConfig, or any other frozen model of choices.
        path: TOML or JSON file; None for none.
        overrides: key → value; a dot leads into a table (``augment.noise``); None means not given.

    Raises:
        InputError: the file is missing or cannot be parsed.
        UsageError: an unknown key (the nearest is named) or a value out of range.
    """
    values: dict[str, Any] = {} if path is None else _read_file(path)
    for key, value in (overrides or {}).items():
        if value is not None:
            _set_nested(values, key.split("."), value)
    return build_config(kind, values)


def build_config(kind: type[AnyConfig], values: Mapping[str, Any]) -> AnyConfig:
    """Return ``kind(**values)``, turning the first complaint into a UsageError."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(kind, error.errors()) from error


def _explain(kind: type[Spec], complaints: Sequence[ErrorDetails]) -> UsageError:
    """Return the error that says what pydantic complains of first, in words of the configuration.

    A key that does not exist comes before one that is missing, which may be the same one misspelt. Of a
    union's branches the one counts that got furthest, or all that got as far.
    """
    unknown = [one for one in complaints if one["type"] == "extra_forbidden"]
    named = [(_name_key(kind, one["loc"]), one) for one in unknown or complaints]
    first = [(key, one) for key, one in named if key.split(".")[0] == named[0][0].split(".")[0]]
    key, complaint = max(first, key=lambda pair: pair[0].count("."))
    messages = [_describe_complaint(one) for other, one in first if other == key]
    expected = " or ".join(dict.fromkeys(messages))
    if key.split(".")[0].endswith("_options"):
        expected = "a number, a text, true or false"
    if complaint["type"] == "extra_forbidden":
        return build_unknown_name_error("configuration key", key, _list_keys(kind))
    if complaint["type"] == "missing":
        return UsageError(f"the configuration key {key!r} is missing", expected="a value")
    received = complaint["input"]
    if isinstance(received, float) and math.isnan(received):
        expected = "a finite number"
    elif complaint["type"] in ("model_type", "dict_type"):
        expected = _describe_table(kind, key)
    return UsageError(
        f"the configuration key {key!r} has a bad value", received=repr(received), expected=expected
    )


def _describe_complaint(complaint: Mapping[str, Any]) -> str:
    """Return what would have been accepted; of a list of the wrong length the library speaks of tuples."""
    limits = complaint.get("ctx", {})
    if complaint["type"] in ("too_short", "too_long"):
        words = {"min_length": "at least", "max_length": "at most"}
        word, count = next((words[name], limits[name]) for name in words if name in limits)
        return f"{word} {count} item{'' if count == 1 else 's'}"
    return complaint["msg"].removeprefix("Input should be ")


def _name_key(kind: type[Spec], place: Sequence[str | int]) -> str:
    """Return a place in the configuration as keys with dots, without the names of a union's branches."""
    parts: list[str] = []
    inner: type[Spec] | None = kind
    for part in place:
        if inner is not None:
            parts.append(str(part))
            inner = _enter_table(inner, str(part))
        elif isinstance(part, int) or (parts[-1].endswith("_options") and len(parts) == 1):
            parts.append(str(part))
    return ".".join(parts)


def _describe_table(kind: type[Spec], key: str) -> str:
    """Return what a table at a key with dots holds."""
    inner: type[Spec] | None = kind
    for part in key.split("."):
        inner = None if inner is None else _enter_table(inner, part)
    return "a table of keys and values" + ("" if inner is None else ": " + ", ".join(inner.model_fields))


def _enter_table(kind: type[Spec], key: str) -> type[Spec] | None:
    """Return the model of the table at a key; None where there is no key, or no table."""
    field = kind.model_fields.get(key)
    return None if field is None else _find_table(field.annotation)


def _find_table(annotation: Any) -> type[Spec] | None:
    """Return the model of a field that is a table, or a table or nothing; None for any other field."""
    # `list[int]` passes for a class in Python 3.10.
    choices = [one for one in (annotation, *get_args(annotation)) if get_origin(one) is None]
    return next((one for one in choices if isinstance(one, type) and issubclass(one, Spec)), None)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"the configuration {path} cannot be read",
            received="no such file",
            action="name an existing TOML or JSON file, or leave --config out for the defaults",
        ) from error
    except OSError as error:
        raise InputError(
            f"the configuration {path} cannot be read",
            received=(error.strerror or str(error)).lower(),
            expected="a TOML (.toml) or JSON file",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"the configuration {path} cannot be read",
            received=f"a byte that is no UTF-8 at {error.start}",
            expected="TOML (.toml) or JSON as UTF-8 text",
        ) from error
    try:
        values = _parse_toml(path, text) if path.suffix.lower() == ".toml" else json.loads(text)
    except ValueError as error:
        raise InputError(
            f"the configuration {path} cannot be parsed", received=error, expected="TOML (.toml) or JSON"
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f"the configuration {path} is no table",
            received=type(values).__name__,
            expected="keys and values",
        )
    return values


def _parse_toml(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports] of Python 3.10 alone

    return tomllib.loads(text)


def _set_nested(values: dict[str, Any], parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        inner = values.get(part, {})
        values[part] = dict(inner) if isinstance(inner, Mapping) else {}
        values = values[part]
    values[parts[-1]] = value


def _list_keys(kind: type[Spec], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in kind.model_fields.items():
        inner = _find_table(field.annotation)
        if inner is not None:
            keys += _list_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
