"""Teacher answers on disk, each under the exact view it was given for, so that none can be stale."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edgekd.atomic import write_bytes_atomic
from edgekd.distill.objective import TeacherAnswer
from edgekd.errors import IntegrityError

# Raise it whenever the arithmetic of a view or the content of an entry changes.
ANSWERS_VERSION = 3
LOGITS = "logits"
_FEATURE = "feature "  # a tap may be called anything, also logits


class AnswerStore:
    """A folder of answers, one file for each frame and view.

    Entries are named by the hash of everything they depend on, and appear whole (renamed), so that several
    processes and runs may share a folder.

    Args:
        folder: need not exist yet.
        recipe: what an answer depends on beside frame and view: the teachers' weights, preprocessing,
            augmentation, the view policy, taps, precision, and the kind of device, whose noise is its own.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        text = json.dumps({"version": ANSWERS_VERSION, **recipe}, sort_keys=True)
        self._folder = folder / hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self, name: tuple[str, int]) -> dict[str, Tensor] | None:
        """Return the maps (C, h, w) float32 of a frame's view; None where they are not stored yet.

        Raises:
            IntegrityError: the entry is damaged.
        """
        path = self._locate(name)
        try:
            # Half the time of `load_file`, which maps so small a file into memory.
            return safetensors.torch.load(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, safetensors.SafetensorError) as error:
            raise IntegrityError(
                f"the stored teacher answer {path} is damaged",
                received=error,
                action="remove the folder of answers; they are made again",
            ) from error

    def write(self, name: tuple[str, int], maps: Mapping[str, Tensor]) -> None:
        """Store the maps of a frame's view.

        Raises:
            MachineError: the disk is full.
        """
        tensors = {key: value.cpu().contiguous() for key, value in maps.items()}
        # To wait for the disk took ten times as long as the rest, and what a power cut takes is made again.
        write_bytes_atomic(self._locate(name), safetensors.torch.save(tensors), durable=False)

    def _locate(self, name: tuple[str, int]) -> Path:
        sha256, key = name
        return self._folder / f"{sha256[:24]}-{key:016x}.safetensors"


def stack_answers(entries: Sequence[Mapping[str, Tensor]], device: torch.device) -> TeacherAnswer:
    """Return the answer of a batch from the maps of its frames."""
    stacked = {key: torch.stack([entry[key] for entry in entries]).to(device) for key in entries[0]}
    logits = stacked.pop(LOGITS)
    return TeacherAnswer(logits, {key.removeprefix(_FEATURE): value for key, value in stacked.items()})


def split_answer(answer: TeacherAnswer) -> list[dict[str, Tensor]]:
    """Return the maps of each frame of a batch."""
    return [
        {LOGITS: logits, **{f"{_FEATURE}{tap}": value[index] for tap, value in answer.features.items()}}
        for index, logits in enumerate(answer.logits)
    ]
