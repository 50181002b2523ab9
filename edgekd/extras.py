"""What installs an optional part of EdgeKD on this machine."""

from __future__ import annotations

import platform

# Both extras are empty there.
_ON_AARCH64 = {
    "tensorrt": "JetPack brings it: sudo apt-get install python3-libnvinfer, and an environment made with "
    "--system-site-packages, see docs/jetson.md",
    "tensorrt-rtx": "there is none for aarch64: edgekd export BUNDLE --target tensorrt",
}


def explain_installing(extra: str) -> str:
    """Return the command that installs an extra, or what to do where no wheel is for this machine."""
    if platform.machine() == "aarch64" and extra in _ON_AARCH64:
        return _ON_AARCH64[extra]
    return f'pip install "edgekd[{extra}]"'
