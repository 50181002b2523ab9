"""What may be chosen about a TensorRT build: batch profile, workspace, compatibility."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from edgekd.errors import MachineError, UsageError, build_unknown_name_error

# As trtexec spells the levels → names of the library's HardwareCompatibilityLevel.
HARDWARE_LEVELS = {
    "none": "NONE",
    "ampere+": "AMPERE_PLUS",
    "sameComputeCapability": "SAME_COMPUTE_CAPABILITY",
}


class BatchProfile(NamedTuple):
    """The batch sizes that an engine takes: its smallest, the one it is tuned for, its largest."""

    lowest: int
    usual: int
    highest: int


@dataclass(frozen=True)
class TensorRtOptions:
    """The options of one build; by default batches of one, this library's version and the GPUs named.

    Attributes:
        min_shapes, opt_shapes, max_shapes: as trtexec takes them, ``image:1x1x256x256``; all three, or
            ``opt_shapes`` alone, which then stands for all. None leaves the batch at 1.
        workspace: upper bound of the builder's and engine's scratch memory, MiB; None is the library's own.
        version_compatible: let later versions of the same major TensorRT load the engine.
        hardware_compatible: ``none``, ``ampere+`` or ``sameComputeCapability``: other GPUs that may load it.
        dla_core: always refused, with the reason.
    """

    min_shapes: str | None = None
    opt_shapes: str | None = None
    max_shapes: str | None = None
    workspace: int | None = None
    version_compatible: bool = False
    hardware_compatible: str = "none"
    dla_core: int | None = None

    def list_set(self) -> list[str]:
        """Return the command-line names of the options that differ from their defaults."""
        return [
            "--" + field.name.replace("_", "-")
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]


def check_options(options: TensorRtOptions, targets: Sequence[str]) -> None:
    """Refuse options that cannot be meant, before anything is built.

    Raises:
        UsageError: an option without a TensorRT target, a malformed or contradictory one.
        MachineError: DLA.
    """
    given = options.list_set()
    if given and not any(target.startswith("tensorrt") for target in targets):
        raise UsageError(
            "these options are meant for TensorRT alone",
            received=f"{', '.join(given)} for {', '.join(targets)}",
            action="leave them out, or add a TensorRT target",
        )
    if options.hardware_compatible not in HARDWARE_LEVELS:
        raise build_unknown_name_error("hardware compatibility", options.hardware_compatible, HARDWARE_LEVELS)
    if options.workspace is not None and options.workspace < 1:
        raise UsageError("a workspace needs at least 1 MiB", received=f"--workspace {options.workspace}")
    shapes = (options.min_shapes, options.opt_shapes, options.max_shapes)
    if None in shapes and shapes != (None, shapes[1], None):
        raise UsageError(
            "a profile needs its smallest, usual and largest shape",
            received=", ".join(name for name in given if name.endswith("shapes")),
            expected="--min-shapes, --opt-shapes and --max-shapes, or --opt-shapes alone, as with trtexec",
        )
    for text in shapes:
        if text is not None:
            parse_shapes(text)
    if options.dla_core is not None:
        raise MachineError(
            "no engine for DLA",
            # NVIDIA's "Working with DLA" and "DLA Supported Layers and Restrictions" (TensorRT 11.4.1).
            received="the engine graph ends in argmax (TopK) and a UINT8 mask, which DLA's layers, FP16 and "
            "INT8 alone, do not offer; and of the strongly typed versions only TensorRT 11.4.1 on JetPack "
            "7.2.2 documents DLA for Jetson (10.7 was the last of the 10.x); TensorRT-RTX has none",
            expected="the GPU",
            action="leave --dla-core out",
        )


def parse_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of ``image:1x1x256x256[,other:2x3]`` by tensor.

    Raises:
        UsageError: the text is malformed or names a tensor twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        match = re.fullmatch(r"'?([^:']+)'?:(\d+(?:x\d+)*)", part.strip())
        if match is None or match[1] in shapes:
            raise UsageError(
                "no tensor shapes", received=repr(text), expected="for example image:1x1x256x256"
            )
        shapes[match[1]] = tuple(map(int, match[2].split("x")))
    return shapes


def choose_profile(options: TensorRtOptions, image: str, shape: Sequence[int]) -> BatchProfile:
    """Return the batch sizes that the options mean for a graph.

    Args:
        options: as checked by `check_options`.
        image: name of the graph's input.
        shape: its shape (batch, C, h, w); -1 for a free batch.

    Raises:
        UsageError: another tensor or size is named, or the sizes are not in order.
    """
    if options.opt_shapes is None:
        return BatchProfile(1, 1, 1)
    texts = (options.min_shapes, options.opt_shapes, options.max_shapes)
    profile = BatchProfile(*(_parse_batch(text or options.opt_shapes, image, shape) for text in texts))
    if not 1 <= profile.lowest <= profile.usual <= profile.highest:
        raise UsageError(
            "the batch sizes of a profile are not in order",
            received=f"smallest {profile.lowest}, usual {profile.usual}, largest {profile.highest}",
            expected="1 ≤ smallest ≤ usual ≤ largest",
        )
    return profile


def _parse_batch(text: str, image: str, shape: Sequence[int]) -> int:
    shapes = parse_shapes(text)
    batch, *size = shapes.get(image, (0,))
    if set(shapes) != {image} or size != list(shape[1:]) or shape[0] not in (-1, batch):
        free = "BATCH" if shape[0] == -1 else str(shape[0])
        raise UsageError(
            "the graph has other shapes" + ("; only its batch is free" if shape[0] == -1 else ""),
            received=text,
            expected=f"{image}:{'x'.join(map(str, (free, *shape[1:])))}",
        )
    return batch


def apply_options(options: TensorRtOptions, library: Any, target: str, config: Any) -> None:
    """Set workspace and compatibility on a builder configuration.

    Raises:
        MachineError: the library does not offer the compatibility that is asked for.
    """
    if options.workspace is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if target == "tensorrt-rtx" and (options.version_compatible or options.hardware_compatible != "none"):
        # It logs that the level is unsupported and builds all the same; for the flag it misses a library.
        raise MachineError(
            "TensorRT-RTX has no compatibility levels",
            received=", ".join(name for name in options.list_set() if name.endswith("compatible")),
            expected="neither: its engines run on every GPU of the compute capabilities they are built for",
            action="name those by --sm, or build with --target tensorrt on the device",
        )
    if options.version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible != "none":
        # SAME_COMPUTE_CAPABILITY is missing in TensorRT 10.3.
        levels = library.HardwareCompatibilityLevel.__members__
        level = levels.get(HARDWARE_LEVELS[options.hardware_compatible])
        if level is None:
            known = [name for name, member in HARDWARE_LEVELS.items() if member in levels]
            raise MachineError(
                f"TensorRT {library.__version__} does not offer this hardware compatibility",
                received=options.hardware_compatible,
                expected=" or ".join(known),
                action="name one of these, or leave the option out",
            )
        config.hardware_compatibility_level = level
