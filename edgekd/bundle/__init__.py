"""The bundle, the deployable artefact: manifest, hashes, golden frames, builds, recordings. Never torch."""

from edgekd.bundle.build_drafts import draft_build, install_build
from edgekd.bundle.build_names import (
    PRECISIONS,
    TARGETS,
    check_precision,
    check_target,
    format_export,
    name_build,
)
from edgekd.bundle.builds import (
    NOT_SHOWN,
    Build,
    BuildRecord,
    choose_build,
    find_build,
    list_build_names,
    list_builds,
    prefer_device,
)
from edgekd.bundle.files import FileFact
from edgekd.bundle.golden import (
    GOLDEN_FILE,
    MIN_AGREEMENT,
    MIN_FOREGROUND_OVERLAP,
    GoldenFrames,
    JudgedFrames,
    load_golden,
    pack_judged_frames,
    read_golden,
    read_judged_frames,
)
from edgekd.bundle.manifest import MANIFEST_FILE, SCHEMA_VERSION, WEIGHTS_FILE, Manifest
from edgekd.bundle.recording import Recording, load_recording, save_recording
from edgekd.bundle.store import Bundle, write_bundle

__all__ = [
    "GOLDEN_FILE",
    "MANIFEST_FILE",
    "MIN_AGREEMENT",
    "MIN_FOREGROUND_OVERLAP",
    "NOT_SHOWN",
    "PRECISIONS",
    "SCHEMA_VERSION",
    "TARGETS",
    "WEIGHTS_FILE",
    "Build",
    "BuildRecord",
    "Bundle",
    "FileFact",
    "GoldenFrames",
    "JudgedFrames",
    "Manifest",
    "Recording",
    "check_precision",
    "check_target",
    "choose_build",
    "draft_build",
    "find_build",
    "format_export",
    "install_build",
    "list_build_names",
    "list_builds",
    "load_golden",
    "load_recording",
    "name_build",
    "pack_judged_frames",
    "prefer_device",
    "read_golden",
    "read_judged_frames",
    "save_recording",
    "write_bundle",
]
