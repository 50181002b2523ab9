"""Recordings are read back exactly, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import Recording, load_recording, save_recording
from edgekd.errors import InputError


def build_recording(count: int = 3, **changes: object) -> Recording:
    rng = np.random.default_rng(0)
    fields: dict = {
        "source": "pytorch",
        "manifest_sha256": "a" * 64,
        "data_sha256": "b" * 64,
        "names": tuple(f"case {index} é" for index in range(count)),
        "groups": ("p1",) * count,
        "truths": rng.integers(0, 2, (count, 5, 7), dtype=np.uint8),
        "masks": rng.integers(0, 2, (count, 5, 7), dtype=np.uint8),
        "logits": rng.normal(size=(count, 2, 5, 7)).astype(np.float32),
    }
    return Recording(**{**fields, **changes})


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("with_logits", [True, False])
def test_what_is_saved_is_loaded(tmp_path: Path, count: int, with_logits: bool) -> None:
    recording = build_recording(count) if with_logits else build_recording(count, logits=None)
    save_recording(tmp_path / "r.npz", recording)
    loaded = load_recording(tmp_path / "r.npz")
    for name in ("source", "manifest_sha256", "data_sha256", "names", "groups"):
        assert getattr(loaded, name) == getattr(recording, name)
    np.testing.assert_array_equal(loaded.truths, recording.truths)
    np.testing.assert_array_equal(loaded.masks, recording.masks)
    if recording.logits is None:
        assert loaded.logits is None
    else:
        np.testing.assert_array_equal(loaded.logits, recording.logits)


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": ("p1",)},
        {"masks": np.zeros((2, 5, 7), np.uint8)},
        {"truths": np.zeros((3, 5, 8), np.uint8)},
        {"masks": np.zeros((3, 5, 7), np.int64)},
        {"logits": np.zeros((3, 2, 5, 8), np.float32)},
        {"logits": np.zeros((3, 2, 5, 7), np.float64)},
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict) -> None:
    with pytest.raises(InputError):
        build_recording(**changes)


def test_unreadable_recordings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    with pytest.raises(InputError, match="there is no recording"):
        load_recording(path)
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match="no readable array file"):
        load_recording(path)
    np.savez(path, masks=np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(InputError, match="is no recording"):
        load_recording(path)
    np.savez(path, masks=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="without pickle"):
        load_recording(path)
    path.write_text("<testsuites/>")
    with pytest.raises(InputError, match="received a file of another kind"):
        load_recording(path)
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(InputError, match="no readable array file"):
        load_recording(tmp_path / "single.npy")
