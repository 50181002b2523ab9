"""One folder in the place of another, so that a reader finds the old one or the new one, never none."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from edgekd.atomic import explain_full_disk

# Of Linux's fcntl.h and fs.h.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_ASIDE = ".old."
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
STALE_AFTER_S = 3600
"""A folder that is being written is younger: an engine builds within minutes, and nothing is waited for."""


@contextlib.contextmanager
def lock_folder(folder: Path, *, shared: bool = False) -> Generator[None]:
    """Let one process or thread at a time change what ``folder`` holds; the others wait.

    Where the file system or the system knows no such locks, nobody waits.

    Args:
        folder: the folder, which is there.
        shared: any number may read it at the same time, while nobody changes it. Not to be asked for inside.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def put_in_place(ready: Path, final: Path) -> None:
    """Give ``ready`` the name ``final``; a folder or link that had it is called ``ready`` or gone then."""
    if not os.path.lexists(final):
        os.rename(ready, final)
    elif not _exchange(ready, final):
        _put_aside_and_rename(ready, final)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all it holds, or a file or link of that name, if it is there."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def remove_stale(parent: Path) -> None:
    """Remove what killed writers left in ``parent`` under hidden names, once it is STALE_AFTER_S old.

    A folder that one of them had put aside, and that has no successor, gets its name back.
    """
    for left in (*parent.glob(".*.ready*"), *parent.glob(f".*{_ASIDE}*")):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > STALE_AFTER_S:
                _put_back(left)
                remove_folder(left)


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows every file in ``folder``, deeply; needs no right to write there.

    Raises:
        MachineError: the disk is full.
    """
    if sys.platform == "win32":
        return
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            with explain_full_disk(path):
                os.fsync(handle)
        except OSError as error:
            # Some file systems sync files alone.
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _put_aside_and_rename(ready: Path, final: Path) -> None:
    """Do it in two steps; what had the name is put back on failure."""
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}{_ASIDE}", dir=final.parent))
    try:
        os.rename(final, aside / final.name)
        os.rename(ready, final)
    finally:
        # After Ctrl-C too, wherever it came between the two.
        _put_back(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _put_back(aside: Path) -> None:
    """Give what was put aside its name again, unless something else has it."""
    final = aside.with_name(aside.name[1:].partition(_ASIDE)[0])
    if not os.path.lexists(final) and os.path.lexists(aside / final.name):
        os.rename(aside / final.name, final)
