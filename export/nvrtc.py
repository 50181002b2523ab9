"""NVRTC, NVIDIA's runtime compiler, through its C interface; it makes GPU code on machines without a GPU."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import EdgeKDError, MachineError

WHEELS = ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc")
INSTALL_ACTION = 'pip install "edgekd[nvrtc]"'


@dataclass(frozen=True)
class Compilation:
    """A cubin or PTX text, and the log; ``--ptxas-options=-v`` adds a cubin's registers and spills to it."""

    code: bytes
    log: str


class Compiler:
    """One NVRTC library.

    Attributes:
        origin: where it was found: a wheel's name and version, or ``system``.
        version: (major, minor) of the CUDA toolkit that it belongs to.
        architectures: compute capabilities it compiles for, ascending: 87 stands for 8.7.
    """

    def __init__(self, library: str, origin: str) -> None:
        self._library = _load_library(library)
        self.origin = origin
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", numbers)
        self.architectures = tuple(sorted(numbers))

    def compile(self, source: str, name: str, architecture: str, options: Sequence[str]) -> Compilation:
        """Compile CUDA C++ to a cubin (``architecture`` such as ``sm_87``) or to PTX (``compute_87``).

        Args:
            source: the program.
            name: what messages call it.
            architecture: real (``sm_``) or virtual (``compute_``).
            options: further NVRTC options.

        Raises:
            EdgeKDError: the program does not compile; the compiler's log is in the message.
        """
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
        try:
            arguments = [f"--gpu-architecture={architecture}", *options]
            array = (ctypes.c_char_p * len(arguments))(*(text.encode() for text in arguments))
            status = self._library.nvrtcCompileProgram(program, len(arguments), array)
            log = self._read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace").strip()
            if status != 0:
                raise EdgeKDError(f"NVRTC could not compile {name} for {architecture}", received=log)
            if architecture.startswith("sm_"):
                return Compilation(self._read(program, "CUBIN"), log)
            return Compilation(self._read(program, "PTX").rstrip(b"\0"), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, part: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{part}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{part}", program, buffer)
        return buffer.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            text = self._library.nvrtcGetErrorString(status).decode()
            raise EdgeKDError(f"{function} of NVRTC failed", received=text)


def find_compilers() -> list[Compiler]:
    """Return every NVRTC of this environment's wheels and, without a wheel, that of the system; oldest first.

    Raises:
        MachineError: there is none, or one cannot be loaded.
    """
    found = [Compiler(str(path), origin) for path, origin in _find_wheel_libraries()]
    if not found and (system := ctypes.util.find_library("nvrtc")):
        found = [Compiler(system, "system")]
    if not found:
        raise MachineError("NVRTC, the compiler of the CUDA preprocessing, is missing", action=INSTALL_ACTION)
    return sorted(found, key=lambda compiler: compiler.version)


def _find_wheel_libraries() -> list[tuple[Path, str]]:
    libraries: list[tuple[Path, str]] = []
    for wheel in WHEELS:
        try:
            distribution = importlib.metadata.distribution(wheel)
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in distribution.files or ():
            if file.name.startswith("libnvrtc.so") or (
                file.name.startswith("nvrtc64_") and file.suffix == ".dll"
            ):
                libraries.append((Path(str(file.locate())), f"{wheel} {distribution.version}"))
    return libraries


def _load_library(path: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise MachineError("NVRTC cannot be loaded", received=str(error), action=INSTALL_ACTION) from error
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library
