"""The builds of a bundle: one folder for each target, precision and device.

History of the build record's schema:
    1  the first.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edgekd import __version__
from edgekd.bundle.build_names import (
    DEVICE_PATTERN,
    check_precision,
    check_target,
    format_export,
    name_build,
    parse_build_name,
)
from edgekd.bundle.files import (
    RESTORE,
    FileFact,
    FileName,
    Sha256,
    resolve_checked_file,
)
from edgekd.bundle.records import read_record
from edgekd.bundle.replacement import lock_folder
from edgekd.bundle.store import Bundle
from edgekd.errors import IntegrityError, MachineError
from edgekd.specs import Spec

BUILD_SCHEMA_VERSION = 1
BUILD_FILE = "build.json"
Status = Literal["run", "built, not run"]
NOT_SHOWN = "not shown"
"""The effective precision where nothing tells it: a hint that no device took yet, or an NPU's."""


class BuildRecord(Spec):
    """What a build is.

    Attributes:
        schema_version: BUILD_SCHEMA_VERSION of the program that wrote it.
        edgekd_version: version of that program.
        manifest_sha256: sha256 of the manifest it was built from.
        target: one of TARGETS.
        precision_asked: one of PRECISIONS.
        precision_effective: the precision that was found in the built graph or engine, or NOT_SHOWN.
        device: what it was built for, such as ``CPU`` or ``GPU``.
        status: ``run`` if it ran on the golden frames after building, else ``built, not run``.
        files: sha256 and size of the files beside the record.
        facts: versions, measured differences and whatever else the target needs to check.
        created: UTC time, ISO 8601.
    """

    schema_version: Annotated[int, Field(ge=1, le=BUILD_SCHEMA_VERSION)] = BUILD_SCHEMA_VERSION
    edgekd_version: str = __version__
    manifest_sha256: Sha256
    target: Literal["onnx", "openvino", "tensorrt", "tensorrt-rtx"]
    precision_asked: Literal["fp32", "fp16", "bf16", "int8"]
    precision_effective: str
    device: Annotated[str, Field(pattern=DEVICE_PATTERN)]
    status: Status
    files: dict[FileName, FileFact]
    facts: dict[str, Any]
    created: str


@dataclass(frozen=True)
class Build:
    """A build and its folder."""

    record: BuildRecord
    path: Path

    @property
    def name(self) -> str:
        """``<target>-<precision>-<device>``, the folder's name; for a draft the one it is to have."""
        name = self.path.name
        return name[1:].rsplit(".", 2)[0] if name.startswith(".") else name

    def resolve_file(self, name: str) -> Path:
        """Return the path of a file after checking its sha256.

        Raises:
            IntegrityError: it is not listed, missing, changed, or leads out of the folder.
            MachineError: another export replaced the build since its record was read.
        """
        with _lock_builds(self.path):
            try:
                return resolve_checked_file(self.path, self.record.files, name)
            except IntegrityError:
                if self._was_replaced():
                    raise MachineError(
                        f"the build {self.name} was replaced by another export while it was read",
                        action="run the command again",
                    ) from None
                raise

    def check_files(self) -> None:
        """Check every file; IntegrityError where one is missing or changed."""
        for name in self.record.files:
            self.resolve_file(name)

    def _was_replaced(self) -> bool:
        try:
            return read_record(self.path, BUILD_FILE, BuildRecord, BUILD_SCHEMA_VERSION)[0] != self.record
        except IntegrityError:
            return False


def list_builds(bundle: Bundle, target: str | None = None, precision: str | None = None) -> list[Build]:
    """Return the builds of ``bundle``, sorted by name; their records are checked, their files when resolved.

    Args:
        bundle: the bundle.
        target, precision: only builds of these; of the others nothing is read. None takes all.

    Raises:
        IntegrityError: a record is changed, damaged, newer, or belongs to another manifest or folder; where
            all are asked for, also a folder that is no build's.
    """
    return [read_build(bundle, folder) for folder in _list_folders(bundle, target, precision)]


def list_build_names(bundle: Bundle) -> list[str]:
    """Return the names of the builds of ``bundle``, sorted; nothing of them is read."""
    return [
        path.name for path in _list_folders(bundle, None, None) if parse_build_name(path.name) is not None
    ]


def find_build(bundle: Bundle, target: str, precision: str = "fp32", device: str | None = None) -> Build:
    """Return the build for a target and precision, of ``device`` where one is named; no other is read.

    Raises:
        UsageError: an unknown target or precision.
        MachineError: the bundle holds no such build; the error names the export command.
        IntegrityError: as `list_builds`.
    """
    check_target(target)
    check_precision(precision)
    for folder in _list_folders(bundle, target, precision):
        if device is None or folder.name == name_build(target, precision, device):
            return read_build(bundle, folder)
    on_device = f" for {device}" if device else ""
    raise MachineError(
        f"{bundle.path} holds no {target} build in {precision}{on_device}",
        action=format_export(bundle.path, target, precision),
    )


def choose_build(bundle: Bundle, target: str, precision: str, device: str | None) -> Build:
    """Return the build to run on a device: the one made for it, else the processor's, else any.

    Args:
        bundle: the bundle.
        target, precision: of the build.
        device: such as ``GPU`` or, of several, ``GPU.1``; None takes any.

    Raises:
        UsageError, MachineError, IntegrityError: as `find_build`.
    """
    check_target(target)
    check_precision(precision)
    cells = [parse_build_name(folder.name) for folder in _list_folders(bundle, target, precision)]
    devices = [cell.device for cell in cells if cell is not None]
    if not devices:
        raise MachineError(
            f"{bundle.path} holds no {target} build in {precision}",
            action=format_export(bundle.path, target, precision, device),
        )
    return find_build(bundle, target, precision, prefer_device(devices, device))


def prefer_device(devices: Sequence[str], asked: str | None) -> str:
    """Return which of several builds' devices runs on ``asked``: it, else the processor, else the first."""
    family = (asked or "").partition(".")[0].lower()
    known = {device.lower(): device for device in reversed(devices)}
    return known.get(family) or known.get("cpu") or devices[0]


def _list_folders(bundle: Bundle, target: str | None, precision: str | None) -> list[Path]:
    """Return the folders of builds, sorted, told apart by their names; unfiltered also those of no build."""
    root = bundle.path / "builds"
    if not root.is_dir():
        return []
    # A hidden folder is a build that was being written when its writer was killed.
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if target is None and precision is None:
        return folders
    cells = [(folder, parse_build_name(folder.name)) for folder in folders]
    return [
        folder
        for folder, cell in cells
        if cell is not None and target in (None, cell.target) and precision in (None, cell.precision)
    ]


def read_build(bundle: Bundle, folder: Path) -> Build:
    """Return the build in a folder of its own name.

    Raises:
        IntegrityError: as `read_build_record`, or the folder has the name of another build.
    """
    if not folder.resolve().is_relative_to(bundle.path.resolve()):
        raise IntegrityError(
            f"{folder} leads out of the bundle",
            received=folder.resolve(),
            action=_explain_removal(bundle, folder),
        )
    record = read_build_record(bundle, folder)
    name = name_build(record.target, record.precision_asked, record.device)
    if name != folder.name:
        raise IntegrityError(
            f"the folder {folder} holds the record of another build",
            received=name,
            expected=folder.name,
            action=_explain_removal(bundle, folder),
        )
    return Build(record, folder)


def read_build_record(bundle: Bundle, folder: Path) -> BuildRecord:
    """Return the record in a folder of any name.

    Raises:
        IntegrityError: it is damaged, of a newer schema, or of a build of another bundle.
    """
    try:
        with _lock_builds(folder):
            record, _ = read_record(folder, BUILD_FILE, BuildRecord, BUILD_SCHEMA_VERSION)
    except IntegrityError as error:
        # An update may help where the schema is newer; nothing else that is said of whole bundles does.
        other = "" if error.action in (None, RESTORE) else f"{error.action}; or "
        raise IntegrityError(
            error.what,
            received=error.received,
            expected=error.expected,
            action=other + _explain_removal(bundle, folder),
        ) from error
    if record.manifest_sha256 != bundle.manifest_sha256:
        raise IntegrityError(
            f"the build {folder} belongs to another bundle",
            received=f"manifest {record.manifest_sha256[:12]}…",
            expected=f"{bundle.manifest_sha256[:12]}…",
            action=_explain_removal(bundle, folder),
        )
    return record


@contextlib.contextmanager
def _lock_builds(folder: Path) -> Generator[None]:
    """Let no export replace builds while one is read: record, seal and files must be of one build."""
    if not folder.parent.is_dir():
        yield
        return
    with lock_folder(folder.parent, shared=True):
        yield


def _explain_removal(bundle: Bundle, folder: Path) -> str:
    """Return what helps where a build's record cannot be used: away with it, or another in its place."""
    cell = parse_build_name(folder.name)
    if cell is None or not (folder / BUILD_FILE).exists():
        return f"remove the folder {shlex.quote(str(folder))}, which holds no build"
    command = format_export(bundle.path, cell.target, cell.precision, cell.device)
    return f"remove the folder {shlex.quote(str(folder))}, and make the build anew: {command}"
