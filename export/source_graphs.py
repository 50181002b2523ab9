"""The graphs that every build starts from, found without the package that wrote them, and what they say.

Free of ``onnx`` on purpose: a device completes a bundle from graphs that a workstation traced.
"""

from __future__ import annotations

import json
from typing import Any

from edgekd import __version__
from edgekd.bundle import Build, Bundle, list_builds
from edgekd.errors import IntegrityError

CORE_FILE, DEPLOY_FILE, ENGINE_FILE, PREPROCESS_FILE = (
    "core.onnx",
    "deploy.onnx",
    "engine.onnx",
    "preprocess.onnx",
)

_GRAPH_FACTS = ("calibration", "validation", "float_layers", "fallback")


def find_graphs(bundle: Bundle, precision: str = "fp32") -> Build | None:
    """Return the ONNX build in a precision, from which others are made, or None where there is none yet."""
    return next(iter(list_builds(bundle, "onnx", precision)), None)


def pick_graph_facts(build: Build) -> dict[str, Any]:
    """Return what a build says of how its graph got its precision, as one made from the same graph says too.

    Empty where the graph is that of float32.
    """
    return {key: build.record.facts[key] for key in _GRAPH_FACTS if key in build.record.facts}


def find_engine_graph(bundle: Bundle, precision: str, replaced: str | None = None) -> Build | None:
    """Return a TensorRT build that holds the engine graph in a precision below fp32, or None.

    A workstation's build serves the device: calibrated once, and read without the package onnx.

    Args:
        bundle: the bundle.
        precision: of the graph.
        replaced: the target whose build is to be made anew; a record there that is damaged counts as none.

    Raises:
        IntegrityError: the record of another one is damaged.
    """
    for target in ("tensorrt", "tensorrt-rtx"):
        try:
            builds = list_builds(bundle, target, precision)
        except IntegrityError:
            if target != replaced:
                raise
            continue
        for build in builds:
            if ENGINE_FILE in build.record.files:
                return build
    return None


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
