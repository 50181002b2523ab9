"""What must be equal for a run to be continued: every choice, and every byte of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgekd.config import DistillConfig, FitConfig
from edgekd.config_reader import AnyConfig, build_config, load_config
from edgekd.errors import InputError, IntegrityError, MachineError, UsageError

CONFIG_FILE = "config.json"
_MISSING = "not there"
# What runs did before an option existed, where that is not its default.
_BEFORE = {"mix": False}


class Change(NamedTuple):
    """A choice (dots lead into tables) with its value in the run and its value now."""

    key: str
    before: Any
    now: Any


def load_resumed_config(
    kind: type[AnyConfig], out: Path, path: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> AnyConfig:
    """Return the configuration that the run at ``out`` was begun with.

    Args:
        kind: TrainConfig or DistillConfig.
        out: the run to be continued.
        path, overrides: see ``load_config``; what they name must agree with the run, the rest need not be
            repeated.

    Raises:
        InputError: there is no run at ``out``, or the configuration file cannot be read.
        UsageError: the run is of the other kind, or a choice named now differs; all of them are listed.
        IntegrityError: the run's record is damaged.
    """
    recorded = read_choices(out)
    verb = "distill" if issubclass(kind, DistillConfig) else "train"
    if recorded.get("kind") != verb:
        raise UsageError(
            f"the run {out} was not begun by `edgekd {verb}`",
            received=f"a run of {recorded.get('kind')}",
            action=f"continue it with `edgekd {recorded.get('kind')}`",
        )
    config = _complete_config(kind, recorded["config"])
    named = load_config(kind, path, overrides).model_dump(mode="json", exclude_unset=True)
    before = config.model_dump(mode="json")
    _refuse_changes(out, [change for change in find_changes(before, named) if change.now is not _MISSING])
    return config


def check_same_choices(out: Path, kind: type[FitConfig], choices: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the keys, where choices differ from the run's; InputError without a run.

    An option that did not exist when the run was begun counts as what runs did then. MachineError where the
    choices are the same and ``auto`` means another precision here.
    """
    recorded = read_choices(out)
    recorded.pop("data_sha256", None)
    if recorded.get("kind") == choices.get("kind"):
        recorded["config"] = _complete_config(kind, recorded["config"]).model_dump(mode="json")
    changes = find_changes(recorded, json.loads(json.dumps(dict(choices))))
    if [change.key for change in changes] == ["precision"]:
        raise MachineError(
            f"the run {out} cannot be continued in another precision",
            received=f"{changes[0].now}, which this machine would compute in",
            expected=f"{changes[0].before}, which the run began with",
            action="continue it on a machine like the first, or begin a new run",
        )
    _refuse_changes(out, changes)


def check_same_data(out: Path, sha256: Mapping[str, str]) -> None:
    """Raise InputError, naming the split, where one of ``sha256`` differs from the run's."""
    known = read_choices(out)["data_sha256"]
    began = {split: known[split] for split in sha256 if split in known}
    for split, before, now in find_changes(began, dict(sha256)):
        raise InputError(
            f"the {split} split changed since the run {out} began",
            received=f"sha256 {now[:12]}…",
            expected=f"{before[:12]}…",
            action="restore the files, or begin a new run",
        )


def find_changes(before: Any, now: Any, key: str = "") -> list[Change]:
    """Return every key whose value differs, in the order of ``before``."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return [] if before == now else [Change(key, before, now)]
    changes: list[Change] = []
    for name in [*before, *(name for name in now if name not in before)]:
        inner = f"{key}.{name}" if key else str(name)
        changes += find_changes(before.get(name, _MISSING), now.get(name, _MISSING), inner)
    return changes


def read_choices(out: Path) -> dict[str, Any]:
    """Return ``config.json`` of a run.

    Raises:
        InputError: there is none.
        IntegrityError: it is damaged.
    """
    path = out / CONFIG_FILE
    if not path.is_file():
        raise InputError(
            f"there is no run to continue at {out}",
            received=f"a folder without {CONFIG_FILE}" if out.is_dir() else "no such folder",
            action="name the folder of an interrupted run, or start it without --resume",
        )
    try:
        choices = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path} is damaged", received=error) from error
    if not isinstance(choices, dict) or not {"config", "data_sha256"} <= choices.keys():
        raise IntegrityError(f"{path} is damaged", received="no config or no data_sha256 in it")
    return choices


def _complete_config(kind: type[AnyConfig], recorded: Mapping[str, Any]) -> AnyConfig:
    before = {option: value for option, value in _BEFORE.items() if option in kind.model_fields}
    return build_config(kind, before | dict(recorded))


def _refuse_changes(out: Path, changes: Sequence[Change]) -> None:
    if not changes:
        return
    keys = [change.key.removeprefix("config.") for change in changes]
    raise UsageError(
        f"the run {out} cannot be continued with another {' or '.join(keys)}",
        received=", ".join(f"{key} {change.now}" for key, change in zip(keys, changes, strict=True)),
        expected=", ".join(f"{key} {change.before}" for key, change in zip(keys, changes, strict=True)),
        action="leave these options out, or begin a new run",
    )
