"""A certificate that builds passed the gate on this machine, void as soon as anything it is bound to changes.

It is bound to the bundle, every file of each build, the data, the reference and the criteria, to the
libraries, the device and its power mode. Its seal finds a changed file; it is no signature and does not say
who issued it.

History of the schema:
    1  the first. 2  cases_learned_from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekd import __version__
from edgekd.atomic import hash_file, write_json_atomic, write_text_atomic
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.junit import build_certificate_junit
from edgekd.benchmarks.parity_report import ParityReport
from edgekd.bundle import Bundle, choose_build
from edgekd.bundle.builds import BUILD_FILE
from edgekd.errors import EdgeKDError, GateFailure, InputError, IntegrityError, UsageError
from edgekd.json_values import replace_non_finite
from edgekd.runtime import load

CERTIFICATE_SCHEMA = "edgekd.certificate"
CERTIFICATE_SCHEMA_VERSION = 3
STATEMENT = (
    "The builds named here were non-inferior to the student on these data by the criteria stated, on this "
    "machine. Any change of what is listed under bound_to voids this. It is no approval of a medical device."
)
# Training libraries do not reach the device's masks; clocks and temperatures change from second to second.
_UNBOUND_LIBRARIES = ("torch",)
_VOLATILE_GPU_FIELDS = ("clocks.sm", "temperature.gpu")
_ENGINE_FIELDS = (
    "engine",
    "version",
    "device",
    "device_name",
    "provider",
    "precision_effective",
    "precision_read_from",
)


@dataclasses.dataclass(frozen=True)
class CertificateCheck:
    """Whether a certificate still holds.

    Attributes:
        certificate: path of the file.
        builds: names of the builds it speaks of.
        changes: what is no longer as it was, one sentence each; empty where it holds.
    """

    certificate: str
    builds: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing changed."""
        return not self.changes

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return {**dataclasses.asdict(self), "holds": self.holds}


def write_certificate(path: Path, report: ParityReport) -> None:
    """Write the certificate of a report.

    Raises:
        UsageError: the report is of golden frames, which show agreement alone.
        GateFailure: a build did not pass.
        MachineError: the disk is full.
    """
    if report.data_sha256 is None:
        raise UsageError(
            "golden frames alone give no certificate",
            received="agreement with golden frames",
            expected="the gate on a data set",
            action="add --data DATA, the data set the reference was recorded from",
        )
    if not report.passed:
        raise GateFailure("no certificate for builds that did not pass", action="see the verdicts")
    content = {
        "schema": CERTIFICATE_SCHEMA,
        "schema_version": CERTIFICATE_SCHEMA_VERSION,
        "edgekd_version": __version__,
        "statement": STATEMENT,
        "issued": report.environment["measured_at"],
        "bound_to": _describe_bonds(report),
        "criteria": report.criteria.model_dump(mode="json"),
        "results": [result.to_dict() for result in report.results],
        "cases_learned_from": report.cases_learned_from,
        "doubts": report.to_dict()["doubts"],
        "not_run": [dataclasses.asdict(one) for one in report.skipped],
    }
    sealed = replace_non_finite(content)
    write_json_atomic(path, {**sealed, "seal_sha256": _compute_seal(sealed)})


def check_certificate(path: Path, bundle: Bundle, *, junit: Path | None = None) -> CertificateCheck:
    """Compare a certificate with the bundle and the machine as they are now; each build is loaded once.

    Args:
        path: the certificate.
        bundle: the bundle it should be of.
        junit: new file for the answer as JUnit XML.

    Raises:
        InputError: there is no certificate.
        IntegrityError: it was changed after it was written, or is of a newer schema.
    """
    content = _read_certificate(path)
    bonds = content["bound_to"]
    changes = list(_find_changes("", bonds, _describe_now(bonds, bundle)))
    check = CertificateCheck(str(path), tuple(bonds["builds"]), tuple(changes))
    if junit is not None:
        write_text_atomic(junit, build_certificate_junit(check.to_dict()))
    return check


def describe_machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a certificate is bound to of ``describe_environment()``: device, power mode, libraries."""
    cpu, gpu, jetson = (environment.get(key) for key in ("cpu", "gpu", "jetson"))
    libraries = environment.get("libraries", {})
    return {
        "cpu": {key: cpu.get(key) for key in ("model", "usable_cores", "governor")}
        if isinstance(cpu, Mapping)
        else cpu,
        "gpu": {key: value for key, value in gpu.items() if key not in _VOLATILE_GPU_FIELDS}
        if isinstance(gpu, Mapping)
        else gpu,
        "jetson": jetson,
        "os": environment.get("os"),
        "kernel": environment.get("kernel"),
        "libraries": {name: value for name, value in libraries.items() if name not in _UNBOUND_LIBRARIES},
    }


def _describe_bonds(report: ParityReport) -> dict[str, Any]:
    return {
        "manifest_sha256": report.manifest_sha256,
        "data_sha256": report.data_sha256,
        "reference_sha256": report.reference_sha256,
        "criteria_sha256": report.criteria.compute_hash(),
        "machine": describe_machine(report.environment),
        "builds": {
            one.name: {
                "target": one.target,
                "precision": one.precision,
                "device": one.device,
                "build_sha256": one.build_sha256,
                "engine": _pick_engine_facts(one.engine),
            }
            for one in report.builds
        },
    }


def _describe_now(bonds: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Return the same facts as ``bonds`` as they are now; data, reference and criteria are sealed facts."""
    now = {key: bonds[key] for key in ("data_sha256", "reference_sha256", "criteria_sha256")}
    now["manifest_sha256"] = bundle.manifest_sha256
    now["machine"] = describe_machine(describe_environment())
    now["builds"] = {name: _describe_build_now(bundle, one) for name, one in bonds["builds"].items()}
    return now


def _describe_build_now(bundle: Bundle, bond: Mapping[str, Any]) -> dict[str, Any]:
    asked = {key: bond[key] for key in ("target", "precision", "device")}
    try:
        build = choose_build(bundle, bond["target"], bond["precision"], bond["device"])
        build.check_files()
        with load(bundle, bond["target"], bond["precision"], bond["device"]) as segmenter:
            engine = _pick_engine_facts(segmenter.engine.facts())
    except EdgeKDError as error:
        return {**asked, "build_sha256": f"none: {error}", "engine": bond["engine"]}
    return {**asked, "build_sha256": hash_file(build.path / BUILD_FILE), "engine": engine}


def _pick_engine_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    return replace_non_finite({key: facts[key] for key in _ENGINE_FIELDS if key in facts})


def _find_changes(place: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*before, *now)):
            inner = f"{place}.{key}" if place else str(key)
            yield from _find_changes(inner, before.get(key), now.get(key))
    elif before != now:
        yield f"{place} was {before}, is {now}"


def _read_certificate(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a certificate",
            received=(error.strerror or str(error)).lower() if isinstance(error, OSError) else error,
            action="name the file that edgekd parity --certificate wrote",
        ) from error
    if not isinstance(content, dict) or content.get("schema") != CERTIFICATE_SCHEMA:
        raise InputError(f"{path} is no certificate", expected=f'"schema": "{CERTIFICATE_SCHEMA}"')
    version = content.get("schema_version")
    if not isinstance(version, int) or version > CERTIFICATE_SCHEMA_VERSION:
        raise IntegrityError(
            f"{path} was written by a newer program",
            received=f"schema {version}",
            expected=f"{CERTIFICATE_SCHEMA_VERSION} or older",
            action="pip install --upgrade edgekd",
        )
    seal = content.pop("seal_sha256", None)
    if not _fits_seal(seal, content):
        raise IntegrityError(
            f"{path} was changed after it was written",
            received="content that its seal does not fit",
            action="run the gate again: edgekd parity BUNDLE --data DATA --certificate FILE",
        )
    return content


def _fits_seal(seal: object, content: Mapping[str, Any]) -> bool:
    try:
        return seal == _compute_seal(content)
    except ValueError:  # NaN or Infinity, which are never written but can be read
        return False


def _compute_seal(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
