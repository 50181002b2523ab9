"""What the documentation says of each loss is what the loss does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgekd.distill.losses import IGNORE
from edgekd.distill.objective import LOSSES, LossInputs, TeacherAnswer, compute_losses

DOCS = Path(__file__).parents[2] / "docs" / "distillation.md"
TAP = "enc1"


def read_column() -> dict[str, str]:
    """Return loss → what the table of losses says of pixels from outside."""
    lines = [line for line in DOCS.read_text().splitlines() if re.match(r"\| (name|`\w+`) \|", line)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    index = rows[0].index("pixels from outside")
    return {row[0].strip("`"): row[index] for row in rows[1:]}


def compute(name: str, student: Tensor, teacher: Tensor) -> float:
    """Return a loss of maps (2, 3, 6, 6), taken as logits and as features; the first row is outside."""
    weight, truth = torch.ones(2, 6, 6), torch.ones(2, 6, 6, dtype=torch.int64)
    weight[:, 0], truth[:, 0] = 0, IGNORE
    features = {TAP: student}
    answer = TeacherAnswer(teacher, {TAP: teacher})
    inputs = LossInputs(student, truth, answer, weight, features, features)
    return compute_losses({name: 1.0}, inputs)[name].item()


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_losses_that_leave_out_what_comes_from_outside(name: str) -> None:
    student, teacher = torch.randn(2, 2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    changed = student.clone()
    changed[:, :, 0] += torch.arange(3.0).view(1, 3, 1)
    leaves_out = compute(name, changed, teacher) == pytest.approx(compute(name, student, teacher), abs=1e-7)
    # The losses to the truth stand in no table: the text says it of all of them.
    said = "left out" if LOSSES[name].kind == "truth" else read_column()[name]
    assert said == ("left out" if leaves_out else "compared")
