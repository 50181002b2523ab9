"""The IR that Open Edge Platform's Model API opens by itself: the student's mask at the size of the frame.

Model API takes frames as OpenCV reads them (BGR), takes the argmax of the logits and resizes it to the
frame. Its resizing samples other pixels than ours, so the logits come out at frame size already, and
its own steps find nothing left to do.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from edgekd.bundle import Bundle
from edgekd.errors import IntegrityError
from edgekd.preprocess.reference import LUMA_BLUE, LUMA_GREEN, LUMA_RED
from edgekd.specs import ClassSpec, PreprocessSpec

MODEL_API_FILES = ("model_api.xml", "model_api.bin")


def build_model_api(deploy: Any, bundle: Bundle) -> Any:
    """Return the graph ``image`` (1, H, W, C) → ``logits`` (1, K, H, W) float32, as an OpenVINO model.

    H and W are free; C is 3, in the order BGR, or 1. Outside the spec's crop box the logits say background.

    Args:
        deploy: the deploy graph as an OpenVINO model, left as it is.
        bundle: whose preprocessing and classes it has.
    """
    # By name: the library's stubs do not cover its own operator sets.
    openvino: Any = importlib.import_module("openvino")
    ops: Any = importlib.import_module("openvino.opset13")
    spec = bundle.manifest.preprocess
    model = deploy.clone()
    image = ops.parameter(
        [1, -1, -1, -1], openvino.Type.u8 if spec.frame_dtype == "uint8" else openvino.Type.u16
    )
    image.set_layout(openvino.Layout("NHWC"))
    _name(image, "image")
    frame = _add_frame(ops, image, spec)
    for reader in model.get_parameters()[0].output(0).get_target_inputs():
        reader.replace_source_output(frame.output(0))
    logits = _add_frame_size(ops, _find_output(model, "logits"), image, spec, bundle.manifest.classes)
    _name(logits, "logits")
    built = openvino.Model([ops.result(logits)], [image], "model_api")
    for key, value in describe_for_model_api(spec, bundle.manifest.classes).items():
        built.set_rt_info(value, ["model_info", key])
    return built


def describe_for_model_api(spec: PreprocessSpec, classes: ClassSpec) -> dict[str, str]:
    """Return ``rt_info/model_info``: names and values as Model API 0.4 reads them."""
    return {
        "model_type": "Segmentation",
        "embedded_processing": "True",
        "orig_height": str(spec.height),
        "orig_width": str(spec.width),
        # Without the background, and separated by spaces, which a name can therefore not contain.
        "labels": " ".join(name.replace(" ", "_") for name in classes.names[1:]),
        # No smoothing, and with it no threshold: the class is the argmax.
        "blur_strength": "-1",
    }


def _add_frame(ops: Any, image: Any, spec: PreprocessSpec) -> Any:
    """Add the way from Model API's image to the frame (1, H, W, C) that the deploy graph takes."""
    shape = ops.multiply(ops.shape_of(image, "i32"), _whole(ops, [1, 1, 1, 0]))
    # Grey becomes three equal channels, whose luma is grey again.
    colour = ops.broadcast(image, ops.add(shape, _whole(ops, [0, 0, 0, 3])))
    if spec.color == "gray":
        return ops.convert(_add_luma(ops, ops.convert(colour, "i32"), spec), image.get_element_type())
    order = (0, 1, 2) if spec.frame_order == "bgr" else (2, 1, 0)
    return ops.gather(colour, _whole(ops, order), _whole(ops, 3))


def _add_luma(ops: Any, colour: Any, spec: PreprocessSpec) -> Any:
    """Add the luma of `edgekd.preprocess.convert_to_gray`, (wB B + wG G + wR R + 32768) >> 16, in 32 bits."""
    weights = _whole(ops, [LUMA_BLUE, LUMA_GREEN, LUMA_RED])

    def weigh(values: Any) -> Any:
        return ops.reduce_sum(ops.multiply(values, weights), _whole(ops, [3]), keep_dims=True)

    if spec.frame_dtype == "uint8":
        return _divide(ops, ops.add(weigh(colour), _whole(ops, 32768)), 65536)
    # Of 16 bits the sum would overflow: it is taken of the upper and the lower eight, and
    # (256 a + b) >> 16 is (a + (b >> 8)) >> 8.
    high, low = _divide(ops, colour, 256), ops.mod(colour, _whole(ops, 256))
    carried = _divide(ops, ops.add(weigh(low), _whole(ops, 32768)), 256)
    return _divide(ops, ops.add(weigh(high), carried), 256)


def _add_frame_size(ops: Any, logits: Any, image: Any, spec: PreprocessSpec, classes: ClassSpec) -> Any:
    """Add the way from logits (1, K, h, w) to (1, K, H, W), as `edgekd.preprocess.restore_mask` has it."""
    if spec.crop is not None:
        logits = _add_border(ops, logits, spec, classes)
    crop = spec.crop
    sides = (
        (1, 2, spec.height, None if crop is None else (crop.top, crop.height)),
        (2, 3, spec.width, None if crop is None else (crop.left, crop.width)),
    )
    for image_axis, logits_axis, size, box in sides:
        length = ops.gather(ops.shape_of(image, "i32"), _whole(ops, image_axis), _whole(ops, 0))
        indices = _add_indices(ops, length, size, box)
        logits = ops.gather(logits, indices, _whole(ops, logits_axis))
    return logits


def _add_border(ops: Any, logits: Any, spec: PreprocessSpec, classes: ClassSpec) -> Any:
    """Add a last row and a last column of logits that say background."""
    for axis, shape in ((2, (1, spec.width)), (3, (spec.height + 1, 1))):
        border = np.zeros((1, classes.count, *shape), np.float32)
        border[:, 0] = 1
        logits = ops.concat([logits, ops.constant(border)], axis)
    return logits


def _add_indices(ops: Any, length: Any, size: int, box: tuple[int, int] | None) -> Any:
    """Add the line of the logits that each line of the frame shows: the nearest, half-pixel centres.

    Args:
        ops: the operator set.
        length: of the frame's side, a scalar.
        size: of the logits' side; this index is the border that `_add_border` added.
        box: begin and length of the crop box on this side, or None.
    """
    inside = length if box is None else _whole(ops, box[1])
    two, one, zero = (_whole(ops, number) for number in (2, 1, 0))
    lines = ops.range(zero, inside, one, "i32")
    centres = ops.add(ops.multiply(lines, two), one)
    # Whole numbers throughout, as in `resize_labels`: floor((2 i + 1) size / (2 inside)).
    indices = _divide(ops, ops.multiply(centres, _whole(ops, size)), ops.multiply(inside, two))
    if box is None:
        return indices
    begin, count = box
    after = ops.subtract(length, _whole(ops, begin + count))
    pads = _whole(ops, [begin]), ops.unsqueeze(after, _whole(ops, 0))
    return ops.pad(indices, *pads, "constant", _whole(ops, size))


def _divide(ops: Any, values: Any, divisor: Any) -> Any:
    """Add floor(values / divisor) of whole numbers ≥ 0.

    A division that the processor's plugin fuses with what is before it rounds to the nearest (seen in
    OpenVINO 2026.4); of a multiple of the divisor there is nothing to round.
    """
    divisor = _whole(ops, divisor) if isinstance(divisor, int) else divisor
    return ops.divide(ops.subtract(values, ops.mod(values, divisor)), divisor)


def _find_output(model: Any, name: str) -> Any:
    for operation in model.get_ordered_ops():
        for output in operation.outputs():
            if name in output.get_names():
                return output
    raise IntegrityError("the deploy graph has another form", expected=f"a tensor named {name}")


def _whole(ops: Any, value: Any) -> Any:
    """Return a constant of whole numbers."""
    return ops.constant(np.array(value, np.int32))


def _name(node: Any, name: str) -> None:
    node.set_friendly_name(name)
    node.output(0).set_names({name})
