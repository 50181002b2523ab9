"""A network that is being trained, with everything that must survive an interruption."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.distill.hints import Hints
from edgekd.distill.objective import LOSSES
from edgekd.distill.schedule import build_optimizer, set_lr

State = dict[str, Tensor]
_WEIGHTS = "weights/"
_MOMENTS = "optimizer/"
_PROJECTORS = "projectors/"


@dataclass
class Learner:
    """A network in training.

    Attributes:
        name: ``teacher``, ``student``, ``control`` or ``model``.
        network: the bare module, for evaluation and saving.
        module: the same as Fabric runs it (precision, DistributedDataParallel).
        optimizer: its AdamW, as Fabric runs it.
        terms: losses and weights.
        peak_lr: peak learning rate.
        total_steps: length of its learning-rate curve, steps.
        hints: what losses on features need; None without such losses.
        best_dice: best validation Dice so far (-1 before the first).
        best_epoch: epoch of it, counted from 0.
        best_weights: weights and buffers of that epoch, on the CPU.
    """

    name: str
    network: nn.Module
    module: Any
    optimizer: Any
    terms: dict[str, float]
    peak_lr: float
    total_steps: int
    hints: Hints | None = None
    best_dice: float = -1.0
    best_epoch: int | None = None
    best_weights: State = field(default_factory=dict)

    @property
    def is_taught(self) -> bool:
        """Whether any of its losses compares with a teacher."""
        return any(LOSSES[name].kind != "truth" for name in self.terms)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the network and its projectors."""
        for optimizer in self._list_optimizers():
            set_lr(optimizer, lr)

    def step(self) -> None:
        """Take a step by the gradients, and forget them."""
        for optimizer in self._list_optimizers():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def record_score(self, dice: float, epoch: int) -> None:
        """Keep the weights if ``dice`` is the best so far; NaN (no lesion in the split) never is."""
        if dice > self.best_dice:
            self.best_dice, self.best_epoch = dice, epoch
            self.best_weights = copy_weights(self.network)

    def forget_best(self, before: int | None = None) -> None:
        """Start the search for the best epoch anew, or only where the best so far came ``before``."""
        if before is None or (self.best_epoch is not None and self.best_epoch < before):
            self.best_dice, self.best_epoch, self.best_weights = -1.0, None, {}

    def pick_weights(self, select: str) -> tuple[State, int | None]:
        """Return the weights to keep and their epoch: the ``best`` ones, or the ``last`` (epoch None).

        Where no epoch could be scored, the last weights are the only choice.
        """
        if select == "best" and self.best_epoch is not None:
            return self.best_weights, self.best_epoch
        return copy_weights(self.network), None

    def export_state(self) -> State:
        """Return weights, buffers and AdamW's moments as flat, contiguous CPU tensors."""
        state = _export_trainable(self.network, self.optimizer)
        if self.hints is not None and self.hints.projectors is not None:
            inner = _export_trainable(self.hints.projectors, self.hints.optimizer)
            state |= {_PROJECTORS + name: value for name, value in inner.items()}
        return state

    def import_state(self, state: State) -> None:
        """Continue from what `export_state` returned."""
        _import_trainable(self.network, self.optimizer, state)
        if self.hints is not None and self.hints.projectors is not None:
            inner = _strip_prefix(state, _PROJECTORS)
            _import_trainable(self.hints.projectors, self.hints.optimizer, inner)

    def _list_optimizers(self) -> list[Any]:
        extra = None if self.hints is None else self.hints.optimizer
        return [self.optimizer] if extra is None else [self.optimizer, extra]


def build_learner(
    fabric: Fabric,
    name: str,
    network: nn.Module,
    *,
    terms: dict[str, float],
    peak_lr: float,
    total_steps: int,
    weight_decay: float,
) -> Learner:
    """Put ``network`` on the device in channels_last and give it an optimiser."""
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    module, optimizer = fabric.setup(network, build_optimizer(network, weight_decay))
    return Learner(name, network, module, optimizer, terms, peak_lr, total_steps)


def copy_weights(network: nn.Module) -> State:
    """Return a contiguous copy of weights and buffers on the CPU."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}


def load_weights(network: nn.Module, weights: State) -> None:
    """Copy weights and buffers into ``network``, keeping its device and memory layout."""
    network.load_state_dict(weights, strict=True)


def _export_trainable(network: nn.Module, optimizer: Any) -> State:
    state = {_WEIGHTS + name: value for name, value in copy_weights(network).items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            state[f"{_MOMENTS}{index}/{name}"] = value.detach().cpu().contiguous().clone()
    return state


def _import_trainable(network: nn.Module, optimizer: Any, state: State) -> None:
    load_weights(network, _strip_prefix(state, _WEIGHTS))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, State] = {}
    for key, value in _strip_prefix(state, _MOMENTS).items():
        index_text, _, name = key.partition("/")
        moments.setdefault(int(index_text), {})[name] = _match_layout(value, parameters[int(index_text)])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _match_layout(value: Tensor, parameter: Tensor) -> Tensor:
    # AdamW makes its moments in the parameter's memory layout; another layout takes other kernels,
    # whose last bit may differ.
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(value).detach()


def _strip_prefix(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
