"""Op, Graph and type inference: the whole language in which a finished network is written.

A graph maps raw `uint8` images to logits, one a class, or to a map of them. It names its weights (`op.role`) but does
not hold them, so that it is small, comparable and prints as JSON. `kernels.py` says what every op means.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from netsuke.errors import GraphError, UnsupportedOp
from netsuke.graph.attributes import ATTRS, wholes
from netsuke.graph.floats import BOTH, FLOATS, Spec
from netsuke.graph.integers import INTEGERS
from netsuke.graph.need import Need
from netsuke.graph.types import INPUT, INT32_MAX, MAX_ELEMENTS, MAX_OPS, MAX_SHIFT, Op, Tensors, Type, typed

__all__ = [
    "INPUT", "INT32_MAX", "INTEGER", "MAX_SHIFT", "OPS", "Graph", "Op", "Spec", "Tensors", "Type", "infer", "typed",
]  # fmt: skip

OPS: dict[str, Spec] = {**FLOATS, **BOTH, **INTEGERS}
INTEGER = frozenset(INTEGERS)
MAPS = ("conv2d", "wconv2d", "dconv2d", "qlogits")  # what may give a map of logits


@dataclass(frozen=True)
class Graph:
    """A straight list of ops in the order of execution; the last one gives the logits, [classes] or a map [O, H, W]."""

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
        return _types(self, tensors)

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
        if not wholes(shape, 3, 1, 1 << 16):
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


def infer(op: Op, inputs: list[Type], tensors: Tensors) -> Type:
    """The type of what one op gives for inputs of these types; checks its form and its weights.

    Raises GraphError naming the op and what arrives there.
    """
    spec = OPS.get(op.kind)
    if spec is None:
        raise UnsupportedOp(f"unknown op {op.kind!r}; netsuke knows {', '.join(sorted(OPS))}")
    need = Need(op, inputs, tensors)
    if not set(spec.attrs) <= set(op.attrs) <= {*spec.attrs, *spec.optional}:
        may = f" and may take {', '.join(spec.optional)}" if spec.optional else ""
        raise need.fail(
            f"takes the attributes {', '.join(spec.attrs) or 'none'}{may}; got {', '.join(op.attrs) or 'none'}"
        )
    for key, value in op.attrs.items():
        check, want = ATTRS[key]
        if not check(value):
            raise need.fail(f"{key} must be {want}; got {str(value)[:40]}")
    if len(inputs) != spec.arity and (spec.arity or len(inputs) < 2):
        raise need.fail(_arity(op, ", ".join(op.inputs) or "none")[:200])
    result = spec.infer(need)
    if result.elements > MAX_ELEMENTS:
        raise need.fail(f"its output of {result.elements} elements is over the limit of {MAX_ELEMENTS}")
    return result


def _arity(op: Op, got: str) -> str:
    arity = OPS[op.kind].arity if op.kind in OPS else 1
    return f"takes {arity or 'two or more'} earlier outputs; got {got}"


def _types(graph: Graph, tensors: Tensors) -> dict[str, Type]:
    if not graph.ops:
        raise GraphError("a graph needs at least one op")
    known = {INPUT: typed(graph.input_shape, "u8")}
    used: set[str] = set()
    for op in graph.ops:
        if op.name in known:
            raise Need(op, [], tensors).fail("its name is taken")
        missing = [name for name in op.inputs if name not in known]
        if missing:
            raise Need(op, [], tensors).fail(_arity(op, ", ".join(missing))[:200])
        known[op.name] = infer(op, [known[name] for name in op.inputs], tensors)
        used.update(op.inputs)
    unused = [op.name for op in graph.ops[:-1] if op.name not in used]
    if unused:
        raise GraphError(f"nothing uses the output of {unused[0]!r}")
    if len(known[graph.output].shape) != 1 and graph.ops[-1].kind not in MAPS:
        raise GraphError(f"the last op must give one logit a class, or be one of {', '.join(MAPS)}")
    return known
