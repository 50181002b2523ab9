"""The result files: what they are called, their schemas, and how they are read again.

History of the schemas, each kind counting its own; a version only ever adds keys to the one before:
    parity      1  the first. 2  reference_classes and candidate_classes of a result;
                cases_learned_from of the whole. 3  doubts of the whole.
    benchmark   1  the first. 2  p99.9, stop_rule, instability, energy, energy_note and scenarios of a result;
                gate and fault of the whole.
    comparison  1  the first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from edgekd.atomic import write_text_atomic
from edgekd.errors import InputError, IntegrityError
from edgekd.json_values import replace_non_finite

Kind = Literal["parity", "benchmark", "comparison"]
SCHEMA_VERSIONS: dict[Kind, int] = {"parity": 3, "benchmark": 2, "comparison": 1}
GATE_FAILED = "the gate failed to run"
"""How the note on the gate begins in a benchmark whose gate ended by an error."""

_KIND_OF_SCHEMA: dict[object, Kind] = {f"edgekd.{kind}": kind for kind in SCHEMA_VERSIONS}


def write_result(folder: Path, kind: Kind, report: Mapping[str, Any]) -> Path:
    """Write ``<kind>.json`` into a folder and return its path; NaN becomes null.

    Raises:
        MachineError: the disk is full.
    """
    path = folder / f"{kind}.json"
    header = {"schema": f"edgekd.{kind}", "schema_version": SCHEMA_VERSIONS[kind]}
    write_text_atomic(path, format_json(replace_non_finite({**header, **report})))
    return path


def read_result(path: Path) -> tuple[Kind, dict[str, Any]]:
    """Return kind and content of a result file.

    Args:
        path: the file.

    Raises:
        InputError: it is missing or no result of EdgeKD.
        IntegrityError: it was written by a newer program.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a result", received=error, expected="parity.json or benchmark.json"
        ) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema not in _KIND_OF_SCHEMA:
        raise InputError(
            f"{path} is no result of EdgeKD",
            expected='"schema": "edgekd.parity" or "edgekd.benchmark"',
            action="name a folder or file that `edgekd parity --out` or `edgekd benchmark --out` wrote",
        )
    kind, version = _KIND_OF_SCHEMA[schema], content.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSIONS[kind]:
        raise IntegrityError(
            f"{path} was written by a newer program",
            received=f"schema {version}",
            expected=f"{SCHEMA_VERSIONS[kind]} or older",
            action="pip install --upgrade edgekd",
        )
    return kind, content


def format_json(value: Any) -> str:
    """Return indented JSON in which a list of numbers stays on one line: samples come by the thousand."""
    text = json.dumps(value, indent=2, allow_nan=False)
    # A line break inside brackets is layout: within JSON strings it is written as \\n.
    return (
        re.sub(r"\[\n\s+(-?\d[-+\d.,eE\s]*?)\s*\]", lambda found: f"[{' '.join(found[1].split())}]", text)
        + "\n"
    )
