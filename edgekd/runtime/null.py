"""An engine that does nothing: what remains when it is timed is the harness itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekd.bundle import Build
from edgekd.runtime.base import STAGES, LoadRequest, Masks, Stage


class NullEngine:
    """Passes the frames through every stage and answers with background."""

    name = "null"
    synchronisation = "nothing to wait for"

    def __init__(self, request: LoadRequest) -> None:
        """Take the size of the mask from the bundle of ``request``."""
        spec = request.bundle.manifest.preprocess
        self._size = (spec.height, spec.width)

    @classmethod
    def find_obstacle(cls, build: Build, device: str) -> str | None:
        """Return None: it runs everywhere."""
        return None

    def stages(self) -> Mapping[str, Stage]:
        """Return all of STAGES; each but ``infer`` returns what it was given."""
        return {name: self._infer if name == "infer" else _pass_through for name in STAGES}

    def facts(self) -> dict[str, Any]:
        """Return that nothing is computed."""
        return {"engine": self.name, "device": "CPU", "precision_effective": "none"}

    def close(self) -> None:
        """Do nothing."""

    def _infer(self, frames: Any) -> Masks:
        return np.zeros((len(frames), *self._size), np.uint8)


def _pass_through(value: Any) -> Any:
    return value
