"""Builds of any content, written in one call."""

from __future__ import annotations

from typing import Any

from edgekd.bundle import Build, Bundle, draft_build, install_build


def write_build(bundle: Bundle, **fields: Any) -> Build:
    """Write a build of the fields of `draft_build` and give it its name."""
    with draft_build(bundle, **fields) as draft:
        return install_build(bundle, draft)
