from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.errors import MachineError
from edgekd.preprocess.device import CudaDevice, find_device

# The driver's functions under their C names; no GPU where COUNT is 0, broken where STATUS is not 0.
DRIVER_SOURCE = r"""
#include <string.h>
int cuInit(unsigned flags) { return flags == 0 ? STATUS : 1; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int index) { *device = 40 + index; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    if (device < 40) return 101;
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return 0;
}
int cuDeviceGetName(char *name, int size, int device)
{
    strncpy(name, device == 41 ? "second" : "first", size);
    return 0;
}
int cuGetErrorString(int status, const char **text) { *text = "no CUDA-capable device"; return 0; }
"""


@pytest.fixture
def build_driver(tmp_path: Path) -> Callable[..., str]:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to make a driver's stand-in with")

    def build(count: int = 2, status: int = 0) -> str:
        library = tmp_path / "libcuda.so"
        command = [compiler, "-shared", "-fPIC", "-xc", f"-DCOUNT={count}", f"-DSTATUS={status}", "-"]
        subprocess.run([*command, "-o", str(library)], input=DRIVER_SOURCE.encode(), check=True)
        return str(library)

    return build


def test_device_is_described(build_driver: Callable[..., str]) -> None:
    found = find_device(1, library=build_driver())
    assert found == CudaDevice(index=1, name="second", architecture=87, driver_cuda=(12, 6))


@pytest.mark.parametrize("index", [2, -1])
def test_number_of_no_gpu(build_driver: Callable[..., str], index: int) -> None:
    with pytest.raises(MachineError, match=f"no GPU number {index}"):
        find_device(index, library=build_driver())


def test_no_gpu_at_all(build_driver: Callable[..., str]) -> None:
    with pytest.raises(MachineError, match="0 GPUs"):
        find_device(library=build_driver(count=0))


def test_driver_that_finds_nothing_says_why(build_driver: Callable[..., str]) -> None:
    with pytest.raises(MachineError, match=r"cuInit: no CUDA-capable device \(100\)"):
        find_device(library=build_driver(status=100))


def test_missing_driver(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no NVIDIA driver") as caught:
        find_device(library=str(tmp_path / "libcuda.so.1"))
    assert caught.value.exit_code == 3
