"""Writing a build: under a hidden name first, so that it can be loaded and checked before it has its own."""

from __future__ import annotations

import contextlib
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
    read_build_record,
)
from edgekd.bundle.files import write_files
from edgekd.bundle.records import write_record
from edgekd.bundle.replacement import lock_folder, put_in_place, remove_folder, remove_stale, sync_folder
from edgekd.bundle.store import Bundle
from edgekd.json_values import replace_non_finite


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
    builds = bundle.path / "builds"
    ready = builds / f".{name}.{uuid.uuid4().hex[:8]}.ready"
    remove_stale(builds)
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
        remove_folder(ready)


def install_build(
    bundle: Bundle,
    draft: Build,
    *,
    status: Status | None = None,
    effective: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Build:
    """Give a draft its name in one step, in place of an older build, whose record is not read.

    Another process may do the same at the same time: the later one's build stays.

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
    record = read_build_record(bundle, draft.path)
    final = draft.path.with_name(draft.name)
    sync_folder(draft.path)
    with lock_folder(final.parent):
        put_in_place(draft.path, final)
    return Build(record, final)
