"""Device and precision: what is asked for is given or refused, never swapped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Literal, cast

import pytest
import torch
from disc_runs import build_train_config
from lightning_fabric import Fabric
from lightning_fabric.utilities import rank_zero_only

from edgekd.distill import devices
from edgekd.errors import MachineError, UsageError


@pytest.mark.parametrize(
    ("asked", "capabilities", "expected"),
    [
        ("auto", {"avx2": True}, "fp32"),
        ("auto", {"avx512_bf16": True}, "fp32"),  # slower than float32
        ("auto", {"avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ("fp32", {"amx_bf16": True}, "fp32"),
        ("bf16", {"avx512_bf16": True}, "bf16"),
        ("bf16", {"amx_bf16": True}, "bf16"),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch,
    asked: Literal["auto", "fp32", "bf16"],
    capabilities: dict[str, bool],
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert devices.resolve_precision(asked, "cpu") == expected


def test_bf16_that_would_be_emulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    with pytest.raises(MachineError, match="does not compute in bf16") as caught:
        devices.build_fabric(build_train_config(precision="bf16"))
    assert caught.value.exit_code == 3


def test_a_missing_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match=r'no CUDA GPU.*accelerator = "cpu" in the --config file'):
        devices.build_fabric(build_train_config(accelerator="cuda"))


def test_fewer_gpus_than_asked_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MachineError, match="not enough GPUs: received 1, expected 2"):
        devices.build_fabric(build_train_config(accelerator="cuda", devices=2))


def test_bf16_reaches_the_network_and_logits_come_back_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda accelerator: True)
    fabric, precision = devices.build_fabric(build_train_config(precision="bf16"))
    network = torch.nn.Conv2d(1, 2, 1)
    seen: list[torch.dtype] = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    optimizer = torch.optim.AdamW(network.parameters())
    module, _ = fabric.setup(network, optimizer)
    assert module(torch.zeros(1, 1, 4, 4)).dtype == torch.float32
    assert (precision, seen) == ("bf16", [torch.bfloat16])


def test_more_processes_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "count_usable_cores", lambda: 2)
    with pytest.raises(MachineError, match=r"received 2 usable cores, expected 3 \(devices\)"):
        devices.build_fabric(build_train_config(devices=3))
    devices.build_fabric(build_train_config(devices=2))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that no launcher has touched."""
    for name in (*devices.RENDEZVOUS, "RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    # Fabric sets it for the whole process.
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    return monkeypatch


def test_several_machines_without_a_meeting_place_are_refused(alone: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no MASTER_ADDR, MASTER_PORT, NODE_RANK.*torchrun --nnodes 2 "):
        devices.build_fabric(build_train_config(num_nodes=2))
    alone.setenv("MASTER_ADDR", "10.0.0.1")
    alone.setenv("NODE_RANK", "1")
    with pytest.raises(UsageError, match="received no MASTER_PORT in"):
        devices.build_fabric(build_train_config(num_nodes=2))
    alone.setenv("MASTER_PORT", "29500")
    fabric, _ = devices.build_fabric(build_train_config(num_nodes=2))
    assert fabric.world_size == 2
    assert not devices.is_main_process()


@pytest.mark.parametrize(("asked", "started"), [({}, 2), ({"num_nodes": 2}, 4)])
def test_torchrun_with_another_number_of_processes_is_refused(
    alone: pytest.MonkeyPatch, asked: dict[str, int], started: int
) -> None:
    alone.setenv("TORCHELASTIC_RUN_ID", "run")
    alone.setenv("WORLD_SIZE", str(started))
    with pytest.raises(UsageError, match=rf"received {started} processes, expected .* machines × 1 devices"):
        devices.build_fabric(build_train_config(**asked))


def test_only_the_loss_of_another_process_is_explained() -> None:
    pair, alone = (cast(Fabric, SimpleNamespace(world_size=n, global_rank=0)) for n in (2, 1))
    gone = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"
    told = pytest.raises(MachineError, match=r"another process of this run died.*--resume")
    with told as caught, devices.explain_lost_process(pair):
        raise RuntimeError(gone)
    assert caught.value.exit_code == 3
    with pytest.raises(RuntimeError, match="sizes of tensors"), devices.explain_lost_process(pair):
        raise RuntimeError("sizes of tensors must match")
    with pytest.raises(RuntimeError, match="gloo"), devices.explain_lost_process(alone):
        raise RuntimeError(gone)
