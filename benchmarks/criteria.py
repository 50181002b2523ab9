"""What the gate judges by, declared before it runs: ``parity.toml``, options, or the defaults.

A file may look like this; what it leaves out keeps its default, and options win over it::

    min_groups = 40
    [margins]
    dice = 0.01
    acc = 0.002
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from edgekd.errors import UsageError, build_unknown_name_error
from edgekd.specs import Spec
from edgekd.stats import DEFAULT_MARGINS, MIN_GROUPS

Margin = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Margins(Spec):
    """The largest loss accepted, engine against student, each in the score's own unit (0 to 1)."""

    acc: Margin = DEFAULT_MARGINS["acc"]
    miou: Margin = DEFAULT_MARGINS["miou"]
    dice: Margin = DEFAULT_MARGINS["dice"]
    kappa: Margin = DEFAULT_MARGINS["kappa"]


class GateConfig(Spec):
    """The criteria of the gate.

    Attributes:
        margins: one a score; every score must pass.
        min_groups: groups below which nothing is decided; may be raised, not lowered.
        min_agreement: part of equal pixels below which an engine fails whatever the scores say; None takes
            the floor of its precision, ``bundle.MIN_AGREEMENT``.
        num_resamples: of the bootstrap.
    """

    margins: Margins = Margins()
    min_groups: Annotated[int, Field(ge=MIN_GROUPS)] = MIN_GROUPS
    min_agreement: Annotated[float, Field(gt=0, le=1)] | None = None
    num_resamples: Annotated[int, Field(ge=1000, le=1_000_000)] = 10_000


def parse_margins(texts: Sequence[str]) -> dict[str, float]:
    """Return the margins of options such as ``dice=0.02``.

    Raises:
        UsageError: no number, or an unknown score.
    """
    margins: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in DEFAULT_MARGINS:
            raise build_unknown_name_error("score", name, DEFAULT_MARGINS)
        try:
            margins[name] = float(value)
        except ValueError as error:
            raise UsageError(
                "a margin that is no number", received=repr(text), expected="such as dice=0.02"
            ) from error
    return margins


def replace_margins(config: GateConfig, margins: Mapping[str, float]) -> GateConfig:
    """Return the criteria with some margins replaced.

    Raises:
        UsageError: an unknown score, or a margin that cannot be meant.
    """
    for name, margin in margins.items():
        if name not in DEFAULT_MARGINS:
            raise build_unknown_name_error("score", name, DEFAULT_MARGINS)
        if not (math.isfinite(margin) and 0 < margin < 1):
            raise UsageError(
                f"the margin of {name} cannot be meant", received=margin, expected="above 0, below 1"
            )
    return config.model_copy(update={"margins": config.margins.model_copy(update=dict(margins))})
