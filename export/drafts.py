"""Builds on trial: run under a hidden name, and given their own once they passed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.bundle import Build, Bundle, draft_build
from edgekd.export.agreement import install_checked
from edgekd.export.fixed_shapes import FixedShapes, fix_shapes


def keep_build(
    bundle: Bundle,
    *,
    target: str,
    precision: str,
    files: Mapping[str, Path | bytes],
    facts: Mapping[str, Any],
    shapes: FixedShapes | None = None,
) -> Build:
    """Write the build of a deploy graph for processors, once it has run on the golden frames.

    Whatever fails leaves the build that was there as it was.

    Args:
        bundle: the bundle.
        target: ``onnx`` or ``openvino``.
        precision: of the build.
        files: name in the build → bytes, or the path of a file to copy.
        facts: of the build's record.
        shapes: what its graph shall take alone; None leaves it free.

    Raises:
        MachineError, SegmenterFault: it cannot run here as asked, or fails.
        GateFailure: its masks are others.
    """
    with draft_build(
        bundle,
        target=target,
        precision_asked=precision,
        precision_effective=precision,
        device="CPU",
        files=files,
        facts=facts,
    ) as draft:
        return install_checked(bundle, draft) if shapes is None else fix_shapes(bundle, draft, shapes)
