"""Writing a core graph anew in half precision, and its simulation in float32."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# These make float32 whatever they read.
_FLOAT_OPERATORS = frozenset(
    {"Cast", "Constant", "ConstantOfShape", "Range", "RandomNormal", "RandomUniform"}
)
# Inputs that are no image: Resize's region and scales.
_FLOAT_INPUTS = {"Resize": (1, 2)}


def list_float_tensors(core: onnx.ModelProto) -> frozenset[str]:
    """Return the names of all computed float32 tensors."""
    graph = onnx.shape_inference.infer_shapes(core).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return frozenset(value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT)


class HalfWriter:
    """Writes a core graph anew in which the nodes of ``kept`` stay float32.

    Args:
        core: the float32 graph.
        kept: names of nodes.
        half_image: the image comes in float16 too, not in float32.
    """

    def __init__(self, core: onnx.ModelProto, kept: Collection[str], *, half_image: bool) -> None:
        self._core, self._half_image = core, half_image
        self._kinds = list_float_tensors(core)
        self._constants = {tensor.name: tensor for tensor in core.graph.initializer}
        self._kept = kept
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._half: set[str] = set()  # computed tensors that are float16
        self._casts: dict[tuple[str, int], str] = {}

    def convert(self) -> onnx.ModelProto:
        """Return the graph with float16 between and, unless the last node is kept float32, out."""
        if self._half_image:
            self._half.add("image")
        for node in self._core.graph.node:
            self._convert_node(node)
        half, full = TensorProto.FLOAT16, TensorProto.FLOAT
        return self._finish(half if self._half_image else full, half if "logits" in self._half else full)

    def simulate(self) -> onnx.ModelProto:
        """Return the graph in float32 in which every float16 tensor of `convert` is rounded to float16."""
        image = self._round("image", "image/half")
        for node in self._core.graph.node:
            copy = _copy_node(node)
            is_half = self._is_half(node)
            renamed = {"image": image} if is_half or self._half_image else {}
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            if is_half:
                exempt = _FLOAT_INPUTS.get(node.op_type, ())
                copy.input[:] = [
                    name if index in exempt else self._round_constant(name)
                    for index, name in enumerate(copy.input)
                ]
                for index, name in enumerate(node.output):
                    if name in self._kinds:
                        copy.output[index] = f"{name}/exact"
            self._nodes.append(copy)
            if is_half:
                for name in node.output:
                    if name in self._kinds:
                        self._round(f"{name}/exact", name)
        for name, tensor in self._constants.items():
            self._initializers.setdefault(name, tensor)
        return self._finish(TensorProto.FLOAT, TensorProto.FLOAT)

    def _is_half(self, node: onnx.NodeProto) -> bool:
        return (
            node.name not in self._kept
            and node.op_type not in _FLOAT_OPERATORS
            and any(name in self._kinds for name in node.output)
        )

    def _convert_node(self, node: onnx.NodeProto) -> None:
        copy = _copy_node(node)
        is_half = self._is_half(node)
        exempt = _FLOAT_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            wants_half = is_half and index not in exempt
            copy.input[index] = self._provide(name, TensorProto.FLOAT16 if wants_half else TensorProto.FLOAT)
        self._nodes.append(copy)
        if is_half:
            self._half.update(name for name in node.output if name in self._kinds)

    def _provide(self, name: str, kind: int) -> str:
        """Return the name under which a tensor is there in a float type; what is no float stays."""
        if name in self._constants:
            return self._provide_constant(name, kind)
        if name not in self._kinds:
            return name
        has = TensorProto.FLOAT16 if name in self._half else TensorProto.FLOAT
        return name if has == kind else self._cast(name, kind)

    def _provide_constant(self, name: str, kind: int) -> str:
        tensor = self._constants[name]
        if tensor.data_type != TensorProto.FLOAT or kind == TensorProto.FLOAT:
            self._initializers[name] = tensor
            return name
        renamed = f"{name}/half"
        values = numpy_helper.to_array(tensor).astype(np.float16)
        self._initializers[renamed] = numpy_helper.from_array(values, renamed)
        return renamed

    def _cast(self, name: str, kind: int) -> str:
        if (name, kind) not in self._casts:
            output = f"{name}/{'half' if kind == TensorProto.FLOAT16 else 'float'}"
            self._nodes.append(helper.make_node("Cast", [name], [output], name=f"{output}_cast", to=kind))
            self._casts[name, kind] = output
        return self._casts[name, kind]

    def _round(self, name: str, output: str) -> str:
        inner = f"{name}/rounded"
        for source, target, kind in (
            (name, inner, TensorProto.FLOAT16),
            (inner, output, TensorProto.FLOAT),
        ):
            self._nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind))
        return output

    def _round_constant(self, name: str) -> str:
        tensor = self._constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return name
        renamed = f"{name}/half"
        values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
        self._initializers[renamed] = numpy_helper.from_array(values, renamed)
        return renamed

    def _finish(self, image_kind: int, logits_kind: int) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self._core)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._initializers.values())
        for values, kind in ((graph.input, image_kind), (graph.output, logits_kind)):
            for value in values:
                value.type.tensor_type.elem_type = kind
        onnx.checker.check_model(model, full_check=True)
        return model


def _copy_node(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
