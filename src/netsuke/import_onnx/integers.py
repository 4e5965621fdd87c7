"""From a float graph and the limits of its activations to the integer contract, without torch.

A quantised file has activations of 256 levels about a zero point; the contract has 0..127 or -127..127 about zero.
So an activation that is never negative keeps half its levels, one with a sign up to all, and everything else carries
over: weights stay the integers they are, biases keep their real values, and wide sums are not rounded where the file
rounds them (before a dense layer that reads an average, and the logits).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from netsuke.errors import GraphError, UnsupportedOp
from netsuke.graph import INPUT, INT32_MAX, MAX_SHIFT, Graph, Op, Type
from netsuke.kernels import KERNELS

MOST = (1 << 15) - 1  # of a multiplier: two bytes
WEIGHT = 127
# Ops that change no value, so that their output can keep the scale of their input.
PASSING = frozenset({"maxpool", "flatten", "slice", "shuffle", "channelmax", "concat"})
CLIPS = frozenset({"relu", "relu6"})
TABLES = frozenset({"leakyrelu", "prelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", *CLIPS})


@dataclass(frozen=True)
class Form:
    """How real values are stored: integers of the contract times `scale`."""

    scale: float
    signed: bool
    wide: bool = False  # int32 sums

    @staticmethod
    def of(low: float, high: float) -> Form:
        reach = max(-low, high)
        return Form(max(reach, 1e-9) / 127, low < -1e-6 * reach)

    @property
    def levels(self) -> np.ndarray:
        return np.arange(-127 if self.signed else 0, 128)


@dataclass
class Result:
    """The integer graph as it grows; `forms` and `names` go by the float op's name."""

    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def quantised(
    graph: Graph,
    tensors: dict[str, np.ndarray],
    ranges: dict[str, tuple[float, float]],
    steps: dict[str, np.ndarray],
) -> tuple[Graph, dict[str, np.ndarray], list[str]]:
    """The integer graph, its tensors, and what it only approximates, a line each.

    `ranges` are the limits of ops' outputs, `steps` those on which layers' weights stand. Raises UnsupportedOp where an
    op's range is unknown or it has no integer form.
    """
    return _Quantiser(graph, tensors, ranges, steps).run()


class _Quantiser:
    def __init__(
        self,
        graph: Graph,
        tensors: dict[str, np.ndarray],
        ranges: dict[str, tuple[float, float]],
        steps: dict[str, np.ndarray],
    ):
        self.graph, self.weights, self.steps = graph, tensors, steps
        self.types = graph.types(tensors)
        self.users: dict[str, list[Op]] = {}
        for op in graph.ops:
            for name in op.inputs:
                self.users.setdefault(name, []).append(op)
        self.targets = self._targets(ranges)
        self.out = Result()
        self.rounded: list[str] = []  # layers whose weights left their grid

    def run(self) -> tuple[Graph, dict[str, np.ndarray], list[str]]:
        for op in self.graph.ops:
            if op.kind not in EMIT:
                raise UnsupportedOp(
                    f"{op.kind} {op.name!r} has no integer form; import knows {', '.join(sorted(EMIT))} in "
                    "quantised files"
                )
            EMIT[op.kind](self, op)
        last = self.graph.output
        if self.out.names[last] != self.out.ops[-1].name:
            raise GraphError(f"its output {last!r} is not the result of its last layer")
        return Graph(self.graph.input_shape, tuple(self.out.ops)), self.out.tensors, self._notes()

    def _notes(self) -> list[str]:
        forms = [form for form in self.out.forms.values() if not form.wide]
        signed = sum(form.signed for form in forms)
        notes = [f"activations of 256 levels became 0..127 ({len(forms) - signed}) or -127..127 ({signed})"]
        if self.rounded:
            notes.append(f"weights were rounded anew in {', '.join(self.rounded)}")
        return notes

    def _targets(self, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """The limits each output is to have: its own, or those of the one op that reads it and only cuts or moves."""
        targets = dict(ranges)
        for op in reversed(self.graph.ops):
            if op.kind in CLIPS:
                low, high = targets.get(op.name) or targets.get(op.inputs[0]) or (0.0, 0.0)
                high = min(high, 6.0) if op.kind == "relu6" else high
                targets[op.name] = (max(low, 0.0), high) if high > 0 else (0.0, 0.0)
            if op.kind in PASSING | CLIPS and targets.get(op.name, (0.0, 0.0)) != (0.0, 0.0):
                for name in op.inputs:
                    if len(self.users[name]) == 1:
                        targets[name] = targets[op.name]
        return targets

    def target(self, op: Op) -> Form:
        limits = self.targets.get(op.name)
        if limits is None or limits == (0.0, 0.0):
            raise UnsupportedOp(
                f"{op.kind} {op.name!r} has no QuantizeLinear behind it, so its range is unknown; quantise the whole "
                "model, or import the float one"
            )
        return Form.of(*limits)

    def form(self, op: Op, i: int = 0) -> Form:
        return self.out.forms[op.inputs[i]]

    def emit(
        self, op: Op, kind: str, inputs: list[str], form: Form, attrs: dict[str, Any], **tensors: np.ndarray
    ) -> str:
        """An op called as the float one, or `name.1` where that is taken; the float op's value is now this one's."""
        taken = {o.name for o in self.out.ops}
        name = op.name if op.name not in taken else f"{op.name}.{len(taken)}"
        self.out.ops.append(Op(kind, name, tuple(inputs), attrs))
        self.out.tensors |= {f"{name}.{role}": array for role, array in tensors.items()}
        self.out.forms[op.name], self.out.names[op.name] = form, name
        return name

    def inputs(self, op: Op) -> list[str]:
        return [self.out.names[name] for name in op.inputs]

    def table(
        self, op: Op, x: str, source: Form, target: Form, function: Callable[[np.ndarray], np.ndarray]
    ) -> str:
        """A lookup of real [C or 1, levels] to real, for every level of the input."""
        real = function(source.levels[None] * source.scale)
        low = -127 if target.signed else 0
        rows = np.clip(np.floor(real / target.scale + 0.5), low, 127).astype(np.int32)
        table = rows[0] if (rows == rows[:1]).all() else rows
        return self.emit(op, "lookup", [x], target, {"signed": target.signed}, table=table)

    def brought(self, op: Op, x: str, source: Form, target: Form) -> str:
        """A value in another form: a table, where it is not in that form already."""
        if source == target:
            return x
        return self.table(op, x, source, target, lambda real: real)


# --- arithmetic -------------------------------------------------------------------------------------


def requantiser(gain: np.ndarray, bound: np.ndarray, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and shifts, int32 [O], with m / 2^s nearest to `gain`: as many bits as int32 and `most` allow.

    `bound` is the largest |sum| of each channel.
    """
    m, s = np.zeros(len(gain), np.int64), np.zeros(len(gain), np.int64)
    for shift in range(MAX_SHIFT + 1):
        top = np.minimum((INT32_MAX - ((1 << shift) >> 1)) // np.maximum(bound, 1), most)
        tried = np.rint(gain * 2.0**shift).astype(np.int64)
        fits = (tried <= top) & (tried > 0)
        m, s = np.where(fits, tried, m), np.where(fits, shift, s)
    return m.astype(np.int32), s.astype(np.int32)


def _one(gain: float, bound: int) -> dict[str, int]:
    m, s = requantiser(np.array([gain]), np.array([bound]))
    return {"multiplier": max(int(m[0]), 1), "shift": int(s[0])}


def _integers(q: _Quantiser, op: Op, common: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights as integers and their steps [O]; with `common` one step for all outputs, as logits need."""
    real = q.weights[op.tensor("weight")].astype(np.float64)
    column = (-1, *[1] * (real.ndim - 1))
    steps = np.broadcast_to(q.steps.get(op.name, np.zeros(())), len(real)).astype(np.float64)
    if common and (steps != steps[0]).any():
        steps = np.zeros(len(real))
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = real / steps.reshape(column)
    if (
        not np.isfinite(whole).all()
        or np.abs(whole).max() > WEIGHT + 0.5
        or np.abs(whole - np.rint(whole)).max() > 1e-3
    ):
        peaks = np.abs(real).reshape(len(real), -1).max(1)
        steps = np.maximum(np.full(len(real), peaks.max()) if common else peaks, 1e-12) / WEIGHT
        whole = real / steps.reshape(column)
        q.rounded.append(op.name)
    return np.rint(whole).astype(np.int8), steps


def _bias(q: _Quantiser, op: Op, unit: np.ndarray) -> np.ndarray:
    """Whole biases in units of the sums; int32 is room enough for all that leave the output uncut."""
    return np.clip(np.rint(q.weights[op.tensor("bias")] / unit), -(1 << 29), 1 << 29).astype(np.int32)


def _bound(weight: np.ndarray, bias: np.ndarray, source: Form, x: Type) -> np.ndarray:
    top = 127 * (x.elements if source.wide else 1)
    return np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1) * top + np.abs(
        bias.astype(np.int64)
    )


# --- ops --------------------------------------------------------------------------------------------


def _normalize(q: _Quantiser, op: Op) -> None:
    """Pixels halved; a table where their zero is not black, or channels differ."""
    scales, offsets = (np.array(op.attrs[key]) for key in ("scales", "offsets"))
    half = Form(float(scales[0]) * 255 / 127, False)
    x = q.emit(Op("halve", f"{op.name}.half", ()), "halve", [INPUT], half, {})
    if not offsets.any() and (scales == scales[0]).all() and scales[0] > 0:
        q.out.forms[op.name], q.out.names[op.name] = half, x
        return
    target = q.target(op)
    pixels = Form(255 / 127, False)
    q.table(op, x, pixels, target, lambda real: real * scales[:, None] + offsets[:, None])


def _layer(q: _Quantiser, op: Op) -> None:
    """A convolution or a dense layer; the last of a graph gives its sums."""
    source = q.form(op)
    last = op.kind == "dense" and op.name == q.graph.output
    weight, steps = _integers(q, op, last)
    unit = steps * source.scale
    bias = _bias(q, op, unit)
    if last:
        form = Form(float(unit[0]), True, wide=True)
        q.emit(
            op, "qlogits", q.inputs(op), form, {"bits": 8, "scale": float(unit[0])}, weight=weight, bias=bias
        )
        return
    target = q.target(op)
    m, s = requantiser(unit / target.scale, _bound(weight, bias, source, _area(q, op)))
    keys = ("stride", "padding", "groups") if op.kind == "conv2d" else ()
    attrs = {key: op.attrs[key] for key in keys} | {"bits": 8, "signed": target.signed}
    tensors = {"weight": weight, "bias": bias, "multiplier": m, "shift": s}
    q.emit(op, "qconv2d" if keys else "qdense", q.inputs(op), target, attrs, **tensors)


def _area(q: _Quantiser, op: Op) -> Type:
    """The map whose sums a dense layer of wide sums reads; else a pixel."""
    name = op.inputs[0]
    while q.types[name].dtype == "f32" and len(q.types[name].shape) == 1 and q.out.forms[name].wide:
        name = next(o for o in q.graph.ops if o.name == name).inputs[0]
    shape = q.types[name].shape
    return Type(shape[1:] if len(shape) == 3 else (1,), "f32")


def _passing(q: _Quantiser, op: Op) -> None:
    """The same op on integers, its inputs in one form."""
    forms = [q.form(op, i) for i in range(len(op.inputs))]
    target = q.target(op) if op.name in q.targets else forms[0]
    if op.kind == "concat":
        if op.name not in q.targets:
            target = max(forms, key=lambda form: (form.scale, form.signed))
        inputs = [
            q.brought(Op("lookup", f"{op.name}.in{i}", ()), x, form, target)
            for i, (x, form) in enumerate(zip(q.inputs(op), forms, strict=True))
        ]
        q.emit(op, op.kind, inputs, target, dict(op.attrs))
        return
    y = q.emit(op, op.kind, q.inputs(op), forms[0], dict(op.attrs))
    if not forms[0].wide and forms[0] != target and op.name != q.graph.output:
        q.brought(op, y, forms[0], target)


def _average(q: _Quantiser, op: Op) -> None:
    source = q.form(op)
    target = q.target(op) if op.name in q.targets else source
    wanted = target if target.signed == source.signed else source
    shape = q.types[op.inputs[0]].shape
    kind, attrs = "qavgpool", dict(op.attrs)
    if op.kind == "channelmean":
        kind, area = "qchannelmean", shape[0]
    else:
        area = prod(attrs["kernel"])
    attrs |= _one(source.scale / wanted.scale / area, 127 * area)
    y = q.emit(op, kind, q.inputs(op), wanted, attrs)
    q.brought(op, y, wanted, target)


def _globalavgpool(q: _Quantiser, op: Op) -> None:
    """Wide sums where only dense layers read the average; else an average of the whole map, flattened."""
    source, (_, *sides) = q.form(op), q.types[op.inputs[0]].shape
    if op.name == q.graph.output or _read_by_dense(q, op.name):
        scale = source.scale / prod(sides)
        attrs = {"scale": scale} if op.name == q.graph.output else {}
        q.emit(op, "sumpool", q.inputs(op), Form(scale, source.signed, wide=True), attrs)
        return
    _average(q, Op("avgpool", op.name, op.inputs, {"kernel": sides, "stride": sides}))
    form = q.out.forms[op.name]
    q.emit(op, "flatten", [q.out.names[op.name]], form, {})


def _read_by_dense(q: _Quantiser, name: str) -> bool:
    users = q.users.get(name, [])
    return bool(users) and all(
        user.kind == "dense" or (user.kind == "flatten" and _read_by_dense(q, user.name)) for user in users
    )


def _fits(gains: list[float], shift: int) -> bool:
    """Whether multipliers of two bytes with this shift keep a sum of two activations within int32."""
    reach = 127 * sum(round(gain * 2**shift) for gain in gains) + ((1 << shift) >> 1)
    return reach <= INT32_MAX and max(gains) * 2**shift <= MOST + 0.5


def _add(q: _Quantiser, op: Op) -> None:
    target = q.target(op)
    gains = [q.form(op, i).scale / target.scale for i in (0, 1)]
    shift = MAX_SHIFT
    while shift and not _fits(gains, shift):
        shift -= 1
    multipliers = [max(round(gain * 2**shift), 1) for gain in gains]
    q.emit(
        op,
        "qadd",
        q.inputs(op),
        target,
        {"multipliers": multipliers, "shift": shift, "signed": target.signed},
    )


def _mul(q: _Quantiser, op: Op) -> None:
    target = q.target(op)
    gain = q.form(op, 0).scale * q.form(op, 1).scale / target.scale
    q.emit(op, "qmul", q.inputs(op), target, _one(gain, 127 * 127) | {"signed": target.signed})


def _curve(q: _Quantiser, op: Op) -> None:
    """An activation: a table, or nothing where the layer before it has cut its output already."""
    source, target = q.form(op), q.target(op)
    if op.kind in CLIPS and source == target:
        q.out.forms[op.name], q.out.names[op.name] = source, q.out.names[op.inputs[0]]
        return

    def curve(real: np.ndarray) -> np.ndarray:
        channels = q.types[op.name].shape[0] if op.kind == "prelu" else 1
        x = np.broadcast_to(real.astype(np.float32), (channels, real.shape[-1]))[None]
        return np.asarray(
            KERNELS[op.kind](op, [x[..., None]] if op.kind == "prelu" else [x], q.weights)
        ).reshape(channels, -1)

    q.table(op, q.out.names[op.inputs[0]], source, target, curve)


EMIT: dict[str, Callable[[_Quantiser, Op], None]] = {
    "normalize": _normalize,
    "conv2d": _layer,
    "dense": _layer,
    "avgpool": _average,
    "channelmean": _average,
    "globalavgpool": _globalavgpool,
    "add": _add,
    "mul": _mul,
    **dict.fromkeys(PASSING, _passing),
    **dict.fromkeys(TABLES, _curve),
}
