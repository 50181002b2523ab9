"""The planted faults: what exporters, drivers and calibration sets get wrong, one entry each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekd.benchmarks.suites.fault_graphs import (
    CoreFault,
    add_noise,
    cast_to_half,
    change_weights,
    quantise,
    shift_threshold,
)
from edgekd.preprocess import convert_to_gray, preprocess_frame
from edgekd.specs import PreprocessSpec

Frame = NDArray[Any]
Tensor = NDArray[np.float32]
Masks = NDArray[np.uint8]
Variant = Literal["gray8", "tinted", "gray16"]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong between a validated student and its engine.

    Attributes:
        name: unique.
        spec: preprocessing written into the graph in place of the student's.
        frame: what the device does to a frame before the graph gets it.
        tensor: preprocessing outside the graph, (H, W) frame → (C, h, w) float32.
        core: the graph of the network, changed; gets tensors of the training split to calibrate with.
        masks: what becomes of the masks (N, h, w) of consecutive frames.
        student: whose weights are in the graph.
        variant: what the frames are; only some faults exist for grey 8-bit ones.
        precision: decides the floor of agreement.
    """

    name: str
    spec: dict[str, Any] | None = None
    frame: Callable[[Frame], Frame] | None = None
    tensor: Callable[[Frame, PreprocessSpec], Tensor] | None = None
    core: CoreFault | None = None
    masks: Callable[[Masks], Masks] | None = None
    student: str = "main"
    variant: Variant = "gray8"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"


def list_faults() -> list[Fault]:
    """Return every planted fault."""
    return [*_list_preprocessing(), *_list_frames(), *_list_masks(), *_list_weights(), *_list_precision()]


def _list_preprocessing() -> list[Fault]:
    return [
        Fault("mean 0.4 for 0.5", spec={"mean": (0.4,)}),
        Fault("mean 0.485 for 0.5 (ImageNet's)", spec={"mean": (0.485,)}),
        Fault("mean and std swapped", spec={"mean": (0.25,), "std": (0.5,)}),
        Fault("std 0.5 for 0.25", spec={"std": (0.5,)}),
        Fault("no normalisation", spec={"mean": (0.0,), "std": (1.0,)}),
        Fault("no scale: 0 to 255", spec={"scale": 1.0}),
        Fault("scale 1/128", spec={"scale": 1 / 128}),
        Fault("scale 1/256 for 1/255", spec={"scale": 1 / 256}),
        Fault("antialias left out", spec={"antialias": False}),
        Fault("resize with aligned corners", tensor=_resize_by(_place_aligned)),
        Fault("resize without half pixels", tensor=_resize_by(_place_asymmetric)),
        Fault("resize by nearest neighbour", tensor=_resize_by_pillow(Image.Resampling.NEAREST)),
        Fault("resize bicubic", tensor=_resize_by_pillow(Image.Resampling.BICUBIC)),
        Fault("resize rounded to 8 bits", tensor=_resize_by_pillow(Image.Resampling.BILINEAR)),
        Fault("letterbox in place of stretching", tensor=_letterbox),
        Fault("normalised by each image", tensor=_normalise_by_image),
    ]


def _list_frames() -> list[Fault]:
    return [
        Fault("crop by one row", frame=lambda frame: frame[1:]),
        Fault("crop by one column", frame=lambda frame: frame[:, 1:]),
        Fault("crop by 5 % all around", frame=_crop_border),
        Fault("frame transposed", frame=lambda frame: np.swapaxes(frame, 0, 1)),
        Fault("frame mirrored", frame=lambda frame: frame[:, ::-1]),
        Fault("frame upside down", frame=lambda frame: frame[::-1]),
        Fault("frame inverted", frame=lambda frame: np.iinfo(frame.dtype).max - frame),
        Fault("gamma 2.2 applied", frame=_apply_gamma),
        Fault("row pitch off by one pixel", frame=_shear_rows),
        Fault("16 rows of padding kept", frame=lambda f: np.pad(f, [(0, 16), *[(0, 0)] * (f.ndim - 1)])),
        Fault("channels RGB read as BGR", frame=lambda frame: frame[..., ::-1], variant="tinted"),
        Fault("grey by the mean of channels", frame=_mean_channels, variant="tinted"),
        Fault("grey from the first channel", frame=lambda frame: frame[..., 0], variant="tinted"),
        Fault("16 bit read as 8: low byte", frame=lambda f: (f & 255) * np.uint16(257), variant="gray16"),
        Fault("16 bit with bytes swapped", frame=lambda frame: frame.byteswap(), variant="gray16"),
        Fault("16 bit cut off at 12", frame=lambda f: np.minimum(f, 4095).astype(f.dtype), variant="gray16"),
        Fault("16 bit scaled by 1/255", spec={"scale": 1 / 255}, variant="gray16"),
    ]


def _list_masks() -> list[Fault]:
    return [
        Fault("label order swapped", masks=lambda masks: 1 - masks),
        Fault("threshold 0.3 for 0.5", core=shift_threshold(0.3)),
        Fault("threshold 0.7 for 0.5", core=shift_threshold(0.7)),
        Fault("threshold 0.9 for 0.5", core=shift_threshold(0.9)),
        Fault("mask transposed", masks=lambda masks: np.swapaxes(masks, 1, 2).copy()),
        Fault("mask shifted by a pixel", masks=lambda masks: np.roll(masks, 1, axis=2)),
        Fault("mask upside down", masks=lambda masks: masks[:, ::-1].copy()),
        Fault("mask one frame late", masks=lambda masks: np.roll(masks, 1, axis=0)),
        Fault("one frame in 3 repeated", masks=lambda masks: _repeat(masks, 3)),
        Fault("one frame in 20 repeated", masks=lambda masks: _repeat(masks, 20)),
        Fault("one frame in 10 dropped: black", masks=lambda masks: _blank(masks, 10)),
    ]


def _list_weights() -> list[Fault]:
    noise = [
        Fault(f"noise of {strength:.0%} in layer {layer}", core=add_noise(strength, layer))
        for layer, strengths in ((1, (0.01, 0.05, 0.2, 0.5)), (9, (0.05, 0.2, 0.5, 1.0)), (-2, (0.05, 0.2)))
        for strength in strengths
    ]
    return [
        Fault("engine of another student", student="other"),
        Fault("stale weights of an earlier run", student="stale"),
        *noise,
        Fault("kernels of a layer flipped", core=change_weights(lambda w: w[..., ::-1, ::-1], 1)),
        Fault("one channel of a layer zero", core=change_weights(_zero_channel, 3)),
        Fault("bias of the last layer lost", core=change_weights(np.zeros_like, -1, "bias")),
        Fault("bias of a middle layer lost", core=change_weights(np.zeros_like, 4, "bias")),
        Fault("batch norm folded twice (x1.3)", core=change_weights(lambda w: 1.3 * w, 2)),
        Fault("one weight not a number", core=change_weights(_spoil_weight, 4)),
    ]


def _list_precision() -> list[Fault]:
    def int8(name: str, calibrate: Callable[[Tensor], Tensor], **options: Any) -> Fault:
        return Fault(f"int8 {name}", core=quantise(calibrate, **options), precision="int8")

    return [
        Fault("fp16 overflow of one in 10,000", core=cast_to_half(0, 1e-4), precision="fp16"),
        Fault("fp16 overflow of 5 %", core=cast_to_half(2, 0.05), precision="fp16"),
        Fault("fp16 overflow in the deepest layer", core=cast_to_half(4, 0.01), precision="fp16"),
        Fault("fp16 underflow of 90 %", core=cast_to_half(1, 0.9, small=True), precision="fp16"),
        int8("calibrated with a black frame", _take_black_frame),
        int8("calibrated without normalisation", _undo_normalisation),
        int8("calibrated with faint noise", _draw_noise),
        int8("calibrated with a tenth of the gain", lambda t: ((t + 2) / 10 - 2).astype(np.float32)),
        int8("unsigned read as signed", lambda t: t, clip_upper_half=True),
        int8("weights in 3 bits", lambda t: t, bits=3),
    ]


def list_sound_int8() -> list[Fault]:
    """Return int8 as it should be, which is no fault: to see what the gate says of it."""
    return [
        Fault("int8, 32 training images", core=quantise(lambda t: t), precision="int8"),
        Fault("int8, one training image", core=quantise(lambda t: t[:1]), precision="int8"),
    ]


def tint_frame(frame: Frame) -> Frame:
    """Return a frame as a display with a warm map sends it: (H, W, 3), the channels differ."""
    grey = frame if frame.ndim == 2 else convert_to_gray(frame)
    return np.stack([grey, (grey * 0.85).astype(np.uint8), (grey * 0.5).astype(np.uint8)], axis=-1)


def deepen_frame(frame: Frame) -> Frame:
    """Return a frame in 16 bits whose low byte carries a detail of its own, seeded."""
    grey = frame if frame.ndim == 2 else convert_to_gray(frame)
    low = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint16)
    return grey.astype(np.uint16) * 256 + low


def _to_gray(frame: Frame) -> Frame:
    return frame if frame.ndim == 2 else convert_to_gray(frame)


def _normalise(pixels: NDArray[Any], spec: PreprocessSpec) -> Tensor:
    return ((pixels[None] * spec.scale - spec.mean[0]) / spec.std[0]).astype(np.float32)


def _resize_by(place: Callable[[int, int], NDArray[Any]]) -> Callable[[Frame, PreprocessSpec], Tensor]:
    def run(frame: Frame, spec: PreprocessSpec) -> Tensor:
        pixels = _to_gray(frame).astype(np.float64)
        for axis, size in ((0, spec.height), (1, spec.width)):
            places = np.clip(place(pixels.shape[axis], size), 0, pixels.shape[axis] - 1)
            first = np.floor(places).astype(int)
            second = np.minimum(first + 1, pixels.shape[axis] - 1)
            part = (places - first).reshape((-1, 1) if axis == 0 else (1, -1))
            pixels = np.take(pixels, first, axis) * (1 - part) + np.take(pixels, second, axis) * part
        return _normalise(pixels, spec)

    return run


def _place_aligned(size: int, out: int) -> NDArray[Any]:
    return np.arange(out) * (size - 1) / (out - 1)


def _place_asymmetric(size: int, out: int) -> NDArray[Any]:
    return np.arange(out) * size / out


def _resize_by_pillow(how: Image.Resampling) -> Callable[[Frame, PreprocessSpec], Tensor]:
    def run(frame: Frame, spec: PreprocessSpec) -> Tensor:
        resized = Image.fromarray(_to_gray(frame)).resize((spec.width, spec.height), how)
        return _normalise(np.asarray(resized, np.float64), spec)

    return run


def _letterbox(frame: Frame, spec: PreprocessSpec) -> Tensor:
    grey = _to_gray(frame)
    side = max(grey.shape)
    rows, columns = side - grey.shape[0], side - grey.shape[1]
    padded = np.pad(grey, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))
    return preprocess_frame(padded, spec)


def _normalise_by_image(frame: Frame, spec: PreprocessSpec) -> Tensor:
    tensor = preprocess_frame(frame, spec)
    return (tensor - tensor.mean()) / (tensor.std() + 1e-6)


def _crop_border(frame: Frame) -> Frame:
    rows, columns = frame.shape[0] // 20, frame.shape[1] // 20
    return frame[rows : frame.shape[0] - rows, columns : frame.shape[1] - columns]


def _apply_gamma(frame: Frame) -> Frame:
    largest = np.iinfo(frame.dtype).max
    return ((frame / largest) ** 2.2 * largest).astype(frame.dtype)


def _shear_rows(frame: Frame) -> Frame:
    return np.stack([np.roll(row, index, axis=0) for index, row in enumerate(frame)])


def _mean_channels(frame: Frame) -> Frame:
    return frame.mean(axis=-1).astype(frame.dtype)


def _repeat(masks: Masks, every: int) -> Masks:
    repeated = masks.copy()
    for index in range(every - 1, len(masks), every):
        repeated[index] = repeated[index - 1]
    return repeated


def _blank(masks: Masks, every: int) -> Masks:
    blank = masks.copy()
    blank[every - 1 :: every] = 0
    return blank


def _zero_channel(weights: NDArray[Any]) -> NDArray[Any]:
    changed = weights.copy()
    changed[0] = 0
    return changed


def _spoil_weight(weights: NDArray[Any]) -> NDArray[Any]:
    changed = weights.copy()
    changed.flat[0] = np.nan
    return changed


def _take_black_frame(tensors: Tensor) -> Tensor:
    return np.full(tensors[:1].shape, -2.0, np.float32)


def _undo_normalisation(tensors: Tensor) -> Tensor:
    return ((tensors * 0.25 + 0.5) * 255).astype(np.float32)


def _draw_noise(tensors: Tensor) -> Tensor:
    return np.random.default_rng(0).normal(0, 0.05, tensors[:4].shape).astype(np.float32)
