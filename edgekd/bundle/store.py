"""Opening and writing a bundle, the folder ``NAME.edgekd`` that crosses from training to the device.

The format on one screen::

    NAME.edgekd/
      manifest.json        what the student is; sha256 and size of the files beside it
      manifest.sha256      the manifest's own seal, as ``sha256sum --check`` reads it
      student.safetensors  weights
      golden.npz           frames with tensor, logits, mask and truth
      …                    further files that the manifest lists
      builds/
        <target>-<precision>-<device>/
          build.json       names the manifest's sha256; sha256 and size of the files beside it
          build.sha256     its seal
          …                graphs, engines, kernels
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgekd import __version__
from edgekd.atomic import staged_folder
from edgekd.bundle.files import resolve_checked_file, write_files
from edgekd.bundle.manifest import MANIFEST_FILE, SCHEMA_VERSION, Manifest
from edgekd.bundle.records import read_record, write_record
from edgekd.errors import InputError
from edgekd.json_values import replace_non_finite
from edgekd.specs import ClassSpec, ModelSpec, PreprocessSpec


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: the folder, as given.
        manifest: its checked manifest.
        manifest_sha256: sha256 (hex) of the bytes of ``manifest.json``; builds and recordings name it.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open the bundle at ``path`` and check every file its manifest lists.

        Raises:
            InputError: ``path`` is no bundle.
            IntegrityError: a file is missing or changed, or the bundle is of a newer schema.
        """
        path = Path(path)
        _check_is_bundle(path)
        manifest, data = read_record(path, MANIFEST_FILE, Manifest, SCHEMA_VERSION)
        bundle = cls(path, manifest, hashlib.sha256(data).hexdigest())
        for name in manifest.files:
            bundle.resolve_file(name)
        return bundle

    def resolve_file(self, name: str) -> Path:
        """Return the path of a listed file after checking it once more.

        Raises:
            IntegrityError: it is not listed, missing, changed, or leads out of the folder.
        """
        return resolve_checked_file(self.path, self.manifest.files, name)


def write_bundle(
    final: Path,
    *,
    preprocess: PreprocessSpec,
    classes: ClassSpec,
    model: ModelSpec,
    files: Mapping[str, Path | bytes],
    name: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle in one step: ``final`` appears complete or not at all.

    Args:
        final: the folder to be made, by custom ``NAME.edgekd``.
        preprocess, classes, model: the facts of the student.
        files: name inside the bundle → bytes, or the path of a file to copy.
        name: what the student is called; by default the folder's name without ``.edgekd``.
        metrics, training, environment: JSON-like facts; NaN becomes null.

    Raises:
        UsageError: ``final`` exists.
        MachineError: the disk is full.
    """
    with staged_folder(final) as staging:
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=name or final.name.removesuffix(".edgekd"),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            edgekd_version=__version__,
            preprocess=preprocess,
            classes=classes,
            model=model,
            files=write_files(staging, files),
            metrics=replace_non_finite(metrics or {}),
            training=replace_non_finite(training or {}),
            environment=replace_non_finite(environment or {}),
        )
        write_record(staging, MANIFEST_FILE, manifest)
    return Bundle.open(final)


def _check_is_bundle(path: Path) -> None:
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing there"
        raise InputError(
            f"{path} is no bundle", received=found, expected="a folder written by `edgekd distill`"
        )
    if not (path / MANIFEST_FILE).exists():
        inside = [found.parent for found in sorted(path.glob(f"*.edgekd/{MANIFEST_FILE}"))]
        raise InputError(
            f"{path} is no bundle",
            received=f"a folder without {MANIFEST_FILE}",
            action=f"name a bundle in it, such as {shlex.quote(str(inside[0]))}"
            if inside
            else "name the folder NAME.edgekd that `edgekd distill` wrote",
        )
