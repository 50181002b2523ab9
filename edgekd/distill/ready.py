"""A teacher that is ready: the network of an earlier run, taken only where it may teach here."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.atomic import hash_file, write_bytes_atomic, write_json_atomic
from edgekd.config import DistillConfig
from edgekd.distill.inputs import Inputs
from edgekd.distill.results import NetworkResult, RunRecord, name_teacher_file, read_record, resolve_weights
from edgekd.errors import InputError, IntegrityError, UsageError
from edgekd.models import CATALOGUE

KEPT_FILE = "teachers.json"


@dataclass(frozen=True)
class ReadyTeacher:
    """The network of a finished run.

    Attributes:
        path: the run.
        record: what the run says about itself.
        fact: the network.
        weights: its checked file.
    """

    path: Path
    record: RunRecord
    fact: NetworkResult
    weights: Path

    def check_not_leaked(self, inputs: Inputs) -> None:
        """Raise UsageError where the teacher learned from frames that judge the student here.

        Not of copies of frames that the student itself learns from: these are a fault of the data set, which
        ``load_inputs`` tells.
        """
        learned = set(self.record.train_pixels_sha256) - set(inputs.splits["train"].pixels_sha256)
        for split in ("val", "test"):
            judging = inputs.splits[split].pixels_sha256
            leaked = sum(sha256 in learned for sha256 in judging)
            if leaked:
                raise UsageError(
                    f"the teacher in {self.path} learned from cases of the {split} split",
                    received=f"{leaked} of {len(judging)}",
                    expected="none: the student would be judged on what its teacher had seen",
                    action="use the split of the teacher's run (salt, fractions), or train another teacher",
                )


def find_ready_teachers(config: DistillConfig) -> tuple[ReadyTeacher, ...]:
    """Return the teachers in the run folders that ``config.teacher`` names; none where it names a network.

    A name of the catalogue is always the network, also where a folder is called so. Of a `distill` run
    the teacher is taken.

    Raises:
        InputError: a folder is missing or holds no finished run.
        IntegrityError: the weights are not what the run says.
        UsageError: a teacher has another preprocessing or other classes than the student will have, is
            named twice, or is a network where several teachers are named.
    """
    names = config.list_teachers()
    _check_folders(names)
    networks = [name for name in names if name in CATALOGUE or not Path(name).is_dir()]
    if len(names) == 1 and networks:
        return ()
    if networks:
        raise UsageError(
            "several teachers must all be finished runs",
            received=", ".join(networks),
            expected="folders of `edgekd train` or `edgekd distill` runs",
            action="train each alone first, with a seed of its own",
        )
    ready = tuple(_read_teacher(Path(name), config) for name in names)
    if len({one.fact.sha256 for one in ready}) < len(ready):
        raise UsageError("a teacher is named twice", received=", ".join(names), action="name it once")
    return ready


def write_kept_teachers(teachers: Sequence[ReadyTeacher], folder: Path) -> None:
    """Copy ready teachers and their runs' records into a run that begins, so that it needs no other one."""
    if not teachers:
        return
    for index, one in enumerate(teachers):
        write_bytes_atomic(folder / name_teacher_file(index), one.weights.read_bytes())
    records = [{"path": str(one.path), "record": one.record.model_dump(mode="json")} for one in teachers]
    write_json_atomic(folder / KEPT_FILE, records)


def read_kept_teachers(folder: Path) -> tuple[ReadyTeacher, ...]:
    """Return the ready teachers that a run has kept; none where it has none.

    Raises:
        IntegrityError: one is missing or has changed, or their list is damaged.
    """
    path = folder / KEPT_FILE
    if not path.is_file():
        return ()
    try:
        listed = [
            (Path(one["path"]), RunRecord.model_validate(one["record"]))
            for one in json.loads(path.read_text())
        ]
        facts = [record.networks[_name_role(record)] for _, record in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged", received=str(error).partition("\n")[0]) from error
    kept: list[ReadyTeacher] = []
    for index, ((origin, record), fact) in enumerate(zip(listed, facts, strict=True)):
        weights = folder / name_teacher_file(index)
        if not weights.is_file() or hash_file(weights) != fact.sha256:
            raise IntegrityError(f"{weights} is not the teacher of this run", action="begin a new run")
        kept.append(ReadyTeacher(origin, record, fact, weights))
    return tuple(kept)


def _name_role(record: RunRecord) -> str:
    return "model" if record.kind == "train" else "teacher"


def _check_folders(names: Sequence[str]) -> None:
    for name in names:
        # No name of a network has a separator in it.
        if os.sep in name and not Path(name).is_dir():
            raise InputError(
                f"there is no run at {name} whose network could teach",
                expected="the folder of a finished run, or the name of a network",
                action="check the path; train a teacher with edgekd train",
            )


def _read_teacher(path: Path, config: DistillConfig) -> ReadyTeacher:
    record = read_record(path)
    role = _name_role(record)
    _check_fits(path, record, config)
    return ReadyTeacher(path, record, record.networks[role], resolve_weights(path, record, role))


def _check_fits(path: Path, record: RunRecord, config: DistillConfig) -> None:
    for what, theirs, ours in (
        ("preprocessing", record.preprocess, config.build_preprocess()),
        ("classes", record.classes, config.classes),
    ):
        before, now = theirs.model_dump(mode="json"), ours.model_dump(mode="json")
        changed = [key for key in before if before[key] != now[key]]
        if changed:
            raise UsageError(
                f"the teacher in {path} was trained with another {what}",
                received=", ".join(f"{key} {now[key]}" for key in changed),
                expected=", ".join(f"{key} {before[key]}" for key in changed),
                action="distil with the teacher's values, or train another teacher",
            )
