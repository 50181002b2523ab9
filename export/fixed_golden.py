"""Golden frames in the one size that a build takes, and the masks it is to give there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.bundle import Bundle, format_export, pack_judged_frames, read_golden
from edgekd.errors import MachineError
from edgekd.export.agreement import Runner, check_core_logits
from edgekd.export.source_graphs import CORE_FILE, find_graphs
from edgekd.preprocess import preprocess_frames, resize_labels
from edgekd.specs import PreprocessSpec


def fit_golden_frames(
    bundle: Bundle, target: str, size: tuple[int, int], core: Path | None = None
) -> bytes | None:
    """Return the ``golden.npz`` of a build for one size of frame; None where the bundle's own have the size.

    Args:
        bundle: the bundle.
        target: ``onnx`` or ``openvino``, whose library computes the masks from the float32 core.
        size: (H, W) of the frames.
        core: the float32 core; None takes that of the bundle's ONNX build.

    Raises:
        GateFailure: the core gives other logits on the bundle's golden frames than the PyTorch student.
    """
    golden, spec = read_golden(bundle), bundle.manifest.preprocess
    if all(frame.shape[:2] == size for frame in golden.frames):
        return None
    frames = [_fit_frame(frame, size, spec) for frame in golden.frames]
    run = _open_core(core or _find_core(bundle), target)
    check_core_logits(run, bundle)
    logits = run(preprocess_frames(frames, spec))
    return pack_judged_frames(frames, list(logits.argmax(axis=1).astype(np.uint8)))


def _fit_frame(frame: NDArray[Any], size: tuple[int, int], spec: PreprocessSpec) -> NDArray[Any]:
    """Return a frame of that size: what is cropped stays where it is, else all is resized (nearest)."""
    if spec.crop is None:
        return resize_labels(frame, *size)
    fitted = np.zeros((*size, *frame.shape[2:]), frame.dtype)
    kept = frame[: size[0], : size[1]]
    fitted[: kept.shape[0], : kept.shape[1]] = kept
    return fitted


def _find_core(bundle: Bundle) -> Path:
    graphs = find_graphs(bundle)
    if graphs is None:
        raise MachineError(
            "the bundle holds no float32 graph to compare with",
            action=format_export(bundle.path, "onnx"),
        )
    return graphs.resolve_file(CORE_FILE)


def _open_core(path: Path, target: str) -> Runner:
    if target == "openvino":
        from edgekd.export.openvino import open_graph

        return open_graph(path)
    import onnx

    from edgekd.export.running import make_runner

    return make_runner(onnx.load(path))
