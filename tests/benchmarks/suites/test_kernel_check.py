from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from edgekd.benchmarks.suites.kernel_cases import compute_half_ulp, draw_cases, measure_case
from edgekd.preprocess import preprocess_frames

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")

from edgekd.benchmarks.suites import kernel_check


def test_every_form_is_checked_and_passes() -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++: the kernel cannot run on this machine")
    result = kernel_check.check_cases(2, seed=3)
    assert set(result["largest_difference_of_range"]) == {"kernel_float", "kernel_half", "onnx", "openvino"}
    assert result["missed"] == 0 and result["specs"] == 2 and result["frames"] >= 4


def test_wrong_result_is_measured() -> None:
    case = next(draw_cases(1, seed=0))
    truth = preprocess_frames(list(case.frames[0]), case.spec)
    assert measure_case(case.spec, case.frames[0], truth) == 0
    assert measure_case(case.spec, case.frames[0], truth.astype(np.float16)) < 1e-7
    assert measure_case(case.spec, case.frames[0], np.full_like(truth, np.nan)) == 1e9
    wrong: Any = truth.copy()
    wrong[0, 0, 0, 0] += 1e-5 / case.spec.std[0]
    assert measure_case(case.spec, case.frames[0], wrong) == pytest.approx(1e-5, rel=0.1)


def test_half_ulp_is_the_spacing_of_halves() -> None:
    values = np.array([1.0, 1.5, 2.0, 0.03, 6e-5, 1e-6, 0.0, -3.7])
    halves = np.abs(values).astype(np.float16)
    np.testing.assert_array_equal(compute_half_ulp(values), np.spacing(halves).astype(np.float64))


def test_cases_hold_what_they_promise() -> None:
    cases = list(draw_cases(200, seed=0))
    specs = [case.spec for case in cases]
    assert {(spec.color, spec.frame_order, spec.frame_dtype, spec.antialias) for spec in specs} == {
        (color, order, dtype, antialias)
        for color in ("gray", "rgb")
        for order in ("rgb", "bgr")
        for dtype in ("uint8", "uint16")
        for antialias in (True, False)
    }
    assert any(spec.height == 1 for spec in specs) and any(spec.crop is None for spec in specs)
    assert any(spec.crop is not None and spec.crop.width == 1 for spec in specs)
    assert not any(frames.flags.c_contiguous for case in cases for frames in case.frames)
    assert [case.spec for case in draw_cases(3, seed=0)] == specs[:3]
