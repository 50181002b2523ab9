"""What a build is measured by at export: preprocessing against the truth, masks on the golden frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.bundle import (
    MIN_AGREEMENT,
    MIN_FOREGROUND_OVERLAP,
    Build,
    Bundle,
    install_build,
    read_golden,
    read_judged_frames,
)
from edgekd.errors import GateFailure
from edgekd.metrics import measure_overlap
from edgekd.preprocess import preprocess_frame
from edgekd.runtime import load
from edgekd.specs import PreprocessSpec
from edgekd.tables import format_agreement, format_floor

LARGEST_LOGIT_DIFFERENCE = 1e-3
LARGEST_PREPROCESS_DIFFERENCE = 1e-5
# Added to what the spec needs, so that every axis is odd, and is once enlarged and once reduced.
_FRAME_SIZES = ((37, 53), (333, 97), (211, 603))

NOTHING_MARKED = (
    "the student marks next to nothing on the golden frames, so that they tell little of this build: judge "
    "it by edgekd parity BUNDLE --data DATA, or distil with --golden DATA"
)

Runner = Callable[[NDArray[Any]], NDArray[Any]]


def check_core_logits(run: Runner, bundle: Bundle) -> float:
    """Return the largest difference between a core's logits and the golden ones.

    Args:
        run: (N, C, h, w) float32 → (N, K, h, w) float32.
        bundle: its golden frames hold the logits of the PyTorch student.

    Raises:
        GateFailure: it is above LARGEST_LOGIT_DIFFERENCE, or no number.
    """
    golden = read_golden(bundle)
    difference = float(np.abs(run(golden.tensors) - golden.logits).max())
    return _check_limit("logits of the core graph", difference, LARGEST_LOGIT_DIFFERENCE)


def check_preprocessing(
    run: Runner, spec: PreprocessSpec, frame_size: tuple[int, int] | None = None
) -> float:
    """Return the largest difference from the NumPy truth on noise frames, as a part of the frame's range.

    Args:
        run: (1, H, W, C) frames in the spec's dtype → (1, C, h, w) float32.
        spec: the steps.
        frame_size: (H, W) of the only frames that it takes; None tries several.

    Raises:
        GateFailure: it is above LARGEST_PREPROCESS_DIFFERENCE, or no number.
    """
    crop = spec.crop
    least = (0, 0) if crop is None else (crop.top + crop.height, crop.left + crop.width)
    sizes = [(least[0] + height, least[1] + width) for height, width in _FRAME_SIZES]
    if frame_size is not None:
        sizes = [frame_size]
    differences = [_measure_preprocessing(run, spec, size) for size in sizes]
    return _check_limit("preprocessing in the graph", max(differences), LARGEST_PREPROCESS_DIFFERENCE)


def install_checked(bundle: Bundle, draft: Build) -> Build:
    """Run a draft on the golden frames and install it with the status ``run`` and what was seen.

    Raises:
        MachineError, SegmenterFault: it cannot run here as asked, or fails.
        GateFailure: its masks are others.
    """
    seen = run_on_golden_frames(bundle, draft)
    effective = seen["run_by"].get("precision_effective", draft.record.precision_effective)
    facts = {**draft.record.facts, **seen}
    if seen["golden_foreground_overlap"] is None:
        facts["notices"] = list(dict.fromkeys([*facts.get("notices", ()), NOTHING_MARKED]))
    return install_build(bundle, draft, status="run", effective=effective, facts=facts)


def run_on_golden_frames(bundle: Bundle, draft: Build, precision: str | None = None) -> dict[str, Any]:
    """Run a draft on the golden frames and return what was seen; errors as `install_checked`.

    Args:
        bundle: the bundle.
        draft: the build.
        precision: whose floor holds; None takes the one that was asked for.
    """
    golden = read_judged_frames(bundle, draft)
    record = draft.record
    with load(bundle, record.target, record.precision_asked, record.device, build=draft) as segmenter:
        masks = segmenter.segment(golden.frames)
        engine = segmenter.engine.facts()
    different = int(np.count_nonzero(masks != golden.masks))
    agreement = {
        "golden_frames": len(golden),
        "golden_pixel_agreement": 1 - different / masks.size,
        "golden_pixels_different": different,
        "golden_foreground_overlap": (overlap := measure_overlap(masks, golden.masks)),
    }
    floor = MIN_AGREEMENT[precision or record.precision_asked]
    is_lost = overlap is not None and overlap < MIN_FOREGROUND_OVERLAP
    if agreement["golden_pixel_agreement"] < floor or is_lost:
        raise GateFailure(
            f"the build {draft.name} disagrees with the PyTorch student on golden frames and was not kept",
            received=f"{format_agreement(agreement['golden_pixel_agreement'])} of the pixels equal"
            + (f", Dice of the foreground {overlap:.4f}" if is_lost else ""),
            expected=f"at least {format_floor(floor)}"
            + (f" and {MIN_FOREGROUND_OVERLAP}" if is_lost else ""),
            action=None if record.precision_asked == "fp32" else _advise_other(bundle, record.facts),
        )
    return {**agreement, "run_by": engine}


def _advise_other(bundle: Bundle, facts: Mapping[str, Any]) -> str:
    """Return what helps where a reduced precision changes too many pixels of the golden frames."""
    ways = ["export in another precision"]
    if (facts.get("calibration") or {}).get("data_of_the_student") is False:
        ways.insert(0, "name the data that the student was distilled on with --calib")
    if bundle.manifest.training.get("config", {}).get("golden") is None:
        # Seen with microscopy: int8 kept Dice on the validation split, while a phantom pixel in 30 changed.
        ways.append(
            "where the student's images look nothing like synthetic ultrasound, distil with --golden DATA, "
            "which takes golden frames of its own kind"
        )
    return "; or, ".join(ways)


def _measure_preprocessing(run: Runner, spec: PreprocessSpec, size: tuple[int, int]) -> float:
    shape = size if spec.color == "gray" else (*size, 3)
    frame = np.random.default_rng(0).integers(0, spec.white + 1, shape, dtype=spec.frame_dtype)
    truth = preprocess_frame(frame, spec)
    found = run(frame.reshape(1, *size, spec.channels))[0]
    value_range = spec.scale * spec.white / np.reshape(spec.std, (-1, 1, 1))
    return float((np.abs(found - truth) / value_range).max())


def _check_limit(what: str, difference: float, limit: float) -> float:
    # Written so that NaN fails too.
    if not difference <= limit:
        raise GateFailure(
            f"the {what} differ from the truth",
            received=f"{difference:.2e}",
            expected=f"at most {limit:.0e}",
            action="report this with the network's code: the exporter or the engine computes something else",
        )
    return difference
