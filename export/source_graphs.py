"""The graphs that every build starts from, found without the package that wrote them, and what they say.

Free of ``onnx`` on purpose: a device completes a bundle from graphs that a workstation traced.
"""

from __future__ import annotations

import json

from edgekd import __version__
from edgekd.bundle import Build, Bundle, find_build, list_builds

CORE_FILE, DEPLOY_FILE, ENGINE_FILE, PREPROCESS_FILE = (
    "core.onnx",
    "deploy.onnx",
    "engine.onnx",
    "preprocess.onnx",
)


def find_graphs(bundle: Bundle) -> Build | None:
    """Return the fp32 ONNX build, from which every other build is made, or None where there is none yet."""
    names = {(build.record.target, build.record.precision_asked) for build in list_builds(bundle)}
    return find_build(bundle, "onnx", "fp32") if ("onnx", "fp32") in names else None


def describe_bundle(bundle: Bundle) -> dict[str, str]:
    """Return what travels inside a graph: the facts that a reader without the bundle needs, as text."""
    manifest = bundle.manifest
    return {
        "edgekd_version": __version__,
        "edgekd_manifest_sha256": bundle.manifest_sha256,
        "edgekd_model": manifest.name,
        "edgekd_classes": json.dumps(manifest.classes.names),
        "edgekd_preprocess": json.dumps(manifest.preprocess.model_dump(mode="json"), sort_keys=True),
    }
