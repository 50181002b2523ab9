from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.benchmarks.suites.kernel_cases import compute_half_ulp, draw_cases, measure_case
from edgekd.preprocess import preprocess_frames
from edgekd.specs import PreprocessSpec

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")

from edgekd.benchmarks.suites import kernel_check


def test_every_form_is_checked_and_passes() -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++: the kernel cannot run on this machine")
    result = kernel_check.check_cases(2, seed=3)
    assert set(result["largest_difference_of_range"]) == {"kernel_float", "kernel_half", "onnx", "openvino"}
    assert result["missed"] == 0 and result["specs"] == 2 and result["frames"] >= 4


def test_missed_bar_is_reported_and_exits_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_truth(spec: PreprocessSpec, error: float = 0.0) -> Any:
        def run(frames: np.ndarray) -> np.ndarray:
            flat = [frame[..., 0] if frame.shape[-1] == 1 and frame.ndim == 3 else frame for frame in frames]
            return preprocess_frames(flat, spec) + np.float32(error)

        return run

    def compile_truth(cases: Any, folder: Path) -> Any:
        return [(run_truth(case.spec), run_truth(case.spec)) for case in cases]

    monkeypatch.setattr(kernel_check, "compile_cases", compile_truth)
    monkeypatch.setattr(kernel_check, "run_openvino", lambda core, spec: run_truth(spec))
    monkeypatch.setattr(kernel_check, "run_onnx", lambda spec: run_truth(spec, 1e-2))
    out = tmp_path / "results" / "kernel.json"
    with pytest.raises(SystemExit) as caught:
        kernel_check.main(out, count=2, seed=0)
    result = json.loads(out.read_text(encoding="utf-8"))
    assert caught.value.code == 1 and result["missed"] == 2
    assert [one["form"] for one in result["first_missed"]] == ["onnx", "onnx"]


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
