"""Writing files so that a reader sees the old content, the new content, or nothing: never a half."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgekd.errors import MachineError, UsageError


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" (ENOSPC, EDQUOT, EFBIG) into a MachineError that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(
                f"the disk is full while writing {path}", action="free some space and run the command again"
            ) from error
        if error.errno == errno.EFBIG:
            raise MachineError(
                f"the file system, or a limit of this user, takes no file as large as {path}",
                action="name a folder on another disk, or raise the limit (ulimit -f)",
            ) from error
        raise


def write_bytes_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to a hidden sibling, flush it to the disk, then rename it to ``path``.

    Args:
        path: the file.
        data: its content.
        durable: wait until the disk has it; without that a power cut may leave an empty file.
    """
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            # mkstemp makes the file private; a result is as readable as any other new file.
            os.chmod(name, 0o666 & ~_read_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically; bytes of a path that are no text are written as ``\\udcff``."""
    write_bytes_atomic(path, text.encode(errors="backslashreplace"))


def write_json_atomic(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON with a final newline, atomically; the caller has replaced NaN."""
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield an empty hidden sibling of ``final`` that takes its name on success and vanishes on failure.

    Raises:
        UsageError: ``final`` exists already or cannot be written.
        MachineError: the disk is full.
    """
    check_output_is_new(final)
    with explain_full_disk(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            os.chmod(staging, 0o777 & ~_read_umask())
            yield staging
            os.rename(staging, final)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder that vanishes; a full disk is a MachineError there too."""
    with explain_full_disk(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def check_output_is_new(final: Path) -> None:
    """Raise where ``final`` exists or could not be written, so that hours of work are not lost at their end.

    Nothing is created.

    Raises:
        UsageError: ``final`` exists, or no file can be made where it or its first missing folder goes.
        MachineError: the disk is full.
    """
    if os.path.lexists(final):
        raise UsageError(f"the output {final} exists already", action="name another one, or remove it")
    check_output_place(final)


def check_output_place(final: Path) -> None:
    """Raise where nothing could be written at ``final``; see ``check_output_is_new``."""
    # The nearest thing that is there: a link to nowhere or a file would stop the making of folders too.
    place = next(parent for parent in final.absolute().parents if os.path.lexists(parent))
    try:
        with explain_full_disk(final):
            # Permissions do not tell: a mount may be read-only, and /proc takes no file even from root.
            tempfile.TemporaryFile(dir=place).close()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(final)  # a name that is too long
    except OSError as error:
        raise UsageError(
            f"the output {final} cannot be written",
            received=f"{error.strerror or error} in {place}",
            expected="a folder that takes new files, or whose missing parts can be made",
            action="name another one",
        ) from error


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's content in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
