"""Writing ONNX nodes one after another, with readable names and shared constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class NodeWriter:
    """Collects nodes and initialisers whose names begin with ``prefix``."""

    def __init__(self, prefix: str) -> None:
        """Begin without a node."""
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(
        self, kind: str, *inputs: str | NDArray[Any] | np.generic, name: str | None = None, **attributes: Any
    ) -> str:
        """Add a node and return the name of its only output, which is ``name`` where one is given.

        Args:
            kind: the operator, for example ``Mul``.
            inputs: names of tensors, or arrays that become constants.
            name: name of the output.
            attributes: of the operator.
        """
        label = f"{self.prefix}/{kind.lower()}_{len(self.nodes)}"
        output = name or label
        sources = [source if isinstance(source, str) else self._add_constant(source) for source in inputs]
        self.nodes.append(helper.make_node(kind, sources, [output], name=label, **attributes))
        return output

    def _add_constant(self, value: NDArray[Any] | np.generic) -> str:
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self.prefix}/constant_{len(self._constants)}"
            self._constants[key] = name
            self.initializers.append(numpy_helper.from_array(array, name))
        return self._constants[key]


def build_integers(*values: int) -> NDArray[np.int64]:
    """Return a 1-D int64 array, the form in which ONNX wants axes and sizes."""
    return np.array(values, np.int64)
