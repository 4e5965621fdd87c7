"""Op, Graph and type inference: the whole language in which a finished network is written.

A graph maps raw `uint8` images to logits. It names its weights (`op.role`) but does not hold them,
so that it is small, comparable and prints as JSON. `kernels.py` says what every op means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from netsuke.errors import GraphError, UnsupportedOp

Tensors = Mapping[str, np.ndarray]

INPUT = "input"
MAX_OPS = 4096
MAX_ELEMENTS = 1 << 24  # of one activation: 224x224x64 is a fifth of it; a hostile file asks for more
INT32_MAX = 2**31 - 1
MAX_SHIFT = 30

# Element types of activations: the raw image, the two integer ranges of the contract, wide sums, floats.
RANGES = {"u8": (0, 255), "u7": (0, 127), "s8": (-127, 127)}


@dataclass(frozen=True)
class Type:
    """One activation without its batch axis: (C, H, W) or (F,); `lo..hi` bounds an integer one."""

    shape: tuple[int, ...]
    dtype: str  # "f32", "u8", "u7", "s8" or "i32"
    lo: int = 0
    hi: int = 0

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes that one element takes on a device."""
        return 4 if self.dtype in ("f32", "i32") else 1


def typed(shape: tuple[int, ...], dtype: str) -> Type:
    return Type(shape, dtype, *RANGES.get(dtype, (0, 0)))


@dataclass(frozen=True)
class Op:
    """One operation; its output carries the op's own name."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def tensor(self, role: str) -> str:
        """The name under which a weight of this op is stored."""
        return f"{self.name}.{role}"


@dataclass(frozen=True)
class Graph:
    """A straight list of ops in the order of execution; the last one gives the logits."""

    input_shape: tuple[int, int, int]  # C, H, W of the raw uint8 image
    ops: tuple[Op, ...]

    @property
    def output(self) -> str:
        return self.ops[-1].name

    @property
    def integer(self) -> bool:
        """True for a graph in the integer contract, False for a float graph."""
        return any(op.kind in INTEGER for op in self.ops)

    def types(self, tensors: Tensors) -> dict[str, Type]:
        """Infer and check every activation; the name of each op (and `input`) to its Type.

        Raises GraphError where ops, shapes, weights or int32 bounds do not fit together.
        """
        return _infer(self, tensors)

    def roles(self) -> dict[str, tuple[str, str]]:
        """The name of every weight tensor to its (op name, role)."""
        return {op.tensor(role): (op.name, role) for op in self.ops for role in OPS[op.kind].roles}

    def to_json(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.input_shape),
            "ops": [
                {"kind": op.kind, "name": op.name, "inputs": list(op.inputs), "attrs": dict(op.attrs)}
                for op in self.ops
            ],
        }

    @staticmethod
    def from_json(value: object) -> Graph:
        """Read a graph back; raises GraphError on anything but the exact form `to_json` writes."""
        if not isinstance(value, dict) or set(value) != {"input_shape", "ops"}:
            raise GraphError("a graph is an object with input_shape and ops")
        shape, ops = value["input_shape"], value["ops"]
        if not _ints(shape, 3, 1, 1 << 16):
            raise GraphError(f"input_shape must be three sizes C, H, W; got {json.dumps(shape)[:80]}")
        if not isinstance(ops, list) or not 1 <= len(ops) <= MAX_OPS:
            raise GraphError(f"ops must be a list of 1 to {MAX_OPS} ops")
        return Graph((shape[0], shape[1], shape[2]), tuple(_read_op(op) for op in ops))


def _read_op(value: object) -> Op:
    if not isinstance(value, dict) or set(value) != {"kind", "name", "inputs", "attrs"}:
        raise GraphError("an op is an object with kind, name, inputs and attrs")
    kind, name, inputs, attrs = value["kind"], value["name"], value["inputs"], value["attrs"]
    if not isinstance(kind, str) or kind not in OPS:
        raise UnsupportedOp(f"unknown op {str(kind)[:40]!r}; netsuke knows {', '.join(sorted(OPS))}")
    if not isinstance(name, str) or not 1 <= len(name) <= 200 or name == INPUT or "\0" in name:
        raise GraphError(f"bad op name {str(name)[:40]!r}")
    if not isinstance(inputs, list) or not all(isinstance(i, str) for i in inputs):
        raise GraphError(f"{name}: inputs must be a list of op names")
    if not isinstance(attrs, dict):
        raise GraphError(f"{name}: attrs must be an object")
    return Op(kind, name, tuple(inputs), attrs)


# --- attributes -------------------------------------------------------------------------------------


def _int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _ints(value: object, count: int, low: int, high: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(_int(v, low, high) for v in value)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


# Each attribute: how it is checked, and what to say.
ATTRS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stride": (lambda v: _ints(v, 2, 1, 4096), "[rows, columns], each at least 1"),
    "kernel": (lambda v: _ints(v, 2, 1, 4096), "[rows, columns], each at least 1"),
    "padding": (lambda v: _ints(v, 4, 0, 4096), "[top, left, bottom, right], none negative"),
    "groups": (lambda v: _int(v, 1, 1 << 16), "a positive number"),
    "bits": (lambda v: _int(v, 1, 8), "a weight width from 1 to 8"),
    "signed": (lambda v: isinstance(v, bool), "true or false"),
    "scale": (_finite, "a finite number"),
    "scales": (
        lambda v: isinstance(v, list | tuple) and all(map(_finite, v)),
        "finite numbers, one a channel",
    ),
    "offsets": (
        lambda v: isinstance(v, list | tuple) and all(map(_finite, v)),
        "finite numbers, one a channel",
    ),
    "multiplier": (lambda v: _int(v, 1, INT32_MAX), "a positive int32"),
    "multipliers": (lambda v: _ints(v, 2, 1, INT32_MAX), "two positive int32"),
    "shift": (lambda v: _int(v, 0, MAX_SHIFT), f"0 to {MAX_SHIFT}"),
}


# --- type inference, one function a kind ------------------------------------------------------------


class _Need:
    """What an inference function asks of its op, with errors that name the op."""

    def __init__(self, op: Op, inputs: list[Type], tensors: Tensors):
        self.op, self.inputs, self.tensors = op, inputs, tensors

    def fail(self, text: str) -> GraphError:
        return GraphError(f"{self.op.kind} {self.op.name!r}: {text}")

    def weight(self, role: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        name = self.op.tensor(role)
        array = self.tensors.get(name)
        if array is None:
            raise self.fail(f"its tensor {name!r} is missing")
        if array.shape != shape or array.dtype != dtype:
            raise self.fail(
                f"{role} must be {np.dtype(dtype).name} {list(shape)}, is {array.dtype.name} {list(array.shape)}"
            )
        if dtype is np.float32 and not np.isfinite(array).all():
            raise self.fail(f"{role} holds NaN or infinite values")
        return array

    def image(self, *dtypes: str) -> Type:
        """The only input, which must have three axes and one of `dtypes`."""
        x = self.inputs[0]
        if len(x.shape) != 3 or x.dtype not in dtypes:
            raise self.fail(f"needs a C, H, W map of {' or '.join(dtypes)}; gets {x.dtype} {list(x.shape)}")
        return x

    def vector(self, *dtypes: str) -> Type:
        x = self.inputs[0]
        if len(x.shape) != 1 or x.dtype not in dtypes:
            raise self.fail(f"needs a flat vector of {' or '.join(dtypes)}; gets {x.dtype} {list(x.shape)}")
        return x

    def window(
        self, x: Type, kernel: tuple[int, ...], padding: tuple[int, ...] = (0, 0, 0, 0)
    ) -> tuple[int, int]:
        """Rows and columns that a sliding window leaves."""
        top, left, bottom, right = padding
        stride = self.op.attrs["stride"]
        rows = (x.shape[1] + top + bottom - kernel[0]) // stride[0] + 1
        columns = (x.shape[2] + left + right - kernel[1]) // stride[1] + 1
        if rows < 1 or columns < 1:
            raise self.fail(
                f"a {kernel[0]}x{kernel[1]} window does not fit the {x.shape[1]}x{x.shape[2]} map it gets"
            )
        return rows, columns

    def accumulate(self, weight: np.ndarray, x: Type) -> np.ndarray:
        """The largest |accumulator| each output channel can reach in any order of summation, int64."""
        bias = np.abs(self.weight("bias", weight.shape[:1], np.int32).astype(np.int64))
        flat = weight.reshape(len(weight), -1)
        top = np.maximum(flat, 0).sum(1, dtype=np.int64)
        bottom = -np.minimum(flat, 0).sum(1, dtype=np.int64)
        bound = bias + np.maximum(top * x.hi - bottom * x.lo, bottom * x.hi - top * x.lo)
        limit = (1 << (self.op.attrs["bits"] - 1)) - 1 if self.op.attrs["bits"] > 1 else 1
        if flat.size and max(int(flat.max()), -int(flat.min())) > limit:
            raise self.fail(f"a weight exceeds ±{limit}, the range of {self.op.attrs['bits']} bits")
        if self.op.attrs["bits"] == 1 and (flat == 0).any():
            raise self.fail("a weight is 0; one bit means -1 or +1")
        if (bound > INT32_MAX).any():
            raise self.fail("its sums can overflow int32")
        return bound

    def requantized(self, bound: np.ndarray) -> str:
        """Check that multiplier and shift cannot overflow; the resulting element type."""
        m = self.weight("multiplier", bound.shape, np.int32).astype(np.int64)
        s = self.weight("shift", bound.shape, np.int32).astype(np.int64)
        if (m < 0).any() or (s < 0).any() or (s > MAX_SHIFT).any():
            raise self.fail(f"multipliers must not be negative and shifts must be 0 to {MAX_SHIFT}")
        if (bound * m + ((1 << s) >> 1) > INT32_MAX).any():
            raise self.fail("its requantisation can overflow int32")
        return "s8" if self.op.attrs["signed"] else "u7"


def _normalize(n: _Need) -> Type:
    x = n.image("u8")
    if not len(n.op.attrs["scales"]) == len(n.op.attrs["offsets"]) == x.shape[0]:
        raise n.fail(f"needs {x.shape[0]} scales and offsets, one a channel")
    return typed(x.shape, "f32")


def _halve(n: _Need) -> Type:
    return typed(n.image("u8").shape, "u7")


def _conv_shape(n: _Need, x: Type, dtype: type) -> tuple[np.ndarray, tuple[int, ...]]:
    groups = n.op.attrs["groups"]
    array = n.tensors.get(n.op.tensor("weight"))
    if array is None or array.ndim != 4 or 0 in array.shape:
        raise n.fail("its weight must have four axes O, I/groups, rows, columns")
    out, _, rows, columns = array.shape
    if x.shape[0] % groups or out % groups:
        raise n.fail(f"{x.shape[0]} input and {out} output channels do not divide into {groups} groups")
    weight = n.weight("weight", (out, x.shape[0] // groups, rows, columns), dtype)
    padding = n.op.attrs["padding"]
    if max(padding[0], padding[2]) >= rows or max(padding[1], padding[3]) >= columns:
        raise n.fail("its padding must be smaller than its kernel")
    return weight, (out, *n.window(x, (rows, columns), padding))


def _conv2d(n: _Need) -> Type:
    weight, shape = _conv_shape(n, n.image("f32"), np.float32)
    n.weight("bias", weight.shape[:1], np.float32)
    return typed(shape, "f32")


def _qconv2d(n: _Need) -> Type:
    x = n.image("u7", "s8")
    weight, shape = _conv_shape(n, x, np.int8)
    return typed(shape, n.requantized(n.accumulate(weight, x)))


def _dense_weight(n: _Need, x: Type, dtype: type) -> np.ndarray:
    array = n.tensors.get(n.op.tensor("weight"))
    if array is None or array.ndim != 2 or 0 in array.shape:
        raise n.fail("its weight must have two axes, outputs and inputs")
    return n.weight("weight", (array.shape[0], x.shape[0]), dtype)


def _dense(n: _Need) -> Type:
    weight = _dense_weight(n, n.vector("f32"), np.float32)
    n.weight("bias", weight.shape[:1], np.float32)
    return typed(weight.shape[:1], "f32")


def _qdense(n: _Need) -> Type:
    x = n.vector("u7", "s8", "i32")
    weight = _dense_weight(n, x, np.int8)
    return typed(weight.shape[:1], n.requantized(n.accumulate(weight, x)))


def _qlogits(n: _Need) -> Type:
    x = n.vector("u7", "s8", "i32")
    weight = _dense_weight(n, x, np.int8)
    bound = int(n.accumulate(weight, x).max())
    return Type(weight.shape[:1], "i32", -bound, bound)


def _pointwise(n: _Need) -> Type:
    x = n.inputs[0]
    if x.dtype != "f32":
        raise n.fail(f"is a float op; gets {x.dtype}")
    return x


def _maxpool(n: _Need) -> Type:
    x = n.image("f32", "u7", "s8")
    kernel, padding = n.op.attrs["kernel"], n.op.attrs["padding"]
    if max(padding[0], padding[2]) >= kernel[0] or max(padding[1], padding[3]) >= kernel[1]:
        raise n.fail("its padding must be smaller than its window")
    return typed((x.shape[0], *n.window(x, kernel, padding)), x.dtype)


def _avgpool(n: _Need) -> Type:
    x = n.image("f32")
    return typed((x.shape[0], *n.window(x, n.op.attrs["kernel"])), "f32")


def _qavgpool(n: _Need) -> Type:
    x = n.image("u7", "s8")
    bound = x.hi * prod(n.op.attrs["kernel"])
    if bound * n.op.attrs["multiplier"] + ((1 << n.op.attrs["shift"]) >> 1) > INT32_MAX:
        raise n.fail("its requantisation can overflow int32")
    return typed((x.shape[0], *n.window(x, n.op.attrs["kernel"])), x.dtype)


def _globalavgpool(n: _Need) -> Type:
    return typed(n.image("f32").shape[:1], "f32")


def _sumpool(n: _Need) -> Type:
    x = n.image("u7", "s8")
    area = x.shape[1] * x.shape[2]
    if x.hi * area > INT32_MAX:
        raise n.fail("its sums can overflow int32")
    return Type(x.shape[:1], "i32", x.lo * area, x.hi * area)


def _flatten(n: _Need) -> Type:
    x = n.inputs[0]
    return Type((x.elements,), x.dtype, x.lo, x.hi)


def _same(n: _Need, *dtypes: str) -> Type:
    a, b = n.inputs
    if a.shape != b.shape or a.dtype not in dtypes or b.dtype not in dtypes:
        got = f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
        raise n.fail(f"needs two equal shapes of {' or '.join(dtypes)}; gets {got}")
    return a


def _add(n: _Need) -> Type:
    return _same(n, "f32")


def _qadd(n: _Need) -> Type:
    a = _same(n, "u7", "s8")
    if 127 * sum(n.op.attrs["multipliers"]) + ((1 << n.op.attrs["shift"]) >> 1) > INT32_MAX:
        raise n.fail("its requantisation can overflow int32")
    return typed(a.shape, "s8" if n.op.attrs["signed"] else "u7")


@dataclass(frozen=True)
class Spec:
    """The form of one op kind: how many inputs, which attributes, which weights, and its type rule."""

    infer: Callable[[_Need], Type]
    attrs: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    arity: int = 1


_WINDOW = ("kernel", "stride")
_CONV = ("stride", "padding", "groups")
_REQUANTIZED = ("weight", "bias", "multiplier", "shift")

OPS: dict[str, Spec] = {
    # float
    "normalize": Spec(_normalize, ("scales", "offsets")),
    "conv2d": Spec(_conv2d, _CONV, ("weight", "bias")),
    "dense": Spec(_dense, (), ("weight", "bias")),
    "relu": Spec(_pointwise),
    "relu6": Spec(_pointwise),
    "sigmoid": Spec(_pointwise),
    "tanh": Spec(_pointwise),
    "avgpool": Spec(_avgpool, _WINDOW),
    "globalavgpool": Spec(_globalavgpool),
    "add": Spec(_add, arity=2),
    # both
    "maxpool": Spec(_maxpool, (*_WINDOW, "padding")),
    "flatten": Spec(_flatten),
    # the integer contract
    "halve": Spec(_halve),
    "qconv2d": Spec(_qconv2d, (*_CONV, "bits", "signed"), _REQUANTIZED),
    "qdense": Spec(_qdense, ("bits", "signed"), _REQUANTIZED),
    "qlogits": Spec(_qlogits, ("bits", "scale"), ("weight", "bias")),
    "qavgpool": Spec(_qavgpool, (*_WINDOW, "multiplier", "shift")),
    "sumpool": Spec(_sumpool),
    "qadd": Spec(_qadd, ("multipliers", "shift", "signed"), arity=2),
}
INTEGER = frozenset({"halve", "qconv2d", "qdense", "qlogits", "qavgpool", "sumpool", "qadd"})


def _infer(graph: Graph, tensors: Tensors) -> dict[str, Type]:
    if not graph.ops:
        raise GraphError("a graph needs at least one op")
    known = {INPUT: typed(graph.input_shape, "u8")}
    used: set[str] = set()
    for op in graph.ops:
        spec = OPS.get(op.kind)
        if spec is None:
            raise UnsupportedOp(f"unknown op {op.kind!r}; netsuke knows {', '.join(sorted(OPS))}")
        need = _Need(op, [], tensors)
        if op.name in known:
            raise need.fail("its name is taken")
        if set(op.attrs) != set(spec.attrs):
            raise need.fail(
                f"takes the attributes {', '.join(spec.attrs) or 'none'}; got {', '.join(op.attrs) or 'none'}"
            )
        for key, value in op.attrs.items():
            check, want = ATTRS[key]
            if not check(value):
                raise need.fail(f"{key} must be {want}; got {str(value)[:40]}")
        missing = [name for name in op.inputs if name not in known]
        if missing or len(op.inputs) != spec.arity:
            raise need.fail(f"takes {spec.arity} earlier outputs; got {', '.join(op.inputs) or 'none'}"[:200])
        need.inputs = [known[name] for name in op.inputs]
        known[op.name] = result = spec.infer(need)
        if result.elements > MAX_ELEMENTS:
            raise need.fail(f"its output of {result.elements} elements is over the limit of {MAX_ELEMENTS}")
        used.update(op.inputs)
    unused = [op.name for op in graph.ops[:-1] if op.name not in used]
    if unused:
        raise GraphError(f"nothing uses the output of {unused[0]!r}")
    if len(known[graph.output].shape) != 1:
        raise GraphError("the last op must give one logit a class")
    return known
