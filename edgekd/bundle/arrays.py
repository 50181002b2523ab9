"""Arrays in one ``.npz`` file, read without pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import EdgeKDError

Array = npt.NDArray[Any]
# TypeError and AttributeError: a single array, which is no archive, cannot be entered.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Return the arrays as a compressed ``.npz``; the same arrays give the same bytes.

    Raises:
        ValueError: an array holds Python objects.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"the array {name!r} holds Python objects")
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # pyright: ignore[reportArgumentType] a key cannot be allow_pickle here
    return stream.getvalue()


def unpack_arrays(path: Path, error: type[EdgeKDError]) -> dict[str, Array]:
    """Return every array of an ``.npz`` file; pickled ones are refused.

    Args:
        path: the file.
        error: what to raise where it cannot be read: IntegrityError for a file that has a record.
    """
    try:
        # Opened here because np.load leaves the file open where it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE as cause:
        # Of any other file the library says that it may be a pickle, and how to load it all the same.
        is_other = isinstance(cause, (ValueError, TypeError, AttributeError)) and not zipfile.is_zipfile(path)
        raise error(
            f"{path} is no readable array file",
            received="a file of another kind" if is_other else cause,
            expected="an .npz without pickle",
        ) from cause
