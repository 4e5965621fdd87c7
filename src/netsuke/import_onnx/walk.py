"""From the input of an ONNX graph, node by node, to its logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np

from netsuke.errors import ArtifactError, GraphError, OptionError, UnsupportedOp
from netsuke.graph import INPUT, Graph
from netsuke.import_onnx.builder import Builder, Value
from netsuke.import_onnx.file import literal
from netsuke.import_onnx.nodes import READ
from netsuke.import_onnx.qdq import DYNAMIC, constant, spelled

Mean = float | Sequence[float]

# What may be computed from constants alone: shapes for Reshape, weights turned or cast. None can blow up.
FOLDED = frozenset(
    "Add Cast Concat Div Gather Identity Mul QuantizeLinear Reshape Slice Sqrt Squeeze Sub Transpose Unsqueeze".split()  # noqa: SIM905
)
PLAIN = frozenset("Identity Flatten Reshape Squeeze Cast QuantizeLinear DequantizeLinear".split())  # noqa: SIM905
MAX_FOLDED = 1 << 24  # elements of a folded constant


class Walk(Builder):
    """Takes the nodes of a ModelProto once, in the file's order; `run` gives the graph and its tensors."""

    def __init__(
        self, model: Any, constants: dict[str, np.ndarray], scale: float | None, mean: Mean, std: Mean
    ):
        super().__init__(constants, READ)
        self.graph, self.opset = model.graph, model.opset_import
        self.scale, self.mean, self.std = scale, mean, std

    def run(self) -> tuple[Graph, dict[str, np.ndarray]]:
        shape, name = self._input()
        if len(self.graph.output) != 1:
            raise ArtifactError(f"has {len(self.graph.output)} outputs; needs exactly one, the logits")
        output = self.graph.output[0].name
        nodes = [part for node in self._needed(output) for part in spelled(node)]
        self.uses = Counter(i for node in nodes for i in node.input)
        self.uses[output] += 1
        self.last = self._tail(nodes, output)
        for node in nodes:
            try:
                self._node(node)
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                raise self.fail(f"whose attributes or weights do not fit ({str(error)[:80]})") from None
        if output not in self.values:
            raise GraphError(f"its output {output!r} does not depend on its input {name!r}")
        logits = self.vector(self.materialized(self.values[output]))
        if logits.order is not None or logits.name != next(reversed(self.ops), ""):
            raise GraphError(f"its output {output!r} is not the result of its last layer")
        return Graph(shape, tuple(self.ops.values())), self.tensors

    def _input(self) -> tuple[tuple[int, int, int], str]:
        """Shape (C, H, W) and name of the one image input."""
        inputs = [i for i in self.graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            raise ArtifactError(f"has {len(inputs)} inputs; needs exactly one, the image")
        tensor, name = inputs[0].type.tensor_type, inputs[0].name
        dims = tuple(d.dim_value for d in tensor.shape.dim)[1:]
        if not 1 <= len(dims) <= 3 or min(dims) < 1:
            told = ", ".join(d.dim_param or str(d.dim_value or "?") for d in tensor.shape.dim[1:])
            raise GraphError(
                f"its input {name!r} has the shape [{told}] after the batch; needs fixed sizes C, H, W"
            )
        nhwc = len(dims) == 3 and dims[0] > 4 >= dims[2]
        side = isqrt(dims[0])
        if len(dims) == 1 and side * side != dims[0]:
            raise GraphError(f"its input {name!r} is a vector of {dims[0]}, which is no square image")
        shape = {1: (1, side, side), 2: (1, *dims), 3: (dims[2], *dims[:2]) if nhwc else dims}[len(dims)]
        if self.scale is None:  # uint8 stands in TensorProto as 2
            self.scale = 1.0 if tensor.elem_type == 2 else 1 / 255
        affine = self._pixels(self.scale, shape[0])
        self.values[name] = Value(INPUT, shape, dims, nhwc, affine=affine)  # a vector is not flattened yet
        return shape, name

    def _pixels(self, scale: float, channels: int) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (np.atleast_1d(np.asarray(v, np.float64)) for v in (self.mean, self.std))
        for what, value in (("mean", mean), ("std", std)):
            if value.shape not in ((1,), (channels,)) or not np.isfinite(value).all():
                raise OptionError(f"{what} must be one number, or {channels}; got {value.tolist()}")
        if (std == 0).any() or not np.isfinite(scale) or scale == 0:
            raise OptionError("scale and std must not be 0 or infinite")
        one = np.ones(channels)
        return one * scale / std, -one * mean / std

    def _needed(self, output: str) -> list[Any]:
        """The nodes that the output depends on, in the file's order."""
        wanted, nodes = {output}, []
        for node in reversed(self.graph.node):
            if wanted & set(node.output):
                wanted |= set(node.input)
                nodes.append(node)
        return nodes[::-1]

    def _tail(self, nodes: list[Any], output: str) -> set[str]:
        """Outputs after which nothing but an identity follows: where a softmax may go."""
        last = {output}
        for node in reversed(nodes):
            if node.op_type in PLAIN and node.output[0] in last:
                last.add(node.input[0])
        return last

    def _node(self, node: Any) -> None:
        import onnx

        self.node, self.kind = node, node.op_type
        self.attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type in DYNAMIC:
            raise UnsupportedOp(
                f"node {node.name or node.output[0]!r} is {node.op_type}: activations rounded at run time; import "
                "takes static quantisation (quantize_static, QDQ or QOperator), or the float model"
            )
        if node.domain not in ("", "ai.onnx"):
            raise self.fail(f"of the domain {node.domain!r}")
        if node.op_type == "Constant":
            (value,) = self.attrs.values()
            self.constants[node.output[0]] = literal(value)
        elif node.op_type == "Shape" and node.input[0] in self.values:
            dims = (1, *self.values[node.input[0]].dims)  # any batch: what follows asks for a flattened image
            self.constants[node.output[0]] = np.array(dims, np.int64)
        elif node.op_type == "DequantizeLinear" and node.input[0] in self.constants:
            constant(self)
        elif all(i == "" or i in self.constants for i in node.input):
            self._fold()
        elif node.op_type in READ:
            result = READ[node.op_type](self)
            values = result if isinstance(result, list) else [result]
            for used in node.output[len(values) :]:
                if self.uses[used]:
                    raise self.fail(f"with its further output {used!r} in use")
            self.values |= {name: v for name, v in zip(node.output, values, strict=False) if v is not None}
        else:
            raise self.fail("")

    def _fold(self) -> None:
        """A node of constants alone, by the evaluator of the onnx package."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        if self.kind not in FOLDED:
            raise self.fail("of constants")
        inputs = {i: self.constants[i] for i in self.node.input if i}
        if sum(array.size for array in inputs.values()) > MAX_FOLDED:
            raise self.fail("of constants too large to fold")
        graph = helper.make_graph(
            [self.node],
            "fold",
            [
                helper.make_tensor_value_info(i, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for i, a in inputs.items()
            ],
            [helper.make_empty_tensor_value_info(self.node.output[0])],
        )
        try:
            model = helper.make_model(graph, opset_imports=self.opset)
            (result,) = ReferenceEvaluator(model).run(None, inputs)
        except Exception as error:  # whatever NumPy says of shapes that do not fit
            raise self.fail(f"of constants that do not fit ({str(error)[:80]})") from None
        self.constants[self.node.output[0]] = np.asarray(result)
