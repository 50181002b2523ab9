"""Reading a sealed JSON record: seal first, then schema version, then the strict form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from edgekd import __version__
from edgekd.bundle.files import read_sealed_bytes, write_sealed_bytes
from edgekd.errors import IntegrityError
from edgekd.specs import Spec

Record = TypeVar("Record", bound=Spec)


def read_record(folder: Path, name: str, form: type[Record], newest_schema: int) -> tuple[Record, bytes]:
    """Return the record in the file ``name`` and the file's bytes.

    Raises:
        IntegrityError: the file is missing, changed, damaged, of a newer schema, or has unknown keys.
    """
    data = read_sealed_bytes(folder, name)
    value = _parse_object(folder / name, data)
    _check_schema(folder / name, value, newest_schema)
    try:
        return form.model_validate_json(data), data
    except ValidationError as error:
        raise IntegrityError(
            f"{folder / name} is not a valid {form.__name__}", received=_describe_first_fault(error)
        ) from error


def write_record(folder: Path, name: str, record: Spec) -> bytes:
    """Write a record as indented JSON with its seal and return the bytes written."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
    write_sealed_bytes(folder, name, text.encode())
    return text.encode()


def _parse_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise IntegrityError(f"{path} is damaged JSON", received=error) from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{path} is no JSON object", received=type(value).__name__)
    return cast("dict[str, Any]", value)


def _check_schema(path: Path, value: dict[str, Any], newest: int) -> None:
    found = value.get("schema_version")
    if type(found) is not int or found < 1:
        raise IntegrityError(f"{path} has no schema version", received=repr(found), expected=f"1 to {newest}")
    if found > newest:
        writer = value.get("edgekd_version")
        raise IntegrityError(
            f"{path} has a newer schema than edgekd {__version__} reads",
            received=f"schema {found}",
            expected=f"at most {newest}",
            action=f'pip install "edgekd>={writer}", the version that wrote it',
        )


def _describe_first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    more = f" and {error.error_count() - 1} more faults" if error.error_count() > 1 else ""
    return f"{place}: {fault['msg']}{more}" if place else f"{fault['msg']}{more}"
