"""The gains as a picture: one row a set and structure, one column a score."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from edgekd.atomic import write_bytes_atomic
from edgekd.benchmarks.suites.distillation.gains import Gain, describe_scope
from edgekd.metrics import METRICS

HELPED, UNDECIDED, HARMED = "#0072B2", "#777777", "#D55E00"


def draw_gains(path: Path, rows: Mapping[str, Mapping[str, Gain]]) -> None:
    """Write a PNG with each row's gain and 95 % interval, in percentage points.

    Args:
        path: where to.
        rows: label → gains; the last one is the mean and drawn apart.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = list(rows)
    height = 1.3 + 0.34 * len(labels)
    figure = Figure(figsize=(11, height))
    FigureCanvasAgg(figure)
    # Room in inches for titles and for ticks with the label below, whatever the number of rows.
    figure.subplots_adjust(left=0.19, right=0.985, top=1 - 0.3 / height, bottom=0.62 / height, wspace=0.08)
    for index, (metric, axes) in enumerate(zip(METRICS, figure.subplots(1, len(METRICS)), strict=True)):
        for row, label in enumerate(labels):
            gain = rows[label][metric]
            color = HELPED if gain.low > 0 else HARMED if gain.high < 0 else UNDECIDED
            y = len(labels) - 1 - row - (0.4 if row == len(labels) - 1 else 0)
            axes.plot([100 * gain.low, 100 * gain.high], [y, y], color=color, linewidth=2)
            axes.plot(100 * gain.delta, y, "D" if row == len(labels) - 1 else "o", color=color, markersize=6)
        axes.axvline(0, color="#bbbbbb", linewidth=1, zorder=0)
        axes.set_title(
            {"acc": "Acc", "miou": "mIoU", "dice": "Dice"}.get(metric, metric), loc="left", fontsize=11
        )
        positions = [
            len(labels) - 1 - row - (0.4 if row == len(labels) - 1 else 0) for row in range(len(labels))
        ]
        axes.set_yticks(positions, labels if index == 0 else [""] * len(labels))
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_ylim(-0.9, len(labels) - 0.5)
    scope = describe_scope([gain for row in rows.values() for gain in row.values()])
    figure.supxlabel(f"student − control, percentage points, 95 % interval over {scope}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes_atomic(path, buffer.getvalue())
