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


def import_library(target: str) -> Any:
    """Return the module ``tensorrt`` or ``tensorrt_rtx`` for a target.

    Raises:
        MachineError: it is not installed or cannot be loaded.
    """
    try:
        return importlib.import_module(PACKAGES[target])
    except ImportError as error:
        raise MachineError(
            f"the library {PACKAGES[target]} cannot be loaded",
            received=str(error),
            action=f'pip install "edgekd[{target}]"; on a Jetson it is the system\'s, see docs/jetson.md',
        ) from error


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
    here = {
        "library": f"{PACKAGES[target]} {library.__version__}",
        "platform": describe_platform(),
    }
    for name, value in here.items():
        if facts[name] != value:
            raise MachineError(
                f"the {target} engine was built for another {name}",
                received=f"{value} here",
                expected=facts[name],
                action=rebuild,
            )
    if device.architecture not in facts["architectures"]:
        raise MachineError(
            f"the {target} engine was built for other GPUs",
            received=f"{device.name}, sm_{device.architecture}",
            expected=", ".join(f"sm_{number}" for number in facts["architectures"]),
            action=rebuild,
        )
