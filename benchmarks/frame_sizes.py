"""Builds that take frames of one size, beside data that may hold others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekd.benchmarks.selection import Choice, Skipped, list_one_size
from edgekd.bundle import Bundle
from edgekd.errors import InputError
from edgekd.runtime.catalogue import PROCESSOR


def leave_misfits(
    bundle: Bundle, choices: Sequence[Choice], shapes: Iterable[tuple[int, ...]], *, named: bool
) -> tuple[list[Choice], list[Skipped]]:
    """Return the builds that take frames of all these shapes, and those that do not with the reason.

    Args:
        bundle: the opened bundle.
        choices: builds to be run.
        shapes: (H, W) or (H, W, 3) of each frame; read only as far as needed, and not at all where every
            build takes any.
        named: the builds were asked for by their target, so none may be left out.

    Raises:
        InputError: a build that was named does not take the frames, or none does.
    """
    builds = list_one_size(bundle, choices)
    fixed = {name: tuple(build.record.facts["frame_size"]) for name, build in builds.items()}
    misfits: dict[str, str] = {}
    for height, width, *_ in shapes if fixed else ():
        for name, own in fixed.items():
            if name not in misfits and (height, width) != own:
                misfits[name] = f"made for frames of {own[0]}×{own[1]}, the data hold {height}×{width}"
        if len(misfits) == len(fixed):
            break
    # A build for another device keeps nobody from the processor's of the same name.
    refused = named and any(builds[name].record.device == PROCESSOR for name in misfits)
    if refused or (misfits and len(misfits) == len(choices)):
        raise InputError(
            "a build that was named does not take these frames" if named else "no build takes these frames",
            received="; ".join(f"{name}: {reason} (height × width)" for name, reason in misfits.items()),
            action="export a build for any size, or for this one, by --frame-size; or name other data",
        )
    left = [choice for choice in choices if choice.name not in misfits]
    return left, [Skipped(name, reason) for name, reason in misfits.items()]
