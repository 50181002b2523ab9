"""The frozen teacher: mode, gradient, buffers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.distill.teacher import FrozenTeacher, hash_tensors
from edgekd.errors import IntegrityError


def build_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)
    )


def test_it_stays_in_eval_mode_when_the_whole_is_set_to_train() -> None:
    teacher = FrozenTeacher(build_network().train())
    whole = nn.ModuleDict({"teacher": teacher, "student": build_network()})
    whole.train()
    assert whole["student"].training
    assert not any(module.training for module in teacher.modules())


def test_a_forward_pass_changes_no_buffer_and_gives_no_gradient() -> None:
    teacher = FrozenTeacher(build_network())
    teacher.train()
    images = 5 + torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    first, second = teacher(images), teacher(images)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    teacher.check_unchanged()


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean", "1.num_batches_tracked"])
def test_one_changed_value_is_found(name: str) -> None:
    teacher = FrozenTeacher(build_network())
    teacher.network.state_dict()[name].view(-1)[0] += 1
    with pytest.raises(IntegrityError, match="the frozen teacher changed"):
        teacher.check_unchanged()


def test_the_hash_sees_names_and_shapes() -> None:
    value = torch.arange(4.0)
    hashes = {hash_tensors({"a": value}), hash_tensors({"b": value}), hash_tensors({"a": value.view(2, 2)})}
    assert len(hashes) == 3
