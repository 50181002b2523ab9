"""Writing a build: under a hidden name first, so that it can be loaded and checked before it has its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Generator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgekd.atomic import staged_folder
from edgekd.bundle.build_names import name_build
from edgekd.bundle.builds import (
    BUILD_FILE,
    Build,
    BuildRecord,
    Status,
    read_build,
    read_build_record,
)
from edgekd.bundle.files import replace_non_finite, write_files
from edgekd.bundle.records import write_record
from edgekd.bundle.store import Bundle
from edgekd.errors import UsageError


@contextlib.contextmanager
def draft_build(
    bundle: Bundle,
    *,
    target: str,
    precision_asked: str,
    precision_effective: str,
    device: str,
    status: Status = "built, not run",
    files: Mapping[str, Path | bytes],
    facts: Mapping[str, Any],
) -> Generator[Build]:
    """Write a build under a hidden name, to be loaded and checked there; it vanishes unless it is installed.

    Raises:
        UsageError: a name is unknown or impossible.
        MachineError: the disk is full.
    """
    name = name_build(target, precision_asked, device)
    ready = bundle.path / "builds" / f".{name}.{uuid.uuid4().hex[:8]}.ready"
    try:
        with staged_folder(ready) as staging:
            fields: dict[str, Any] = {
                "manifest_sha256": bundle.manifest_sha256,
                "target": target,
                "precision_asked": precision_asked,
                "precision_effective": precision_effective,
                "device": device,
                "status": status,
                "files": write_files(staging, files),
                "facts": replace_non_finite(facts),
                "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
            write_record(staging, BUILD_FILE, BuildRecord.model_validate(fields))
        yield Build(read_build_record(bundle, ready), ready)
    finally:
        shutil.rmtree(ready, ignore_errors=True)


def install_build(
    bundle: Bundle,
    draft: Build,
    *,
    status: Status | None = None,
    effective: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Build:
    """Give a draft its name in one step, in place of an older build, whose record is not read.

    Args:
        bundle: the bundle.
        draft: of `draft_build`, which is still open.
        status: the new one; None keeps the draft's.
        effective: the precision that was read back; None keeps the draft's.
        facts: the new ones; None keeps the draft's.

    Raises:
        MachineError: the disk is full.
    """
    changes = {
        "status": status,
        "precision_effective": effective,
        "facts": None if facts is None else replace_non_finite(facts),
    }
    fields = draft.record.model_dump() | {key: value for key, value in changes.items() if value is not None}
    write_record(draft.path, BUILD_FILE, BuildRecord.model_validate(fields))
    final = draft.path.with_name(draft.name)
    _swap_folders(draft.path, final)
    return read_build(bundle, final)


def write_build(
    bundle: Bundle,
    *,
    target: str,
    precision_asked: str,
    precision_effective: str,
    device: str,
    status: Status,
    files: Mapping[str, Path | bytes],
    facts: Mapping[str, Any],
    replace: bool = True,
) -> Build:
    """Write a build in one step, in place of an older one if ``replace``.

    Raises:
        UsageError: the build exists and ``replace`` is False, or a name is unknown or impossible.
        MachineError: the disk is full.
    """
    final = bundle.path / "builds" / name_build(target, precision_asked, device)
    if final.exists() and not replace:
        raise UsageError(
            f"the build {final.name} exists already", action="remove it, or allow it to be replaced"
        )
    with draft_build(
        bundle,
        target=target,
        precision_asked=precision_asked,
        precision_effective=precision_effective,
        device=device,
        status=status,
        files=files,
        facts=facts,
    ) as draft:
        return install_build(bundle, draft)


def _swap_folders(ready: Path, final: Path) -> None:
    """Give ``ready`` the name ``final``; a folder that had it is set aside first and put back on failure."""
    if not (final.exists() or final.is_symlink()):
        os.rename(ready, final)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent))
    try:
        try:
            os.rename(final, aside / final.name)
            os.rename(ready, final)
        except BaseException:
            # Ctrl-C too, wherever it came between the two.
            if not final.exists() and (aside / final.name).exists():
                os.rename(aside / final.name, final)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
