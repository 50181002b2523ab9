"""An engine with known latencies, against which a timer is checked."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgekd.bundle import Build
from edgekd.errors import UsageError, build_unknown_name_error
from edgekd.runtime.base import STAGES, LoadRequest, Masks, Stage

DEFAULT_LATENCIES_NS: Mapping[str, Sequence[int]] = {"infer": (1_000_000,)}


class ScriptedEngine:
    """Spins each stage for the time its script says, and answers with background."""

    name = "scripted"
    synchronisation = "spins on time.perf_counter_ns until the scripted time has passed"

    def __init__(
        self, request: LoadRequest, latencies_ns: Mapping[str, Sequence[int]] = DEFAULT_LATENCIES_NS
    ) -> None:
        """Prepare the script.

        Args:
            request: only the size of the mask is taken from it.
            latencies_ns: stage → latencies in ns, call after call, from the start again at the end.
                Stages that are not named do not exist; ``infer`` always does.

        Raises:
            UsageError: an unknown stage, an empty script or a negative latency.
        """
        spec = request.bundle.manifest.preprocess
        self._size = (spec.height, spec.width)
        for stage, script in latencies_ns.items():
            _check_script(stage, script)
        self.latencies_ns = {
            "infer": (0,),
            **{stage: tuple(script) for stage, script in latencies_ns.items()},
        }

    @classmethod
    def find_obstacle(cls, build: Build, device: str) -> str | None:
        """Return None: it runs everywhere."""
        return None

    def stages(self) -> Mapping[str, Stage]:
        """Return the scripted stages in the order of STAGES, each from the start of its script."""
        return {
            stage: self._build_stage(stage, itertools.cycle(self.latencies_ns[stage]))
            for stage in STAGES
            if stage in self.latencies_ns
        }

    def facts(self) -> dict[str, Any]:
        """Return the script."""
        return {
            "engine": self.name,
            "device": "CPU",
            "precision_effective": "none",
            "latencies_ns": {stage: list(script) for stage, script in self.latencies_ns.items()},
        }

    def close(self) -> None:
        """Do nothing."""

    def _build_stage(self, stage: str, latencies_ns: Iterator[int]) -> Stage:
        def run(value: Any) -> Any:
            deadline_ns = time.perf_counter_ns() + next(latencies_ns)
            result = self._build_masks(value) if stage == "infer" else value
            while time.perf_counter_ns() < deadline_ns:
                pass
            return result

        return run

    def _build_masks(self, frames: Any) -> Masks:
        return np.zeros((len(frames), *self._size), np.uint8)


def _check_script(stage: str, script: Sequence[int]) -> None:
    if stage not in STAGES:
        raise build_unknown_name_error("stage", stage, STAGES)
    if not script or min(script) < 0:
        raise UsageError(
            f"the script of {stage} cannot be played", received=list(script), expected="latencies ≥ 0 ns"
        )
