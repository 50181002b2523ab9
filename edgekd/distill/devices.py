"""Where training runs and in which precision: decided once, aloud, and recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities import rank_zero_only

from edgekd.config import FitConfig, list_unset_variables
from edgekd.errors import MachineError, UsageError
from edgekd.processor import count_usable_cores

Precision = Literal["fp32", "bf16"]
_FABRIC_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
}
# Without torchrun Fabric would meet on this very machine and wait there for the others, in vain.
RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
_LAUNCHER_LOG = "lightning_fabric.strategies.launchers.subprocess_script"


def build_fabric(config: FitConfig) -> tuple[Fabric, Precision]:
    """Return a Fabric that waits for ``launch()``, and the precision it really computes in.

    Raises:
        MachineError: a GPU, bf16 or more processes were asked for than this machine has.
        UsageError: the processes that were started are not those that were asked for.
    """
    accelerator = _resolve_accelerator(config.accelerator)
    _check_enough_devices(accelerator, config.devices)
    _check_torchrun(config)
    precision = resolve_precision(config.precision, accelerator)
    fabric = Fabric(
        accelerator=accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    _check_rendezvous(fabric, config)
    # The same kernels every time, so that a resumed run repeats the run it resumes.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # A convolution in TF32, which is cuDNN's default, is none in float32.
    torch.backends.cudnn.allow_tf32 = False
    return fabric, precision


def launch_processes(fabric: Fabric) -> None:
    """Start the other processes of this machine, if any, and wait until all of them have met."""
    # Both announce the processes; the launcher tells that one died, before it ends those that cannot know.
    for name in ("lightning_fabric.utilities.distributed", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(_LAUNCHER_LOG).addFilter(_reword_death)
    fabric.launch()


@contextmanager
def explain_lost_process(fabric: Fabric) -> Iterator[None]:
    """Turn the failure to reach another process of the run into a MachineError."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not _is_lost_process(error):
            raise
        raise _build_lost_error(fabric.global_rank) from error


def _is_lost_process(error: RuntimeError) -> bool:
    # Gloo raises a plain RuntimeError that names its own source file.
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


def _build_lost_error(rank: int) -> MachineError:
    return MachineError(
        "another process of this run died or cannot be reached",
        received=f"no answer in process {rank}",
        action="see above what it said; the run is kept: repeat the command with --resume",
    )


def _reword_death(record: logging.LogRecord) -> bool:
    record.msg, record.args = f"edgekd: {_build_lost_error(0)}", ()
    return True


def is_main_process() -> bool:
    """Return whether this is the one process of a run that reports; true where there is only one."""
    return getattr(rank_zero_only, "rank", 0) == 0


def resolve_precision(asked: Literal["auto", "fp32", "bf16"], accelerator: str) -> Precision:
    """Return the precision to compute in; ``auto`` takes bf16 only where it is faster than float32.

    Raises:
        MachineError: bf16 was asked for where it would be emulated, many times slower than float32.
    """
    if asked == "auto":
        return "bf16" if gains_from_bf16(accelerator) else "fp32"
    if asked == "bf16" and not has_bf16(accelerator):
        raise MachineError(
            f"this machine's {accelerator} does not compute in bf16",
            expected="AMX, AVX512-BF16 or a GPU with bf16",
            action="use --precision fp32 or auto",
        )
    return asked


def has_bf16(accelerator: str) -> bool:
    """Return whether the hardware, and not an emulation, multiplies bf16."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def gains_from_bf16(accelerator: str) -> bool:
    """Return whether training in bf16 is faster than in float32.

    On processors only AMX's tiles are: with AVX512-BF16 alone the steps of the catalogue's networks took 0.9
    to 1.5 times as long in bf16 as in float32, and their forward passes 1.3 to 1.9 times.
    """
    if accelerator == "cuda":
        return has_bf16(accelerator)
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _resolve_accelerator(asked: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise MachineError(
            "no CUDA GPU was found",
            action='write accelerator = "cpu" in the --config file, or see `edgekd doctor`',
        )
    return "cuda" if available and asked != "cpu" else "cpu"


def _check_enough_devices(accelerator: str, devices: int) -> None:
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise MachineError(
            "not enough GPUs", received=torch.cuda.device_count(), expected=f"{devices} (devices)"
        )
    cores = count_usable_cores()
    if accelerator == "cpu" and devices > cores:
        raise MachineError(
            "not enough processor cores for a process each",
            received=f"{cores} usable cores",
            expected=f"{devices} (devices)",
            action=f"use --devices {cores} or fewer; one process already computes on every core",
        )


def _check_torchrun(config: FitConfig) -> None:
    """Raise UsageError where torchrun started other processes than were asked for."""
    if not TorchElasticEnvironment.detect():
        return
    started, asked = TorchElasticEnvironment().world_size(), config.devices * config.num_nodes
    if started != asked:
        raise UsageError(
            "torchrun started another number of processes than the options name",
            received=f"{started} processes",
            expected=f"{config.num_nodes} machines × {config.devices} devices",
            action="give --num-nodes the value of torchrun's --nnodes and --devices that of --nproc-per-node",
        )


def _check_rendezvous(fabric: Fabric, config: FitConfig) -> None:
    """Raise UsageError where several machines are asked for and nothing says where they meet."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    # The others (torchrun, Slurm, LSF, MPI) were detected by what they provide.
    if config.num_nodes == 1 or not isinstance(environment, LightningEnvironment):
        return
    missing = list_unset_variables(RENDEZVOUS)
    if missing:
        raise UsageError(
            f"training on {config.num_nodes} machines must be started on each of them by torchrun",
            received=f"no {', '.join(missing)} in the environment",
            expected="torchrun's environment",
            action=f"on every machine, torchrun --nnodes {config.num_nodes} --nproc-per-node {config.devices}"
            " --rdzv-backend c10d --rdzv-endpoint FIRST_MACHINE:29500 --rdzv-id RUN -m edgekd …",
        )
