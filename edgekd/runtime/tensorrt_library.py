"""TensorRT and TensorRT-RTX: two libraries with one interface, imported late, and the words they log."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping
from typing import Any

from edgekd.errors import MachineError
from edgekd.preprocess.device import CudaDevice

# The Python package of each target; both carry the same interface.
PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
# The compute capability from which on an engine with hardware compatibility ampere+ runs.
AMPERE = 80


def import_library(target: str) -> Any:
    """Return the module ``tensorrt`` or ``tensorrt_rtx`` for a target.

    Raises:
        MachineError: it is not installed or cannot be loaded.
    """
    try:
        return importlib.import_module(PACKAGES[target])
    except (ImportError, OSError) as error:  # the wheels load their libraries by ctypes
        raise MachineError(
            f"the library {PACKAGES[target]} cannot be loaded",
            received=str(error),
            action=f'pip install "edgekd[{target}]"; on a Jetson it is the system\'s, see docs/jetson.md',
        ) from error


def create_runtime(library: Any, log: MessageLog, *, host_code: bool) -> Any:
    """Return what deserialises plans.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        log: what it writes to.
        host_code: a version-compatible plan brings the lean runtime, which is code, and may run it.
    """
    runtime = library.Runtime(log.logger)
    if host_code:
        runtime.engine_host_code_allowed = True
    return runtime


class MessageLog:
    """Collects what the library says, because many of its calls report a failure nowhere else.

    Attributes:
        logger: the object to hand to the library's ``Builder``, ``OnnxParser`` or ``Runtime``.
        messages: pairs of severity (``INTERNAL_ERROR``, ``ERROR``, ``WARNING``) and text, in order.
    """

    def __init__(self, library: Any) -> None:
        messages: list[tuple[str, str]] = []

        class Logger(library.ILogger):
            def __init__(self) -> None:
                library.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                    messages.append((severity.name, text))

        self.messages = messages
        self.logger: Any = Logger()

    def list_warnings(self) -> list[str]:
        """Return the warnings, each once, in order."""
        return list(dict.fromkeys(text for severity, text in self.messages if severity == "WARNING"))

    def format_errors(self) -> str:
        """Return the errors as one text; says so where there is none."""
        texts = [text for severity, text in self.messages if severity != "WARNING"]
        return "; ".join(dict.fromkeys(texts)) or "nothing in its log"


def list_architectures(library: Any) -> list[int]:
    """Return the compute capabilities that TensorRT-RTX builds for and runs on, ascending: 75, 80 …"""
    numbers = [value.value for value in library.ComputeCapability.__members__.values()]
    # CURRENT and NONE are members too.
    return sorted(number for number in numbers if number >= 10)


def describe_platform() -> str:
    """Return operating system and processor, which a plan is bound to: ``Linux x86_64``."""
    return f"{platform.system()} {platform.machine()}"


def check_engine_facts(
    facts: Mapping[str, Any], target: str, library: Any, device: CudaDevice, rebuild: str
) -> None:
    """Raise MachineError where a plan cannot be deserialised here: to be called before trying.

    Args:
        facts: ``facts["engine"]`` of the build.
        target: the build's target.
        library: the module of that target.
        device: the GPU that shall run it.
        rebuild: the command that makes the build anew.
    """
    _check_version(str(facts["library"]), target, library, facts.get("version_compatible", False), rebuild)
    if facts["platform"] != describe_platform():
        raise MachineError(
            f"the {target} engine was built for another platform",
            received=f"{describe_platform()} here",
            expected=facts["platform"],
            action=rebuild,
        )
    level = facts.get("hardware_compatible", "none")
    if device.architecture in facts["architectures"]:
        return
    served = target != "tensorrt-rtx" or device.architecture in list_architectures(library)
    # Data-centre GPUs such as Hopper are not served, although they are younger than Ampere.
    if level == "ampere+" and device.architecture >= AMPERE and served:
        return
    elsewhere = rebuild.replace("--target tensorrt-rtx", "--target tensorrt")
    raise MachineError(
        f"the {target} engine was built for other GPUs",
        received=f"{device.name}, sm_{device.architecture}",
        expected=", ".join(f"sm_{number}" for number in facts["architectures"])
        + (" or any from sm_80 on" if level == "ampere+" else ""),
        action=rebuild
        if served
        else f"TensorRT-RTX does not serve sm_{device.architecture}: install TensorRT here, then {elsewhere}",
    )


def _check_version(built: str, target: str, library: Any, compatible: bool, rebuild: str) -> None:
    """Raise MachineError unless the library is the one that built the plan, or may load it by its option."""
    here = f"{PACKAGES[target]} {library.__version__}"
    if here == built:
        return
    name, _, version = built.partition(" ")
    expected = f"{built} or a later {name} {version.partition('.')[0]}.x" if compatible else built
    ours, theirs = parse_version(library.__version__), parse_version(version)
    # Version compatibility reaches forward, within one major version.
    if compatible and name == PACKAGES[target] and ours[0] == theirs[0] and ours >= theirs:
        return
    raise MachineError(
        f"the {target} engine was built for another library",
        received=f"{here} here",
        expected=expected,
        action=rebuild,
    )


def parse_version(text: str) -> tuple[int, ...]:
    """Return ``10.13.3.9.post1`` as (10, 13, 3, 9)."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
