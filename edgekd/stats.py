"""Is a candidate no worse than its reference? The verdict drawn from the bootstrap's bounds.

Non-inferiority (CONSORT extension, Piaggio et al. 2012): the one-sided lower bound of
candidate - reference lies above -margin. Inferiority: the upper bound lies below -margin. Between the two,
nothing is decided, and the number of groups that would decide follows from the spread seen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Literal

from edgekd.bootstrap import Difference
from edgekd.errors import UsageError

Decision = Literal["pass", "fail", "inconclusive"]

DEFAULT_MARGINS: Mapping[str, float] = {"acc": 0.002, "miou": 0.01, "dice": 0.01, "kappa": 0.01}
MIN_GROUPS = 20
POWER = 0.8
"""The chance of a decision that ``Verdict.groups_needed`` stands for."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The decision for each score and for all of them together.

    Attributes:
        overall: ``pass`` only where every score passes; ``fail`` where one fails; else ``inconclusive``.
        metrics: one decision a score.
        reasons: why it does not pass, one sentence each.
        groups_needed: where inconclusive, groups with which every open score would be decided with a chance
            of POWER if difference and spread stay as they are; None where decided, or where that is unknown.
    """

    overall: Decision
    metrics: dict[str, Decision]
    reasons: tuple[str, ...]
    groups_needed: int | None = None


def decide_non_inferiority(
    differences: Mapping[str, Difference],
    margins: Mapping[str, float] = DEFAULT_MARGINS,
    *,
    min_groups: int = MIN_GROUPS,
    identical: bool,
) -> Verdict:
    """Judge each difference against its margin; all must pass.

    Args:
        differences: from ``paired_bootstrap``.
        margins: the largest loss accepted for each score, above zero, in the score's own unit.
        min_groups: fewer groups decide nothing.
        identical: the masks of both sides are equal pixel by pixel, so there is nothing left to estimate.

    Raises:
        UsageError: no margin, one that is not above zero, or one for a score that was not measured.
    """
    _check_margins(differences, margins)
    if identical:
        return Verdict("pass", dict.fromkeys(margins, "pass"), ())
    num_groups = min(differences[name].num_groups for name in margins)
    needed = {name: _count_groups_needed(differences[name], margin) for name, margin in margins.items()}
    if num_groups < min_groups:
        counts = [count for count in needed.values() if count is not None]
        # One score of which nothing is known leaves the number unknown.
        enough = max(min_groups, *counts) if len(counts) == len(needed) else None
        reason = f"{num_groups} groups decide nothing, at least {min_groups} are needed; "
        reason += _describe_enough(enough)
        return Verdict("inconclusive", dict.fromkeys(margins, "inconclusive"), (reason,), enough)
    decisions: dict[str, Decision] = {}
    reasons: list[str] = []
    for name, margin in margins.items():
        decisions[name], reason = _decide_metric(name, differences[name], margin, needed[name])
        if reason:
            reasons.append(reason)
    found = set(decisions.values())
    overall: Decision = "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"
    counts = [needed[name] for name, decision in decisions.items() if decision == "inconclusive"]
    known = [count for count in counts if count is not None]
    decides = overall == "inconclusive" and len(known) == len(counts)
    return Verdict(overall, decisions, tuple(reasons), max(known) if decides else None)


def _decide_metric(
    name: str, difference: Difference, margin: float, needed: int | None
) -> tuple[Decision, str]:
    if difference.degenerate:
        return (
            "inconclusive",
            f"{name}: the bootstrap is degenerate, the resamples say nothing about the difference",
        )
    if difference.lower > -margin:
        return "pass", ""
    if difference.upper < -margin:
        return "fail", f"{name}: the upper bound {difference.upper:+.4f} is below {-margin:+.4f}"
    return "inconclusive", (
        f"{name}: {-margin:+.4f} lies between the bounds {difference.lower:+.4f} and {difference.upper:+.4f}"
        f" of {difference.num_groups} groups; {_describe_enough(needed)}"
    )


def _describe_enough(groups: int | None) -> str:
    if groups is None:
        return "no number of groups is known to decide"
    return f"about {groups} groups would decide"


def _count_groups_needed(difference: Difference, margin: float) -> int | None:
    """Return the groups for a decision on the side of the estimate, with a chance of POWER.

    The distance of a bound shrinks with the root of the number of groups; the estimate must stay clear of
    the margin by that distance and by what its own scatter takes: the factor (z_0.95 + z_POWER) / z_0.95.
    """
    distance = difference.delta + margin
    width = difference.delta - difference.lower if distance > 0 else difference.upper - difference.delta
    if difference.degenerate or not math.isfinite(width) or abs(distance) < 1e-6 * margin:
        return None
    normal = NormalDist()
    factor = 1 + normal.inv_cdf(POWER) / normal.inv_cdf(0.95)
    return max(MIN_GROUPS, math.ceil(difference.num_groups * (factor * width / distance) ** 2))


def _check_margins(differences: Mapping[str, Difference], margins: Mapping[str, float]) -> None:
    if not margins:
        raise UsageError("no margin to judge by", expected="one or more scores with a margin")
    for name, margin in margins.items():
        if name not in differences:
            raise UsageError(
                "a margin for a score that was not measured",
                received=repr(name),
                expected="one of " + ", ".join(sorted(differences)),
            )
        if not margin > 0:
            raise UsageError(
                f"the margin of {name} cannot be meant", received=margin, expected="a number above zero"
            )
