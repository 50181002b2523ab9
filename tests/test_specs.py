from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd.specs import ClassSpec, CropBox, PreprocessSpec


def test_hash_depends_on_every_field() -> None:
    base = PreprocessSpec(height=128, width=128)
    changed = {
        "height": 64,
        "width": 64,
        "frame_order": "bgr",
        "frame_dtype": "uint16",
        "crop": CropBox(top=0, left=0, height=8, width=8),
        "antialias": False,
        "scale": 1 / 65535,
        "mean": (0.4,),
        "std": (0.2,),
    }
    hashes = {base.model_copy(update={key: value}).compute_hash() for key, value in changed.items()}
    assert len(hashes | {base.compute_hash()}) == len(changed) + 1
    rgb = PreprocessSpec(height=128, width=128, color="rgb", mean=(0.5,) * 3, std=(0.25,) * 3)
    assert rgb.compute_hash() not in hashes


def test_hash_is_stable_across_releases() -> None:
    # Bundles in the field carry this hash: a change here breaks them and needs a new schema version.
    assert PreprocessSpec(height=128, width=96).compute_hash() == (
        "2180cd16f683e3a839941c2d61501cba41219513df6fef353a69e4a6a8279560"
    )


def test_channel_counts_must_agree() -> None:
    with pytest.raises(ValidationError, match="mean has 1 values"):
        PreprocessSpec(height=8, width=8, color="rgb")


def test_unknown_key_fails() -> None:
    with pytest.raises(ValidationError, match="heigth"):
        PreprocessSpec(heigth=8, height=8, width=8)  # type: ignore[call-arg]


def test_two_classes_at_least() -> None:
    assert ClassSpec().count == 2
    with pytest.raises(ValidationError):
        ClassSpec(names=("background",))


@pytest.mark.parametrize(
    ("dtype", "scale", "white"),
    [
        ("uint8", 1 / 255, 255),
        ("uint16", 1 / 65535, 65535),
        ("uint16", 1 / 4095, 4095),
        ("uint8", 1.0, 255),  # normalised by a mean and deviation of stored values
        ("uint16", 1.0, 65535),
    ],
)
def test_white_is_what_the_scale_maps_to_1(dtype: str, scale: float, white: int) -> None:
    spec = PreprocessSpec.model_validate({"height": 8, "width": 8, "frame_dtype": dtype, "scale": scale})
    assert spec.white == white
