"""The tables of answers that verbs share: scores of networks and classes, and the builds of a bundle.

Only what a verb has loaded already is imported: every other import is for types alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekd.class_scores import list_foreground
from edgekd.tables import Table, format_bytes, format_count

if TYPE_CHECKING:
    from edgekd.bundle import Build, Bundle
    from edgekd.distill import NetworkResult

ANY_FRAMES = "any"
SCORE_COLUMNS = ("Acc %", "mIoU %", "Dice %", "kappa %")


def format_scores(scores: Mapping[str, Any]) -> tuple[str, ...]:
    """Return Acc, mIoU, Dice and kappa in percent, a dash for what is undefined."""
    return tuple(_format_percent(scores.get(name)) for name in ("acc", "miou", "dice", "kappa"))


def _format_percent(value: float | None) -> str:
    # Adding 0 after rounding takes the sign from a kappa that is 0 but for its last bits.
    return "–" if value is None else f"{round(100 * value, 2) + 0.0:.2f}"


def build_networks_table(networks: Mapping[str, NetworkResult]) -> Table:
    """Return the scores on the test split, parameters and MACs of a run's networks, by role."""
    rows = tuple(
        (
            f"{role} ({one.model.name})",
            *format_scores(one.test),
            format_count(one.model.parameters),
            format_count(one.model.macs),
        )
        for role, one in networks.items()
    )
    return Table("Test split", ("Network", *SCORE_COLUMNS, "Parameters", "MACs"), rows)


def build_score_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row of scores in percent for each name."""
    cells = tuple(
        (name, *format_scores(scores), str(scores.get("num_images", "–"))) for name, scores in rows.items()
    )
    return Table("Scores", ("What", *SCORE_COLUMNS, "Images"), cells)


def list_class_tables(classes: Sequence[Mapping[str, Any]], title: str = "Classes") -> list[Table]:
    """Return the table of the foreground classes where there are several."""
    shown = list_foreground(classes)
    return [_build_class_table(shown, title)] if shown else []


def _build_class_table(classes: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Return Dice and IoU in percent of each class, from ``ClassScores.to_dict()``."""
    rows = tuple(
        (str(one["name"]), _format_percent(one["dice"]), _format_percent(one["iou"]), str(one["num_images"]))
        for one in classes
    )
    return Table(title, ("Class", "Dice %", "IoU %", "Images with it"), rows)


def build_builds_table(bundle: Bundle, builds: Sequence[Build]) -> Table:
    """Return what was asked of each build and came of it; its frames where any was fixed to some."""
    limits = [_format_limits(one.record.facts) for one in builds]
    has_limits = any(text != ANY_FRAMES for text in limits)
    rows = tuple(
        (
            one.name,
            one.record.precision_asked,
            one.record.precision_effective,
            *((text,) if has_limits else ()),
            one.record.status,
            format_bytes(sum(fact.size for fact in one.record.files.values())),
            str(one.path.relative_to(bundle.path)),
        )
        for one, text in zip(builds, limits, strict=True)
    )
    frames = ("Frames",) if has_limits else ()
    return Table("Builds", ("Build", "Asked", "Effective", *frames, "Status", "Size", "In the bundle"), rows)


def _format_limits(facts: Mapping[str, Any]) -> str:
    """Return the frames that a build was fixed to by option."""
    size, batch = facts.get("frame_size"), facts.get("batch")
    parts = [] if size is None else ["{}×{}".format(*size)]
    return ", ".join([*parts, *([] if batch is None else [f"batch {batch}"])]) or ANY_FRAMES
