"""Where a run goes when nobody names a place, and which bundle is meant when nobody names one."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path

from edgekd.errors import InputError

RUNS_FOLDER = Path("runs")
BUNDLE_NAME = "student.edgekd"


def name_new_run(subject: str) -> Path:
    """Return ``runs/<date>-<subject>`` of the current folder, numbered where it is taken already."""
    day = datetime.datetime.now().astimezone().strftime("%Y-%m-%d")
    base = RUNS_FOLDER / f"{day}-{subject}"
    candidate, number = base, 2
    while candidate.exists():
        candidate = base.with_name(f"{base.name}-{number}")
        number += 1
    return candidate


def find_last_bundle() -> Path:
    """Return the bundle of the newest finished run below ``runs/`` of the current folder.

    Raises:
        InputError: there is none.
    """
    bundles = list(RUNS_FOLDER.glob(f"*/{BUNDLE_NAME}/manifest.json"))
    if not bundles:
        near = sorted(manifest.parent for manifest in Path().glob("*.edgekd/manifest.json"))
        raise InputError(
            "no bundle was named and no finished run lies here",
            received=f"the folder {Path.cwd()}",
            expected=f"{RUNS_FOLDER}/<run>/{BUNDLE_NAME}",
            action=f"name a bundle, such as {shlex.quote(str(near[0]))}, which lies here"
            if near
            else "run `edgekd distill DATA` here first, or name a bundle",
        )
    return max(bundles, key=lambda manifest: manifest.stat().st_mtime_ns).parent
