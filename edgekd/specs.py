"""Facts that training and the device agree on: how a frame becomes a tensor, and what the classes are."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]


class Spec(BaseModel):
    """A frozen record of facts; unknown keys fail."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def compute_hash(self) -> str:
        """Return the sha256 (hex) of the record as canonical JSON (sorted keys, no spaces)."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class CropBox(Spec):
    """The part of a frame that is kept, in pixels of the frame."""

    top: Annotated[int, Field(ge=0)]
    left: Annotated[int, Field(ge=0)]
    height: PositiveInt
    width: PositiveInt


FRAME_BITS = {"uint8": 8, "uint16": 16}


class PreprocessSpec(Spec):
    """How a frame (H, W) or (H, W, 3) becomes a (C, height, width) float32 tensor.

    The steps, in this order: crop; colour to grey by integer BT.601 luma
    ``(19595 R + 38470 G + 7471 B + 32768) >> 16`` (``color="gray"``) or grey to three equal
    channels (``color="rgb"``); resize, bilinear with half-pixel centres, the triangle filter
    widened by the scale when shrinking if ``antialias``; then ``(x * scale - mean) / std`` per channel.

    Attributes:
        height, width: size of the tensor, pixels.
        color: channels of the tensor: ``gray`` (C = 1) or ``rgb`` (C = 3).
        frame_order: order of the channels in a colour frame as it arrives.
        frame_dtype: dtype of the frame as it arrives.
        crop: part of the frame that is kept; None keeps all.
        antialias: widen the filter when shrinking.
        scale: factor applied to the stored integers.
        mean, std: one value a channel of the tensor, after ``scale``.
    """

    height: PositiveInt
    width: PositiveInt
    color: Literal["gray", "rgb"] = "gray"
    frame_order: Literal["rgb", "bgr"] = "rgb"
    frame_dtype: Literal["uint8", "uint16"] = "uint8"
    crop: CropBox | None = None
    antialias: bool = True
    scale: Annotated[float, Field(gt=0)] = 1.0 / 255.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (0.25,)

    @property
    def channels(self) -> int:
        """Channels of the tensor: 1 for grey, 3 for colour."""
        return 1 if self.color == "gray" else 3

    @property
    def white(self) -> int:
        """The brightest stored integer: what ``scale`` maps to 1, 4095 in 12-bit frames of 16 bits each.

        The largest of ``frame_dtype`` where ``scale`` says of no value that it is the brightest.
        """
        bits, level = FRAME_BITS[self.frame_dtype], round(1 / self.scale)
        return level if 2 ** (bits // 2) <= level < 2**bits else 2**bits - 1

    @model_validator(mode="after")
    def _check_channels(self) -> PreprocessSpec:
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count != self.channels:
                raise ValueError(f"{name} has {count} values, color={self.color!r} needs {self.channels}")
        return self


class ClassSpec(Spec):
    """The classes of a mask: id 0 is the background."""

    names: Annotated[tuple[str, ...], Field(min_length=2, max_length=255)] = ("background", "lesion")

    @property
    def count(self) -> int:
        """Number of classes K, background included."""
        return len(self.names)


class ModelSpec(Spec):
    """A network by catalogue name or ``package.module:factory``, and what it was built with."""

    name: str
    options: dict[str, int | float | str | bool] = {}
    in_channels: PositiveInt
    num_classes: Annotated[int, Field(ge=2)]
    parameters: PositiveInt
    macs: PositiveInt
