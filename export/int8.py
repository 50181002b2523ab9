"""An int8 core that meets its limits: quantise, judge, and give the most sensitive layers back to float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.errors import GateFailure
from edgekd.export.calibration import Calibration
from edgekd.export.judgement import JudgedGraph, Judgement, judge_logits
from edgekd.export.layers import Product, list_products
from edgekd.export.quantize import Form, clip_share, list_float_layers, quantize_core, rank_layers
from edgekd.export.running import run_graph
from edgekd.progress import Progress
from edgekd.runtime.precision import DECISIVE_SHARE

NUM_RANKING = 16
# Frames of the same kind leave the range of others now and then, but not often.
SUSPICIOUS_CLIPPING = 0.01


def build_int8(
    core: onnx.ModelProto, calibration: Calibration, form: Form, *, quiet: bool = False
) -> JudgedGraph:
    """Quantise a core; where its limits are missed, give layers back to float32, the most sensitive first.

    Sensitivity is the error of the logits when a layer alone is int8. At most 5 % of the
    multiply-accumulates go back, else the graph would not be int8.

    The graph takes and gives float32, with Q/DQ between.

    Args:
        core: the float32 graph ``image`` → ``logits``.
        calibration: frames for the ranges, and others to judge by.
        form: see `edgekd.export.quantize`.
        quiet: no progress bar.

    Raises:
        GateFailure: the limits are missed all the same; the message says what was tried.
    """
    trial = _Trial(core, calibration, form)
    graph, judgement = trial.run(())
    steps: list[dict[str, Any]] = []
    kept: list[str] = []
    if not judgement.passed:
        for name in _list_worst(trial, quiet=quiet):
            # A layer that is too large to go back leaves room for smaller ones.
            if trial.compute_float_share([*kept, name]) > 1 - DECISIVE_SHARE:
                continue
            kept.append(name)
            graph, judgement = trial.run(kept)
            steps.append({"layer": name, **judgement.describe()})
            if judgement.passed:
                break
    if not judgement.passed:
        raise _build_error(judgement, kept, calibration)
    facts = {
        "calibration": calibration.describe(),
        "validation": judgement.describe(),
        "float_layers": [*kept, *trial.always_float],
        "fallback": steps,
    }
    notices = [f"int8: {judgement.format()}, run by ONNX Runtime{calibration.remark}"]
    if kept:
        notices.append(f"int8: given back to float32 to meet the limits: {', '.join(kept)}")
    return JudgedGraph(graph, facts, notices)


class _Trial:
    """Quantising and judging one core with one set of frames."""

    def __init__(self, core: onnx.ModelProto, calibration: Calibration, form: Form) -> None:
        self.core, self.calibration = core, calibration
        self.form: Form = form
        self.products: Sequence[Product] = list_products(core)
        self.always_float = list_float_layers(core, form)
        self._reference: NDArray[np.float32] = run_graph(core, calibration.val_tensors, optimise=True)[0]

    def run(self, float_layers: Sequence[str]) -> tuple[onnx.ModelProto, Judgement]:
        """Return the graph with these layers in float32, and what it costs."""
        graph = quantize_core(self.core, self.calibration.tensors, self.form, float_layers=float_layers)
        logits = run_graph(graph, self.calibration.val_tensors, optimise=True)[0]
        return graph, judge_logits("int8", self._reference, logits, self.calibration.val_truths)

    def compute_float_share(self, float_layers: Sequence[str]) -> float:
        """Return the part of the multiply-accumulates of these layers and those that are float32 anyway."""
        kept = {*float_layers, *self.always_float}
        total = sum(product.macs for product in self.products)
        return sum(product.macs for product in self.products if product.name in kept) / total


def _list_worst(trial: _Trial, *, quiet: bool) -> list[str]:
    tensors = trial.calibration.tensors[:NUM_RANKING]
    logits = run_graph(trial.core, tensors, optimise=True)[0]
    errors: dict[str, float] = {}
    with Progress(quiet=quiet) as progress:
        handle = progress.add("finding sensitive layers", len(trial.products) - len(trial.always_float))
        for name, error in rank_layers(trial.core, tensors, trial.form, logits):
            errors[name] = error
            progress.advance(handle, note=name)
    return sorted(errors, key=lambda name: -errors[name])


def _build_error(judgement: Judgement, kept: Sequence[str], calibration: Calibration) -> GateFailure:
    clipped = clip_share(calibration.val_tensors, calibration.tensors)
    reason = ""
    action = "let the student learn to round (edgekd distill --quantize int8), or export in another precision"
    if clipped > SUSPICIOUS_CLIPPING:
        ranges = [
            f"{values.min():.3g} to {values.max():.3g}"
            for values in (calibration.tensors, calibration.val_tensors)
        ]
        reason = (
            f"; {clipped:.0%} of the validation images' values lie beyond what the calibration images reach "
            f"({ranges[0]} where validation has {ranges[1]})"
        )
        action = "calibrate with frames of the student's own kind, at the same brightness and normalisation"
    tried = f", with {', '.join(kept)} in float32" if kept else ""
    return GateFailure(
        "the int8 student misses its limits on the validation split",
        received=judgement.format() + tried + reason,
        expected=judgement.describe_limits(),
        action=action,
    )
