"""Names, sizes and sha256 of the files of a bundle, checked before anybody parses them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from edgekd.atomic import hash_file, write_bytes_atomic
from edgekd.errors import IntegrityError
from edgekd.specs import Spec

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _check_name(name: str) -> str:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(sign in name for sign in "\\:\0"):
        raise ValueError(f"{name!r} is no plain relative path")
    return name


FileName = Annotated[str, AfterValidator(_check_name)]


class FileFact(Spec):
    """What a file must be: its sha256 (hex) and its size in bytes."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


def resolve_checked_file(folder: Path, files: Mapping[str, FileFact], name: str) -> Path:
    """Return the real path of ``name`` in ``folder`` once its size and sha256 are the recorded ones.

    Raises:
        IntegrityError: the name is not recorded, the file is missing, lies outside the folder
            (also through a symbolic link), or its content is another.
    """
    if name not in files:
        raise IntegrityError(
            f"{folder} records no file {name!r}", expected="one of " + ", ".join(sorted(files))
        )
    path = resolve_inside(folder, name)
    fact = files[name]
    try:
        size, found = path.stat().st_size, hash_file(path)
    except FileNotFoundError as error:  # removed since
        raise _build_missing_error(path) from error
    if size != fact.size:
        raise _build_changed_error(path, f"{size} bytes", f"{fact.size} bytes")
    if found != fact.sha256:
        raise _build_changed_error(path, f"sha256 {found[:12]}…", f"{fact.sha256[:12]}…")
    return path


def resolve_inside(folder: Path, name: str) -> Path:
    """Return the real path of the file ``name`` in ``folder``; links may not leave the folder.

    Raises:
        IntegrityError: there is no such file, or it lies outside the folder.
    """
    root = folder.resolve()
    path = (root / PurePosixPath(name)).resolve()
    if not path.is_relative_to(root):
        raise IntegrityError(f"{name!r} leads out of the folder {folder}", received=path, action=RESTORE)
    if not path.is_file():
        raise _build_missing_error(path)
    return path


def read_sealed_bytes(folder: Path, name: str) -> bytes:
    """Return the content of ``name`` once it matches its seal, the ``sha256sum`` line beside it.

    Raises:
        IntegrityError: the file or its seal is missing, or they disagree.
    """
    path = resolve_inside(folder, name)
    seal = resolve_inside(folder, name_seal(name))
    try:
        data, sealed = path.read_bytes(), seal.read_bytes()
    except FileNotFoundError as error:  # removed since
        raise _build_missing_error(path) from error
    if sealed != build_seal(name, data):
        raise _build_changed_error(
            path, f"sha256 {hashlib.sha256(data).hexdigest()[:12]}…", f"that in {seal.name}"
        )
    return data


def write_sealed_bytes(folder: Path, name: str, data: bytes) -> None:
    """Write ``name`` and beside it the line that ``sha256sum --check`` reads."""
    write_bytes_atomic(folder / name, data)
    write_bytes_atomic(folder / name_seal(name), build_seal(name, data))


def name_seal(name: str) -> str:
    """Return the name of the seal of a file: ``manifest.json`` → ``manifest.sha256``."""
    return str(PurePosixPath(name).with_suffix(".sha256"))


def build_seal(name: str, data: bytes) -> bytes:
    """Return the line ``<sha256>  <name>`` for a file's content."""
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def write_files(folder: Path, files: Mapping[str, Path | bytes]) -> dict[str, FileFact]:
    """Write or copy each of ``files`` under ``folder`` and return what was written.

    Raises:
        ValueError: a name is no plain relative path (a mistake of the caller, not of a user).
    """
    facts: dict[str, FileFact] = {}
    for name, content in files.items():
        path = folder / _check_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            write_bytes_atomic(path, content)
        else:
            shutil.copyfile(content, path)
        facts[name] = FileFact(sha256=hash_file(path), size=os.path.getsize(path))
    return facts


RESTORE = "restore the bundle from where it was written, or distil or export it again"


def _build_missing_error(path: Path) -> IntegrityError:
    return IntegrityError(f"the file {path} is missing", action=RESTORE)


def _build_changed_error(path: Path, received: str, expected: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is not the file that was recorded", received=received, expected=expected, action=RESTORE
    )
