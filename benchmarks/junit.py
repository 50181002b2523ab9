"""Parity as JUnit XML, the form that every CI server shows: one suite a build, one case a check.

The dialect is that of Jenkins' xunit plugin (testsuites, testsuite, testcase with failure, error or skipped),
which GitLab, GitHub actions and Azure read too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from edgekd.atomic import check_output_is_new, write_text_atomic
from edgekd.errors import EdgeKDError

_NO_CHAR = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""All but XML 1.0's Char, and the carriage return, which readers turn into a line's end."""


def build_junit(report: Mapping[str, Any]) -> str:
    """Return a parity report, ``ParityReport.to_dict()``, as JUnit XML.

    A build that did not run is a skipped case with its reason, never a passed one. What makes all verdicts
    say less than they seem to stands in the output of each suite.
    """
    root = ET.Element("testsuites", name="edgekd parity")
    for result in report["results"]:
        _add_result(root, result)
    if report["doubts"]:
        for suite in root:
            ET.SubElement(suite, "system-out").text = _clean("\n".join(report["doubts"]))
    for one in report["skipped"]:
        suite = ET.SubElement(root, "testsuite", name=_clean(one["name"]))
        case = ET.SubElement(suite, "testcase", classname=_clean(one["name"]), name="parity")
        ET.SubElement(case, "skipped", message=_clean(f"{one['status']}: {one['reason']}"))
    return _finish(root)


def build_certificate_junit(check: Mapping[str, Any]) -> str:
    """Return ``CertificateCheck.to_dict()`` as JUnit XML: one case, which failed where it is void."""
    root = ET.Element("testsuites", name="edgekd parity")
    suite = ET.SubElement(root, "testsuite", name="certificate")
    case = ET.SubElement(suite, "testcase", classname="edgekd.parity", name=_clean(check["certificate"]))
    if not check["holds"]:
        _add_failure(case, "void", check["changes"])
    return _finish(root)


def build_error_junit(message: str, kind: str, exit_code: int) -> str:
    """Return a gate that could not be judged as JUnit XML: one case with an error of that kind."""
    root = ET.Element("testsuites", name="edgekd parity")
    suite = ET.SubElement(root, "testsuite", name="parity")
    case = ET.SubElement(suite, "testcase", classname="edgekd.parity", name="gate")
    fault = ET.SubElement(case, "error", type=kind, message=_clean(message))
    fault.text = f"exit code {exit_code}"
    return _finish(root)


@contextlib.contextmanager
def keep_junit(path: Path | None) -> Iterator[None]:
    """Write the error of the block to ``path`` as JUnit XML and pass it on; None writes nothing.

    Raises:
        UsageError: ``path`` exists or cannot be written.
    """
    if path is None:
        yield
        return
    check_output_is_new(path)
    try:
        yield
    except EdgeKDError as error:
        write_text_atomic(path, build_error_junit(str(error), type(error).__name__, error.exit_code))
        raise
    except KeyboardInterrupt:
        message = "interrupted before there was a verdict"
        write_text_atomic(path, build_error_junit(message, "KeyboardInterrupt", 130))
        raise


def _add_result(root: ET.Element, result: Mapping[str, Any]) -> None:
    name = _clean(result["candidate"])
    suite = ET.SubElement(root, "testsuite", name=name)
    checks = dict(result["verdict"]["metrics"]) if result["kind"] == "data" else {}
    for metric, decision in checks.items():
        case = ET.SubElement(suite, "testcase", classname=name, name=metric)
        if decision != "pass":
            _add_failure(case, decision, result["reasons"])
    case = ET.SubElement(suite, "testcase", classname=name, name="verdict")
    if not result["passed"]:
        _add_failure(case, result["conclusion"], result["reasons"])


def _add_failure(case: ET.Element, kind: str, reasons: list[str]) -> None:
    own = [reason for reason in reasons if reason.startswith(f"{case.get('name')}:")] or reasons
    failure = ET.SubElement(case, "failure", type=kind, message=_clean("; ".join(own) or kind))
    failure.text = _clean("\n".join(reasons))


def _finish(root: ET.Element) -> str:
    for suite in root:
        cases = list(suite.iter("testcase"))
        counts = {"tests": len(cases)}
        for kind in ("failure", "error", "skipped"):
            plural = {"failure": "failures", "error": "errors"}.get(kind, kind)
            counts[plural] = sum(case.find(kind) is not None for case in cases)
        for key, value in counts.items():
            suite.set(key, str(value))
            root.set(key, str(int(root.get(key, "0")) + value))
    ET.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """Return text without the signs that XML cannot hold (a case may be called anything)."""
    return _NO_CHAR.sub("?", text)
