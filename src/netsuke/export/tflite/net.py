"""The TFLite graph under construction: tensors, buffers, operators, and what the emitter of one op sees of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.errors import MissingExtra
from netsuke.graph import Graph, Op, Tensors, Type
from netsuke.packing import pack

ALIGNMENT = 16  # of every constant, by the schema
# Later versions of an operator, where what is asked of it needs one; older runtimes refuse by name.
GROUPED_CONV_2D = 6
PER_CHANNEL_DENSE = 12
INT4_DEQUANTIZE = 6
INT8 = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 2} | dict.fromkeys(
    [
        "ADD",
        "CONCATENATION",
        "GATHER",
        "MAX_POOL_2D",
        "MUL",
        "PAD",
        "PADV2",
        "QUANTIZE",
        "REDUCE_MAX",
        "SLICE",
        "TRANSPOSE",
    ],
    2,
)


def schema() -> Any:
    """The classes of the TFLite flatbuffer schema; raises MissingExtra."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingExtra("TFLite export needs ai-edge-litert: pip install 'netsuke[tflite]'") from None
    return schema_py_generated


def dims(type_: Type) -> tuple[int, ...]:
    """The shape of one image's activation: TFLite puts channels last."""
    shape = type_.shape
    return (1, shape[1], shape[2], shape[0]) if len(shape) == 3 else (1, *shape)


class _Aligned:
    """A buffer at a multiple of 16 bytes: the schema demands it, and its generated Python does not see to it."""

    def __init__(self, buffer: Any):
        self.buffer = buffer

    def Pack(self, builder: Any) -> int:  # noqa: N802  the generated code calls it
        builder.Prep(ALIGNMENT, self.buffer.data.size)
        packed: int = self.buffer.Pack(builder)
        return packed


class Net:
    """Operators gathered op by op. Activations have a batch axis: one image in the file, any number at run time."""

    def __init__(self, graph: Graph, tensors: Tensors, exact: bool = True):
        self.exact = exact
        self.schema = schema()
        self.graph, self.weights = graph, tensors
        self.types = graph.types(tensors)
        self.users: dict[str, list[Op]] = {op.name: [] for op in graph.ops}
        for op in graph.ops:
            for name in op.inputs:
                self.users.setdefault(name, []).append(op)
        self.maps: dict[
            str, Type
        ] = {}  # flat outputs still in the order of rows, columns, channels; the map of each
        self.buffers: list[Any] = [self.schema.BufferT()]  # the empty one, which activations share
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int], int] = {}  # (operator, version) to its place in the file
        self.scales: dict[int, np.float32] = {}  # of int8 activations
        self.unproved: list[str] = []  # ops that may miss the contract by one step

    def activation(
        self, name: str, shape: tuple[int, ...], dtype: str = "float32", scale: np.float32 | None = None
    ) -> int:
        index = self._tensor(name, shape, dtype, buffer=0)
        self.tensors[index].shapeSignature = [-1, *shape[1:]]
        if scale is not None:
            self.scales[index] = scale
            self.quantize(index, np.array([scale]))
        return index

    def quantize(self, index: int, scales: np.ndarray, axis: int = 0) -> None:
        """A tensor's real values are its integers times `scales`, one for all or one a place along `axis`."""
        form = self.schema.QuantizationParametersT()
        form.scale = scales.astype(np.float32)
        form.zeroPoint = np.zeros(scales.size, np.int64)
        form.quantizedDimension = axis
        self.tensors[index].quantization = form

    def narrow(self, index: int, value: np.ndarray) -> None:
        """Store a constant of -8..7 by two a byte."""
        buffer = self.buffers[self.tensors[index].buffer].buffer
        buffer.data = pack(value, 4)
        self.tensors[index].type = self.schema.TensorType.INT4

    def dtype(self, index: int) -> str:
        names = {number: name for name, number in vars(self.schema.TensorType).items() if name[0] != "_"}
        return names[self.tensors[index].type].lower()

    def constant(self, name: str, value: np.ndarray) -> int:
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.buffers.append(_Aligned(buffer))
        return self._tensor(name, value.shape, value.dtype.name, buffer=len(self.buffers) - 1)

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: str, *, buffer: int) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), buffer
        tensor.type = getattr(self.schema.TensorType, dtype.upper())
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(
        self, kind: str, inputs: list[int], output: int, options: str = "", *, version: int = 1, **values: Any
    ) -> None:
        """Append an operator; `options` names its class of options and `values` sets them."""
        code = (getattr(self.schema.BuiltinOperator, kind), version)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(code, len(self.codes))
        operator.inputs, operator.outputs = inputs, [output]
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
            for key, value in values.items():
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)

    def encode(self, source: int, result: int) -> bytes:
        """The file of the graph from tensor `source` to tensor `result`."""
        import flatbuffers

        s = self.schema
        model, graph = s.ModelT(), s.SubGraphT()
        graph.name, graph.tensors, graph.operators = "netsuke", self.tensors, self.operators
        graph.inputs, graph.outputs = [source], [result]
        model.version, model.description = 3, "netsuke"
        model.subgraphs, model.buffers = [graph], self.buffers
        model.operatorCodes = [self._code(*code) for code in self.codes]
        model.signatureDefs = [self._signature(source, result)]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _code(self, number: int, version: int) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.version = number, version
        code.deprecatedBuiltinCode = min(number, 127)  # one byte, which old runtimes read
        return code

    def _signature(self, source: int, result: int) -> Any:
        signature = self.schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        for key, index in (("inputs", source), ("outputs", result)):
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = self.tensors[index].name, index
            setattr(signature, key, [entry])
        return signature


class At:
    """What the emitter of one op sees: its inputs as tensor numbers, and the activation that may join it."""

    def __init__(self, net: Net, op: Op, x: list[int], activation: str):
        self.net, self.op, self.x = net, op, x
        self.types = [net.types[name] for name in op.inputs]
        self.type = net.types[op.name]
        self.fused: int = getattr(net.schema.ActivationFunctionType, activation.upper() or "NONE")

    def add(
        self,
        kind: str,
        inputs: list[int],
        shape: tuple[int, ...] | None = None,
        role: str = "out",
        options: str = "",
        dtype: str = "",
        scale: np.float32 | None = None,
        version: int = 0,
        **values: Any,
    ) -> int:
        """An operator of this op; its output has the op's own shape unless another is given.

        It also has the element type of the first input and, where that is int8, the scale.
        """
        dtype = dtype or self.net.dtype(inputs[0])
        if dtype == "int8" and scale is None:
            scale = self.net.scales[inputs[0]]
        output = self.net.activation(self.op.tensor(role), shape or dims(self.type), dtype, scale)
        quantised = "int8" in (dtype, self.net.dtype(inputs[0]))
        version = version or (INT8.get(kind, 1) if quantised else 1)
        self.net.operator(kind, inputs, output, options, version=version, **values)
        return output

    def constant(
        self,
        role: str,
        value: Any,
        dtype: type = np.float32,
        scales: np.ndarray | np.float32 | None = None,
        axis: int = 0,
    ) -> int:
        index = self.net.constant(self.op.tensor(role), np.asarray(value, dtype))
        if scales is not None:
            self.net.quantize(index, np.atleast_1d(scales), axis)
        return index

    def cast(self, x: int, dtype: str, role: str, scale: np.float32 | None = None) -> int:
        """The same numbers as another type, or under another scale."""
        types = self.net.schema.TensorType
        given = {"inDataType": self.net.tensors[x].type, "outDataType": getattr(types, dtype.upper())}
        shape = tuple(self.net.tensors[x].shape)
        return self.add("CAST", [x], shape, role, "CastOptions", dtype, scale, **given)

    def weight(self, role: str) -> np.ndarray:
        return self.net.weights[self.op.tensor(role)]
