"""The curves of a run: one JSON line an epoch, and a picture."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.atomic import write_bytes_atomic

# Blue, vermilion and grey of Okabe and Ito's palette, told apart by the colour-blind.
COLORS = {"teacher": "#0072B2", "student": "#D55E00", "control": "#777777", "model": "#0072B2"}


def write_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line and epoch, atomically.

    Each holds ``epoch`` (from 1), ``phase`` and ``learners``: name → ``lr``, ``losses`` (term → mean over
    the epoch, unweighted, and ``total``, weighted) and ``val`` (scores).
    """
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in history)
    # Checkpoints hold the same and wait for the disk; here that was a twentieth of a short epoch.
    write_bytes_atomic(path, text.encode(), durable=False)


def draw_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG of two panels: validation Dice, and the training loss against the truth."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(10, 4))
    figure.subplots_adjust(left=0.05, right=0.985, top=0.9, bottom=0.13, wspace=0.16)
    FigureCanvasAgg(figure)
    dice_axes, loss_axes = figure.subplots(1, 2)
    for name in COLORS:
        records = [record for record in history if name in record["learners"]]
        if records:
            _draw_learner(dice_axes, loss_axes, name, records)
    _finish(dice_axes, history, "Dice on the validation split")
    _finish(loss_axes, history, "training loss against the truth")
    # A network that finds nothing must not hide on the axis.
    dice_axes.set_ylim(-0.02, 1)
    loss_axes.set_yscale("log")
    loss_axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=12))
    loss_axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    loss_axes.yaxis.set_minor_formatter(NullFormatter())
    dice_axes.legend(frameon=False, loc="best")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes_atomic(path, buffer.getvalue())


def _draw_learner(dice_axes: Any, loss_axes: Any, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    epochs = [record["epoch"] for record in records]
    facts = [record["learners"][name] for record in records]
    dice = [math.nan if fact["val"]["dice"] is None else fact["val"]["dice"] for fact in facts]
    losses = [_sum_truth_terms(fact["losses"]) for fact in facts]
    # One point alone draws no line.
    style = {"color": COLORS[name], "linewidth": 1.8, "marker": "o" if len(epochs) == 1 else None}
    dice_axes.plot(epochs, dice, label=name, **style)
    loss_axes.plot(epochs, losses, **style)


def _sum_truth_terms(losses: Mapping[str, float]) -> float:
    from edgekd.distill.objective import LOSSES

    return sum(value for term, value in losses.items() if term in LOSSES and LOSSES[term].kind == "truth")


def _finish(axes: Any, history: Sequence[Mapping[str, Any]], title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("epoch")
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    first_of_two = [record["epoch"] for record in history if record["phase"] == 2][:1]
    for epoch in first_of_two:
        if epoch > 1:
            axes.axvline(epoch - 0.5, color="#999999", linestyle="--", linewidth=1)
            axes.annotate(
                "phase 2", (epoch - 0.5, 1), xycoords=("data", "axes fraction"), xytext=(4, -4),
                textcoords="offset points", va="top", fontsize=9, color="#666666",
            )  # fmt: skip
