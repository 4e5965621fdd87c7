"""The graph under construction, and what the readers of nodes ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from netsuke.errors import UnsupportedOp
from netsuke.graph import INPUT, Op


@dataclass(frozen=True, eq=False)
class Value:
    """An activation: a * x + b a channel, x the output of our op `name`, (C, H, W) or (F,).

    Arithmetic waits in `affine` until it meets a layer that takes it in, or an op that needs its result.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[int, ...]  # as the file sees it, without the batch
    nhwc: bool = False  # dims are H, W, C
    order: np.ndarray | None = None  # a flat vector's element i of the file is our element order[i]
    shared: bool = False  # more than one node reads it
    affine: tuple[np.ndarray, np.ndarray] | None = None  # a, b; None for 1, 0
    groups: int = (
        0  # of a map C, H, W that the file sees as groups, C / groups, and rows and columns or pixels
    )

    def ours(self, constant: np.ndarray) -> np.ndarray | None:
        """A constant that broadcasts against this value, as one number a channel (or element); None if it varies."""
        try:
            full = np.broadcast_to(constant, (1, *self.dims))[0].astype(np.float64)
        except ValueError:
            return None
        if len(self.shape) == 1:
            return reorder(full.reshape(-1), self)
        maps = (full.transpose(2, 0, 1) if self.nhwc else full).reshape(self.shape[0], -1)
        return maps[:, 0] if (maps == maps[:, :1]).all() else None


def reorder(columns: np.ndarray, x: Value) -> np.ndarray:
    """The last axis from the file's order of a flattened map to ours."""
    if x.order is None:
        return columns
    result = np.empty_like(columns)
    result[..., x.order] = columns
    return result


class Builder:
    """`values` and `constants` hold what the nodes have given so far; `known` are the kinds that import reads."""

    node: Any  # the one that is being read, then its op_type and its attributes
    kind: str
    attrs: dict[str, Any]

    def __init__(self, constants: dict[str, np.ndarray], known: Collection[str]):
        self.constants, self.known = constants, known
        self.values: dict[str, Value] = {}
        self.ops: dict[str, Op] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self.uses: Counter[str] = Counter()
        self.last: set[str] = set()  # outputs after which nothing but an identity follows
        self.ranges: dict[str, tuple[float, float]] = {}  # between what a quantised file cuts our op's output
        self.grids: dict[str, np.ndarray] = {}  # of the file's constants: the step of their values
        self.steps: dict[str, np.ndarray] = {}  # of our layers' weights, [O] or []
        self.applied: dict[tuple[str, bytes, bytes], str] = {}
        self.emitted = 0

    def fail(self, why: str) -> UnsupportedOp:
        label = self.node.name or self.node.output[0]
        why = why and f" {why}"
        return UnsupportedOp(
            f"node {label!r} is {self.kind}{why}; import knows {', '.join(sorted(self.known))}"
        )

    def value(self, i: int = 0) -> Value:
        name = self.node.input[i]
        if name not in self.values:
            raise self.fail(f"of a constant in place {i}")
        value = self.values[name]
        return replace(value, shared=value.shared or self.uses[name] > 1)

    def constant(self, i: int) -> np.ndarray | None:
        """Input i, None where it is left out; raises UnsupportedOp where it is computed from the image."""
        if i >= len(self.node.input) or not self.node.input[i]:
            return None
        if self.node.input[i] not in self.constants:
            raise self.fail(f"whose input {i} is computed")
        return self.constants[self.node.input[i]]

    def weight(self, i: int) -> np.ndarray:
        array = self.constant(i)
        if array is None:
            raise self.fail(f"without input {i}")
        return array

    def grid(self, i: int, axis: int) -> np.ndarray | None:
        """The steps of weight `i`, whose outputs lie along `axis`; None where it does not stand on a grid."""
        steps = self.grids.get(self.node.input[i])
        if steps is None or steps.ndim == 0:
            return steps
        return steps.reshape(-1) if steps.shape[axis] == steps.size else None

    def emit(self, kind: str, inputs: Sequence[Value], shape: tuple[int, ...], **attrs: Any) -> Value:
        name = f"{kind}{self.emitted}"
        self.emitted += 1
        self.ops[name] = Op(kind, name, tuple(x.name for x in inputs), attrs)
        return Value(name, shape, shape)

    def mark(self, value: Value, steps: np.ndarray | None) -> None:
        """Note the steps on which a layer's weights stand."""
        if steps is not None:
            self.steps[value.name] = steps

    def drop(self, value: Value) -> None:
        """Take back the op that gave a value which nothing else reads: what follows does its work too."""
        del self.ops[value.name]

    def store(self, value: Value, **tensors: np.ndarray) -> Value:
        for role, array in tensors.items():
            self.tensors[f"{value.name}.{role}"] = np.ascontiguousarray(array, np.float32)
        return value

    def materialized(self, x: Value) -> Value:
        """The value as the output of an op: arithmetic that still waits becomes one, `normalize` on the input."""
        if x.affine is None:
            return x
        a, b = x.affine
        key = (x.name, a.tobytes(), b.tobytes())
        if key not in self.applied:
            if x.name == INPUT:
                y = self.emit("normalize", [x], x.shape, scales=a.tolist(), offsets=b.tolist())
            elif len(x.shape) == 1:
                y = self.store(self.emit("dense", [x], x.shape), weight=np.diag(a), bias=b)
            else:
                attrs: dict[str, Any] = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": len(a)}
                y = self.emit("conv2d", [x], x.shape, **attrs)
                self.store(y, weight=a.reshape(-1, 1, 1, 1), bias=b)
            self.applied[key] = y.name
        return replace(x, name=self.applied[key], affine=None, shared=True)

    def image(self, i: int = 0) -> Value:
        """Input i as a C, H, W map."""
        x = self.materialized(self.value(i))
        if len(x.shape) != 3 or x.dims != x.shape:
            raise self.fail(f"of a value of the shape {list(x.dims)}, which is no C, H, W map")
        return x

    def alike(self, *values: Value) -> list[Value]:
        """Averaged maps beside maps of one pixel: the same to the file, so all become vectors."""
        if len({len(x.shape) for x in values}) == 1:
            return list(values)
        pixels = [len(x.shape) == 3 and prod(x.shape[1:]) == 1 for x in values]
        return [
            replace(self.flattened(x), dims=x.dims, nhwc=x.nhwc) if pixel else x
            for x, pixel in zip(values, pixels, strict=True)
        ]

    def peak(self, x: Value) -> Value:
        """The largest of each channel, [C]."""
        whole = list(x.shape[1:])
        y = self.emit("maxpool", [x], (x.shape[0], 1, 1), kernel=whole, stride=whole, padding=[0, 0, 0, 0])
        return self.emit("flatten", [y], x.shape[:1])

    def vector(self, x: Value) -> Value:
        """A value that the file sees as a vector, or as C, 1, 1, flattened if it is not yet."""
        return self.flattened(x) if len(x.shape) == 3 and prod(x.dims) == max(x.dims) else x

    def flattened(self, x: Value) -> Value:
        if len(x.shape) == 1:
            return replace(x, dims=x.shape)
        if x.name == INPUT:
            x = self.materialized(x)
        y = self.emit("flatten", [x], (prod(x.shape),))
        order = np.arange(y.shape[0]).reshape(x.shape).transpose(1, 2, 0).reshape(-1)
        mixed = x.nhwc and (np.diff(order) != 1).any()
        each = x.affine and (
            np.repeat(x.affine[0], y.shape[0] // x.shape[0]),
            np.repeat(x.affine[1], y.shape[0] // x.shape[0]),
        )
        return replace(y, order=order if mixed else None, affine=each)
