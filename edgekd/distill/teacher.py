"""The teacher of phase 2: frozen in mode, gradient, optimiser and buffers, and proven so at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgekd.errors import IntegrityError


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 (hex) of names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


class FrozenTeacher(nn.Module):
    """A network that teaches and cannot learn.

    ``train()`` leaves it in eval mode, also when called on a module that holds it; its parameters need
    no gradient. `check_unchanged` compares weights and batch-norm buffers with those at the start.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train()
        self._initial_sha256 = hash_tensors(network.state_dict())

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in eval mode whatever ``mode`` is."""
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K, h, w) of images (N, C, h, w), without gradient."""
        with torch.no_grad():
            return self.network(images)

    def check_unchanged(self) -> None:
        """Raise IntegrityError where a weight or a buffer is not bit for bit what it was at the start."""
        found = hash_tensors(self.network.state_dict())
        if found != self._initial_sha256:
            raise IntegrityError(
                "the frozen teacher changed while it taught",
                received=f"sha256 {found[:12]}…",
                expected=f"{self._initial_sha256[:12]}…",
                action="report this with the teacher's name; the student was not taught by one teacher",
            )
