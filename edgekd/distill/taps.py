"""Feature taps: what named modules of a network give, kept aside while it runs.

A tap of a built-in network is a name such as ``enc16`` or ``dec4``: encoder or decoder, and how many times
smaller than the image the features are, so that one name means comparable places in different networks.
In any other network a tap is the path of a module, such as ``layers.3``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgekd.errors import UsageError, build_unknown_name_error
from edgekd.models import list_taps


class TapPair(NamedTuple):
    """A place in the student and the place in the teacher it is compared with."""

    student: str
    teacher: str

    @property
    def name(self) -> str:
        """What the pair is called in messages and as a key."""
        return self.student if self.student == self.teacher else f"{self.student}={self.teacher}"


def parse_taps(text: str) -> tuple[TapPair, ...]:
    """Return the pairs in a text such as ``enc16,layers.3=dec4`` (student on the left); none for "".

    Raises:
        UsageError: an empty side, or a pair named twice.
    """
    pairs: list[TapPair] = []
    for part in text.split(",") if text else ():
        student, separator, teacher = (piece.strip() for piece in part.partition("="))
        if not student or (separator and not teacher):
            raise UsageError(
                "a tap without a name",
                received=repr(text),
                expected="names, or pairs student=teacher, with commas between",
            )
        pair = TapPair(student, teacher if separator else student)
        if pair in pairs:
            raise UsageError(f"the tap {pair.name!r} is named twice", received=text)
        pairs.append(pair)
    return tuple(pairs)


class FeatureTaps:
    """Keeps the outputs of some modules of a network from its last forward pass.

    Uses forward hooks on the modules, which torch.compile traces through, and adds neither a parameter nor
    an output: what is saved or exported is the bare network.

    Args:
        network: the network.
        model: its name in the catalogue, or of its factory.
        taps: key → name of a tap, or path of a module.

    Raises:
        UsageError: no such tap or module; the known ones are listed.
    """

    def __init__(self, network: nn.Module, model: str, taps: Mapping[str, str]) -> None:
        self._kept: dict[str, Any] = {}
        self._versions: dict[str, int] = {}
        paths = list_taps(model, network)
        modules = dict(network.named_modules())
        self._handles = [
            _find_module(modules, paths, model, tap).register_forward_hook(self._build_hook(key))
            for key, tap in taps.items()
        ]

    def take(self) -> dict[str, Tensor]:
        """Return key → features (N, C, h, w) float32 of the last forward pass, and forget them.

        Raises:
            UsageError: a module did not run, does not give one feature map, or the network wrote over it.
        """
        kept, self._kept = dict(self._kept), {}
        versions, self._versions = dict(self._versions), {}
        for key, value in kept.items():
            if key in versions and value._version != versions[key]:
                raise UsageError(
                    f"what the tap {key!r} gave was changed by the network afterwards",
                    received="an operation in place, such as ReLU(inplace=True), on the module's output",
                    expected="features that stay as the module gives them",
                    action="name that operation as the tap, or make it one that is not in place",
                )
            if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[-1] * value.shape[-2] < 2:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise UsageError(
                    f"the tap {key!r} gives no feature map",
                    received=shape,
                    expected="(N, C, h, w) with more than one pixel: one pixel has no place to compare",
                    action="name a module of higher resolution",
                )
        return {key: value.float() for key, value in kept.items()}

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _build_hook(self, key: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._kept[key] = output
            # Versions are not counted while compiling, nor of inference tensors.
            if isinstance(output, Tensor) and not torch.compiler.is_compiling() and not output.is_inference():
                self._versions[key] = output._version

        return keep


@contextmanager
def tapped(network: nn.Module, model: str, taps: Mapping[str, str]) -> Iterator[FeatureTaps]:
    """Give FeatureTaps that are closed at the end of the block."""
    taps_open = FeatureTaps(network, model, taps)
    try:
        yield taps_open
    finally:
        taps_open.close()


def measure_channels(
    network: nn.Module, model: str, taps: Mapping[str, str], image_shape: Sequence[int]
) -> dict[str, int]:
    """Return the channels at each tap, by one forward pass in eval mode; modes are put back.

    Args:
        network, model, taps: see FeatureTaps.
        image_shape: (C, h, w).

    Raises:
        UsageError: as FeatureTaps; also where a module did not run.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with tapped(network, model, taps) as features, torch.no_grad():
            network(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
            found = features.take()
    finally:
        for module, training in modes:
            module.training = training
    for key, tap in taps.items():
        if key not in found:
            raise UsageError(f"the module at the tap {tap!r} of {model!r} does not run in its forward pass")
    return {key: value.shape[1] for key, value in found.items()}


def _find_module(
    modules: Mapping[str, nn.Module], paths: Mapping[str, str], model: str, tap: str
) -> nn.Module:
    path = paths.get(tap, tap)
    if path and path in modules:
        return modules[path]
    known = list(paths) or [name for name in modules if name]
    raise build_unknown_name_error(f"tap of the network {model!r}", tap, known)
