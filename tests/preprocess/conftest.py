from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_shim import KernelShim, compile_kernel

from edgekd.specs import PreprocessSpec


@pytest.fixture(scope="session")
def shim_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for compiled kernels; skips where no C++ compiler is."""
    if shutil.which("g++") is None:
        pytest.skip("no g++: the kernel's arithmetic was not checked")
    return tmp_path_factory.mktemp("shim")


@pytest.fixture(scope="session")
def compile_shim(shim_folder: Path) -> Callable[..., KernelShim]:
    """Return a function that compiles the kernel of a specification for the host."""

    def compile_spec(spec: PreprocessSpec, *, half: bool = False) -> KernelShim:
        return KernelShim(compile_kernel(shim_folder, spec, half=half), spec, half=half)

    return compile_spec
