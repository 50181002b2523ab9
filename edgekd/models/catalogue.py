"""Every network by name, and how any other one is named: ``package.module:factory``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from torch import nn

from edgekd.errors import EdgeKDError, UsageError, build_unknown_name_error
from edgekd.models.tap_names import name_dwnet_taps, name_dynunet_taps, name_unet_taps, name_unet_wide_taps

Options = Mapping[str, int | float | str | bool]

FACTORY_FORM = "factory(in_channels: int, num_classes: int, **options) -> torch.nn.Module"


class Entry(NamedTuple):
    """A network of the catalogue.

    Attributes:
        factory: ``package.module:function``, called with in_channels, num_classes and the options.
        role: what the network is meant for; either role may be given any network.
        options: options of this named size; those of the caller win.
        levels: resolutions it works at, full size included, where no option ``levels`` says otherwise.
        name_taps: from the built network, whose depth an option may have changed, to its feature taps, name →
            path of the module; ``enc4`` is the encoder at a quarter of the size, ``dec4`` the decoder there.
        note: one line for the list of networks.
    """

    factory: str
    role: Literal["teacher", "student"]
    options: dict[str, int]
    levels: int
    name_taps: Callable[[nn.Module], dict[str, str]]
    note: str


_UNET = "edgekd.models.unet:build_unet_narrow"
_DWNET = "edgekd.models.dwnet:build_dwnet"
_UNET_WIDE = "edgekd.models.teachers:build_unet_wide"
_DYNUNET = "edgekd.models.teachers:build_dynunet"

CATALOGUE: dict[str, Entry] = {
    "dynunet": Entry(
        _DYNUNET, "teacher", {"width": 32}, 6, name_dynunet_taps, "MONAI DynUNet, the network of nnU-Net"
    ),
    "dynunet-s": Entry(
        _DYNUNET, "teacher", {"width": 16}, 6, name_dynunet_taps, "the same at half the width, for few cores"
    ),
    "unet-wide": Entry(
        _UNET_WIDE, "teacher", {"width": 32}, 5, name_unet_wide_taps, "MONAI BasicUNet with batch norm"
    ),
    "unet-wide-s": Entry(
        _UNET_WIDE, "teacher", {"width": 16}, 5, name_unet_wide_taps, "the same at half the width"
    ),
    "unet-narrow": Entry(
        _UNET, "student", {"width": 8}, 5, name_unet_taps, "plain Conv-BN-ReLU U-Net, 8 channels"
    ),
    "unet-narrow-xs": Entry(_UNET, "student", {"width": 4}, 5, name_unet_taps, "the same with 4 channels"),
    "unet-narrow-l": Entry(_UNET, "student", {"width": 10}, 5, name_unet_taps, "the same with 10 channels"),
    "dwnet": Entry(
        _DWNET, "student", {"width": 16}, 5, name_dwnet_taps, "7×7 depthwise-separable, 16 channels"
    ),
    "dwnet-xs": Entry(_DWNET, "student", {"width": 5}, 5, name_dwnet_taps, "the same with 5 channels"),
    "dwnet-s": Entry(_DWNET, "student", {"width": 8}, 5, name_dwnet_taps, "the same with 8 channels"),
    "dwnet-l": Entry(_DWNET, "student", {"width": 24}, 5, name_dwnet_taps, "the same with 24 channels"),
}

# The field's reference for medical segmentation, and 68 times the default student's parameters.
DEFAULT_TEACHER = "dynunet"
# Only dense 3×3 and 1×1 convolutions, which every engine runs best; 8 is the channel block of AVX2 and of
# tensor cores, so a narrower network saves MACs on paper but little time.
DEFAULT_STUDENT = "unet-narrow"


def build_model(name: str, in_channels: int, num_classes: int, options: Options | None = None) -> nn.Module:
    """Build a network with torch's current random state.

    Args:
        name: a name of the catalogue, or ``package.module:factory`` of a function that is called as
            ``factory(in_channels=…, num_classes=…, **options)`` and returns a module whose output
            for (N, in_channels, h, w) float32 is (N, num_classes, h, w) logits.
        in_channels: channels of the image.
        num_classes: channels of the logits, background included.
        options: keyword arguments for the factory; they win over those of the named size.

    Raises:
        UsageError: unknown name or option, a value out of range, or a factory that cannot be found,
            cannot be called so, raises, or returns something else.
    """
    factory = _find_factory(name)
    chosen: dict[str, Any] = resolve_options(name, options)
    _check_options(name, factory, chosen)
    arguments = {"in_channels": in_channels, "num_classes": num_classes, **chosen}
    try:
        model = factory(**arguments)
    except EdgeKDError:
        raise
    except Exception as error:  # the factory may be anyone's code
        raise UsageError(
            f"the factory of the network {name!r} failed",
            received=describe_error(error),
            expected=FACTORY_FORM,
            action="call it alone with " + ", ".join(f"{key}={value!r}" for key, value in arguments.items()),
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"the factory of the network {name!r} returns no network",
            received=type(model).__name__,
            expected=FACTORY_FORM,
        )
    return model


def describe_error(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")


def resolve_options(name: str, options: Options | None = None) -> dict[str, int | float | str | bool]:
    """Return the options a network is built with: those of its named size, then the caller's."""
    preset = CATALOGUE[name].options if name in CATALOGUE else {}
    return {**preset, **(options or {})}


def list_taps(name: str, network: nn.Module) -> dict[str, str]:
    """Return the named feature taps of a network, name → path of its module; none for a foreign one.

    Args:
        name: its name in the catalogue, or of its factory.
        network: what was built by that name, with any options.
    """
    return CATALOGUE[name].name_taps(network) if name in CATALOGUE else {}


def find_size_multiple(name: str, options: Options | None = None) -> int:
    """Return what the height and width of images for a network of the catalogue must be multiples of.

    Args:
        name: a name of the catalogue.
        options: those that ``build_model`` has taken.
    """
    levels = int(resolve_options(name, options).get("levels", CATALOGUE[name].levels))
    return 2 ** (levels - 1)


def check_image_size(name: str, height: int, width: int, options: Options | None = None) -> None:
    """Raise UsageError where a network of the catalogue cannot take images of this size, in pixels.

    Args:
        name: of any network; a foreign one is not judged.
        height, width: of the images.
        options: see ``find_size_multiple``.
    """
    if name not in CATALOGUE:
        return
    multiple = find_size_multiple(name, options)
    if height % multiple or width % multiple:
        nearest = [max(multiple, round(side / multiple) * multiple) for side in (height, width)]
        raise UsageError(
            f"the network {name!r} cannot take this image size",
            received=f"{height}×{width}",
            expected=f"multiples of {multiple}",
            action=f"use {nearest[0]}×{nearest[1]}",
        )


def _find_factory(name: str) -> Callable[..., object]:
    if name not in CATALOGUE and ":" not in name:
        raise build_unknown_name_error("network", name, CATALOGUE)
    path = CATALOGUE[name].factory if name in CATALOGUE else name
    module_name, _, attribute = path.partition(":")
    try:
        factory: Any = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # the module may be anyone's code
        raise UsageError(
            f"the network {name!r} cannot be imported",
            received=describe_error(error),
            expected="package.module:factory, importable from here",
        ) from error
    if not callable(factory):
        raise UsageError(
            f"the network {name!r} is no factory", received=type(factory).__name__, expected=FACTORY_FORM
        )
    return factory


def _check_options(name: str, factory: Callable[..., object], options: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return  # built in C without a signature: calling it tells
    _check_option_names(name, signature, options)
    try:
        signature.bind(in_channels=1, num_classes=2, **options)
    except TypeError as error:
        raise UsageError(
            f"the factory of the network {name!r} cannot be called",
            received=f"{name.partition(':')[2] or name}{signature}: {error}",
            expected=FACTORY_FORM,
            action="name a function with these keywords, or wrap this one in such a function",
        ) from error
    if name in CATALOGUE:
        for option, value in options.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(
                    f"option {option!r} of the network {name!r} is out of range",
                    received=value,
                    expected="a whole number of at least 1",
                )


def _check_option_names(name: str, signature: inspect.Signature, options: Mapping[str, Any]) -> None:
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [p.name for p in parameters if p.name not in ("in_channels", "num_classes")]
    for option in options:
        if option not in known:
            raise build_unknown_name_error(f"option of the network {name!r}", option, known)
