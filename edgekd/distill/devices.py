"""Where training runs and in which precision: decided once, aloud, and recorded."""

from __future__ import annotations

from typing import Literal

import torch
from lightning_fabric import Fabric

from edgekd.config import FitConfig
from edgekd.errors import MachineError

Precision = Literal["fp32", "bf16"]
_FABRIC_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
}


def build_fabric(config: FitConfig) -> tuple[Fabric, Precision]:
    """Return a launched Fabric and the precision it really computes in.

    Raises:
        MachineError: a GPU or bf16 was asked for and this machine has none.
    """
    accelerator = _resolve_accelerator(config.accelerator)
    if accelerator == "cuda" and config.devices > torch.cuda.device_count():
        raise MachineError(
            "not enough GPUs", received=torch.cuda.device_count(), expected=f"{config.devices} (devices)"
        )
    precision = resolve_precision(config.precision, accelerator)
    fabric = Fabric(
        accelerator=accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    # The same kernels every time, so that a resumed run repeats the run it resumes.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    fabric.launch()
    return fabric, precision


def resolve_precision(asked: Literal["auto", "fp32", "bf16"], accelerator: str) -> Precision:
    """Return the precision to compute in; ``auto`` takes bf16 only where the hardware has it.

    Raises:
        MachineError: bf16 was asked for where it would be emulated, many times slower than float32.
    """
    fast = has_fast_bf16(accelerator)
    if asked == "bf16" and not fast:
        raise MachineError(
            f"this machine's {accelerator} does not compute in bf16",
            expected="AMX, AVX512-BF16 or a GPU with bf16",
            action="use --precision fp32 or auto",
        )
    return "bf16" if asked != "fp32" and fast else "fp32"


def has_fast_bf16(accelerator: str) -> bool:
    """Return whether the hardware, and not an emulation, multiplies bf16."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _resolve_accelerator(asked: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise MachineError("no CUDA GPU was found", action="use --accelerator cpu, or see `edgekd doctor`")
    return "cuda" if available and asked != "cpu" else "cpu"
