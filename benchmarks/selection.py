"""Which builds of a bundle a command runs, and why it leaves the others."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd.bundle import (
    GOLDEN_FILE,
    Build,
    BuildRecord,
    Bundle,
    check_precision,
    check_target,
    choose_build,
    format_export,
    list_build_names,
    list_builds,
    prefer_device,
)
from edgekd.errors import MachineError
from edgekd.runtime import ENGINES, Segmenter, list_runnable, load
from edgekd.runtime.catalogue import PROCESSOR

PROBES = ("null", "scripted")
"""Targets without a build: they measure the harness itself."""
_TARGETS: Mapping[str | None, str] = {"bf16": "openvino", "fp16": "tensorrt"}
"""Who computes in a precision that ONNX Runtime has none of on a processor."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A build that will be run.

    Attributes:
        name: the build's name, with the device where another one was asked for.
        target, precision: as ``runtime.load`` takes them.
        device: the device asked for, or the build's own.
    """

    name: str
    target: str
    precision: str
    device: str | None

    def find_build(self, bundle: Bundle) -> Build:
        """Return its build; errors are those of ``bundle.choose_build``."""
        return choose_build(bundle, self.target, self.precision, self.device)

    def load(self, bundle: Bundle, cache: Path | None = None, threads: int | None = None) -> Segmenter:
        """Load its engine as ``runtime.load`` does; threads are for the processor alone."""
        threads = threads if self.is_on_processor else None
        return load(bundle, self.target, self.precision, self.device, cache=cache, threads=threads)

    @property
    def is_on_processor(self) -> bool:
        """Whether its engine runs on the processor."""
        return (self.device or ENGINES[self.target].device).upper() == PROCESSOR


def list_one_size(bundle: Bundle, choices: Sequence[Choice]) -> dict[str, Build]:
    """Return the builds, by name of their choice, that take frames of one size only."""
    builds = {choice.name: choice.find_build(bundle) for choice in choices if choice.target not in PROBES}
    return {name: build for name, build in builds.items() if build.record.facts.get("frame_size") is not None}


def list_own_frames(bundle: Bundle, choices: Sequence[Choice]) -> dict[str, Build]:
    """Return those of `list_one_size` that hold golden frames of that size themselves."""
    builds = list_one_size(bundle, choices)
    return {name: build for name, build in builds.items() if GOLDEN_FILE in build.record.files}


def format_frame_size(build: Build) -> str:
    """Return ``H×W`` of the frames that a build of `list_one_size` takes."""
    return "{}×{}".format(*build.record.facts["frame_size"])


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A build that is not run.

    Attributes:
        name: of the build.
        reason: why.
        status: ``skipped``; or ``built, not run`` where nothing ever ran this build on any machine.
        is_obstacle: it cannot run here; else a choice of the user left it out.
    """

    name: str
    reason: str
    status: str = "skipped"
    is_obstacle: bool = False


def choose_builds(
    bundle: Bundle,
    targets: Sequence[str] = (),
    precision: str | None = None,
    device: str | None = None,
    *,
    allow_probes: bool = False,
) -> tuple[list[Choice], list[Skipped]]:
    """Return the builds to run and those left out.

    Without ``targets`` every build that can run here, on the device asked for, is taken; what cannot is
    listed with its reason.
    A target that is named must run.

    Args:
        bundle: the opened bundle.
        targets: names of ``runtime.ENGINES``; empty takes all builds.
        precision: only builds of this precision; None takes all.
        device: where to run; None takes each build's own device.
        allow_probes: take PROBES as targets too; their masks mean nothing.

    Raises:
        UsageError: an unknown target or precision.
        MachineError: a named target has no build or cannot run here, or nothing can.
    """
    if precision is not None:
        check_precision(precision)
    if targets:
        for target in targets:
            if not (allow_probes and target in PROBES):
                check_target(target)
        found = [_choose_target(bundle, target, precision, device) for target in dict.fromkeys(targets)]
        choices, skipped = ([one for part in parts for one in part] for parts in zip(*found, strict=True))
        return choices, skipped + _list_unasked(bundle, choices, skipped)
    return _choose_all(bundle, precision, device)


def format_command(verb: str, bundle: Path, options: Mapping[str, object]) -> str:
    """Return the command line that repeats a run; options that are None are left out, lists are repeated."""
    words = ["edgekd", verb, str(bundle)]
    for name, value in options.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            words += [] if one is None else [f"--{name}", str(one)]
    return shlex.join(words)


def _choose_target(
    bundle: Bundle, target: str, precision: str | None, device: str | None
) -> tuple[list[Choice], list[Skipped]]:
    if target in PROBES:
        return [Choice(target, target, precision or "fp32", device)], []
    found = list_runnable(bundle, target, precision, device)
    if not found and target == "tensorrt":
        _refer_to_rtx(bundle)
    if not found:
        choose_build(bundle, target, precision or "fp32", device)  # raises the error that names the command
    choices, skipped = _divide(found, device)
    # A build for a device that is elsewhere keeps nobody from the others.
    failed = [one for one in skipped if one.is_obstacle and (not choices or not one.is_for_elsewhere)]
    if failed:
        raise MachineError(f"{failed[0].name} cannot run here: {failed[0].reason}")
    return choices, [one.skip() for one in skipped]


def _list_unasked(bundle: Bundle, choices: Sequence[Choice], skipped: Sequence[Skipped]) -> list[Skipped]:
    """Return the builds that are there and were not asked for, so that a report tells them from lost ones."""
    known = {one.find_build(bundle).name for one in choices if one.target not in PROBES}
    known |= {one.name for one in skipped}
    return [Skipped(name, "not asked for") for name in list_build_names(bundle) if name not in known]


def _refer_to_rtx(bundle: Bundle) -> None:
    """Raise MachineError where TensorRT-RTX built the engine that ``tensorrt`` is asked for."""
    if list_builds(bundle, "tensorrt-rtx"):
        raise MachineError(
            f"{bundle.path} holds no tensorrt build, only one of TensorRT-RTX",
            action="name --target tensorrt-rtx, or build on the device's own GPU: "
            + format_export(bundle.path, "tensorrt"),
        )


def _choose_all(
    bundle: Bundle, precision: str | None, device: str | None
) -> tuple[list[Choice], list[Skipped]]:
    found = list_runnable(bundle, device=device)
    others = [build for build, _ in found if precision not in (None, build.record.precision_asked)]
    skipped = [Skipped(build.name, f"not of the precision asked for, {precision}") for build in others]
    choices, left = _divide([one for one in found if one[0] not in others], device)
    skipped += [one.skip() for one in left]
    if not choices:
        raise _build_none_error(bundle, precision, device, skipped)
    return choices, skipped


def _build_none_error(
    bundle: Bundle, precision: str | None, device: str | None, skipped: Sequence[Skipped]
) -> MachineError:
    # Each reason says what is next for its build; here one thing is next for all.
    parts = [(one, *one.reason.partition(". Next: ")) for one in skipped]
    reasons = [f"{one.name}: {reason}" for one, reason, _, _ in parts]
    obstacles = {action for one, _, _, action in parts if one.is_obstacle}
    if len(obstacles) == 1 and obstacles != {""}:
        action = obstacles.pop()
    elif obstacles and device is not None:
        action = f"leave --device {device} out; `edgekd doctor` tells what this machine can run"
    else:
        action = format_export(bundle.path, _TARGETS.get(precision, "onnx"), precision)
    return MachineError(
        f"no build of {bundle.path} can run here" + ("" if precision is None else f" in {precision}"),
        received="; ".join(reasons) or "no build at all",
        action=action,
    )


@dataclasses.dataclass(frozen=True)
class _Left:
    """A build that is left out: it cannot run (``is_obstacle``), or another is run in its place."""

    build: Build
    reason: str
    is_obstacle: bool

    @property
    def name(self) -> str:
        return self.build.name

    @property
    def is_for_elsewhere(self) -> bool:
        record = self.build.record
        return record.target in ("onnx", "openvino") and record.device != PROCESSOR

    def skip(self) -> Skipped:
        never = self.is_obstacle and self.build.record.status == "built, not run"
        return Skipped(self.name, self.reason, "built, not run" if never else "skipped", self.is_obstacle)


def _divide(
    found: Sequence[tuple[Build, str | None]], device: str | None
) -> tuple[list[Choice], list[_Left]]:
    """Return what is run of builds and their obstacles, and what is left out; one of a cell on a device."""
    choices: list[Choice] = []
    left: list[_Left] = []
    builds = [build for build, _ in found]
    for build, reason in found:
        taken = build if device is None else _pick_for(device, build, builds)
        if taken is not build:
            left.append(_Left(build, f"{taken.name} is taken for the device asked for, {device}", False))
        elif reason is not None:
            left.append(_Left(build, reason, True))
        else:
            choices.append(_build_choice(build.name, build.record, device))
    return choices, left


def _pick_for(device: str, build: Build, builds: Sequence[Build]) -> Build:
    """Return the one of a build's target and precision that is run on a device."""
    cell = (build.record.target, build.record.precision_asked)
    same = [one for one in builds if (one.record.target, one.record.precision_asked) == cell]
    wanted = prefer_device([one.record.device for one in same], device)
    return next(one for one in same if one.record.device == wanted)


def _build_choice(name: str, record: BuildRecord, device: str | None) -> Choice:
    elsewhere = device is not None and device.lower() != record.device.lower()
    return Choice(
        name=f"{name} on {device}" if elsewhere else name,
        target=record.target,
        precision=record.precision_asked,
        device=device or record.device,
    )
