"""The emitters of integer ops: int8 activations with zero point 0, weights with a scale a channel.

An activation's scale is free: only the ratios of scales reach the arithmetic. So each op takes its input with the scale
it has and sets those of its weights and its output. A sum, a gate and a concatenation ask for certain ratios; there a
cast from int8 to int8 gives the same integers another scale.

Where int8 operators are not proved to round as the contract does, an exact file spells the layer: whole numbers in
float32, multiplied, rounded by a floor and cast back. Its weights are stored as int8 all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netsuke.export.rounding import Stairs, reach, stairs
from netsuke.export.tflite import scaling
from netsuke.export.tflite.floats import broadcast, convolution, dense, layout, turned
from netsuke.export.tflite.net import PER_CHANNEL_DENSE, At, dims
from netsuke.export.tflite.scaling import EXACT, SIGNED, UNSIGNED, Scales
from netsuke.graph import Op

TWO = np.float32(
    2.004
)  # each of 0..255 over this, rounded by any rule, is the number halved and rounded down


def _cut(at: At, signed: bool) -> np.float32:
    """Have the operator cut its output to -127..127 or 0..127; the scale that this takes."""
    kinds = at.net.schema.ActivationFunctionType
    at.fused = kinds.RELU_N1_TO_1 if signed else kinds.RELU
    return SIGNED if signed else UNSIGNED


def _unproved(at: At, proved: bool) -> None:
    if not proved:
        at.net.unproved.append(at.op.name)


def _relabelled(at: At, x: int, scale: np.float32, role: str) -> int:
    return x if at.net.scales[x] == scale else at.cast(x, "int8", role, scale)


# --- layers -----------------------------------------------------------------------------------------


def _halve(at: At) -> int:
    return at.add("QUANTIZE", [at.cast(at.x[0], "float32", "float")], dtype="int8", scale=TWO)


def _spelling(
    at: At, weight: np.ndarray, bias: np.ndarray, m: np.ndarray, s: np.ndarray, signed: bool
) -> tuple[Stairs, bool]:
    """The layer's steps, and whether an exact file may spell it: whether floats keep all of them."""
    low, high = reach(weight, bias, at.types[0])
    steps = stairs(low, high, m, s, signed=signed)
    inner = reach(weight, np.abs(bias.astype(np.int64)), at.types[0])
    whole = max(-int(inner[0].min()), int(inner[1].max())) <= EXACT
    return steps, at.net.exact and whole and bool(steps.agrees(_floored(steps)).all())


def _floored(steps: Stairs) -> Callable[[np.ndarray], np.ndarray]:
    """What `_rounded` computes, in float32."""
    scale = steps.middle.astype(np.float32)[:, None]
    return lambda acc: np.floor(acc.astype(np.float32) * scale + np.float32(0.5))


def _rounded(at: At, acc: int, steps: Stairs, signed: bool) -> int:
    """Whole sums in float32 to int8: half up, as the contract, and cut."""
    kinds = at.net.schema.ActivationFunctionType
    factor = at.constant("factor", steps.middle)
    y = at.add("MUL", [acc, factor], role="scaled", options="MulOptions")
    y = at.add(
        "ADD", [y, at.constant("half", 0.5)], role="moved", options="AddOptions",
        fusedActivationFunction=kinds.NONE if signed else kinds.RELU,
    )  # fmt: skip
    y = at.add("FLOOR", [y], role="floor")
    if signed:
        y = at.add("MAXIMUM", [y, at.constant("low", -127)], role="above", options="MaximumMinimumOptions")
    y = at.add("MINIMUM", [y, at.constant("high", 127)], role="cut", options="MaximumMinimumOptions")
    return at.cast(y, "int8", "out", UNSIGNED)


def _real(at: At, weight: np.ndarray) -> int:
    """int8 weights as the floats of their whole numbers, dequantised once, as the file is loaded."""
    stored = at.constant("weight", weight, np.int8, UNSIGNED)
    real = at.add("DEQUANTIZE", [stored], weight.shape, "real_weight", dtype="float32")
    at.net.tensors[real].shapeSignature = None  # no batch
    return real


def _scaled(
    at: At, weight: np.ndarray, bias: np.ndarray, m: np.ndarray, s: np.ndarray, *, signed: bool
) -> tuple[np.ndarray, np.ndarray, Scales, np.float32]:
    """Weight and bias as they are stored, the scales of the weights and that of the output."""
    dead = m == 0  # always 0, but a scale may not be
    weight, bias = np.where(dead.reshape(-1, *[1] * (weight.ndim - 1)), 0, weight), np.where(dead, 0, bias)
    target = _cut(at, signed)
    scales = scaling.weight_scales(
        reach(weight, bias, at.types[0]), m, s, at.net.scales[at.x[0]], target,
        signed=signed, near=bias, room=127 // max(1, int(np.abs(weight).max())),
    )  # fmt: skip
    return weight * scales.gain, bias * scales.gain + scales.offsets, scales, target


def _convolution(
    at: At, weight: np.ndarray, bias: np.ndarray, m: np.ndarray, s: np.ndarray, *, signed: bool
) -> int:
    steps, spelled = _spelling(at, weight, bias, m, s, signed)
    stored, moved, scales, target = _scaled(at, weight, bias, m, s, signed=signed)
    if spelled and not scales.proved:
        return _float_convolution(at, weight, bias, steps, signed)
    _unproved(at, scales.proved)
    stored, axis = layout(at, stored)
    w = at.constant("weight", stored, np.int8, scales.values, axis)
    b = at.constant("bias", moved, np.int32, scales.values * at.net.scales[at.x[0]])
    return convolution(at, w, b, axis, scale=target)


def _float_convolution(at: At, weight: np.ndarray, bias: np.ndarray, steps: Stairs, signed: bool) -> int:
    at.x, at.fused = [at.cast(at.x[0], "float32", "float")], 0
    turned_weight, axis = layout(at, weight)
    acc = convolution(at, _real(at, turned_weight), at.constant("bias", bias), axis, "sum")
    return _rounded(at, acc, steps, signed)


def _qconv2d(at: At) -> int:
    w = at.weight
    return _convolution(at, w("weight"), w("bias"), w("multiplier"), w("shift"), signed=at.op.attrs["signed"])


def _summing(at: At, weight: np.ndarray, **attrs: Any) -> int:
    """A convolution with ones: an average of the op's one multiplier and shift."""
    at.op = Op(at.op.kind, at.op.name, at.op.inputs, {**at.op.attrs, **attrs})
    zeros, m, s = (np.full(len(weight), v) for v in (0, at.op.attrs["multiplier"], at.op.attrs["shift"]))
    return _convolution(at, weight, zeros, m, s, signed=at.types[0].dtype == "s8")


def _qavgpool(at: At) -> int:
    channels = at.types[0].shape[0]
    return _summing(at, np.ones((channels, 1, *at.op.attrs["kernel"]), np.int8), groups=channels)


def _qchannelmean(at: At) -> int:
    weight = np.ones((1, at.types[0].shape[0], 1, 1), np.int8)
    return _summing(at, weight, groups=1, stride=[1, 1])


def _qdense(at: At) -> int:
    w, signed = at.weight, at.op.attrs["signed"]
    given = w("bias"), w("multiplier"), w("shift")
    steps, spelled = _spelling(at, w("weight"), *given, signed)
    if at.net.dtype(at.x[0]) == "float32":  # wide sums
        _unproved(at, bool(steps.agrees(_floored(steps)).all()))
        return _rounded(at, _sums(at, "sum"), steps, signed)
    weight, bias, scales, target = _scaled(at, turned(at), *given, signed=signed)
    if spelled and not scales.proved:
        return _rounded(at, _sums(at, "sum"), steps, signed)
    _unproved(at, scales.proved)
    inputs = [
        at.x[0],
        at.constant("weight", weight, np.int8, scales.values),
        at.constant("bias", bias, np.int32, scales.values * at.net.scales[at.x[0]]),
    ]
    return at.add(
        "FULLY_CONNECTED", inputs, None, "out", "FullyConnectedOptions", scale=target, version=PER_CHANNEL_DENSE,
        fusedActivationFunction=at.fused,
    )  # fmt: skip


# --- whole numbers as floats: sums wider than int8 --------------------------------------------------


def _sums(at: At, role: str = "out") -> int:
    """The sums of a dense layer, or of one of every pixel, whole numbers in float32: exact up to 2^24 in whatever order
    they are added.
    """
    x = at.x[0] if at.net.dtype(at.x[0]) == "float32" else at.cast(at.x[0], "float32", "float")
    pixels = len(at.type.shape) == 3
    weight, bias = at.weight("weight") if pixels else turned(at), at.weight("bias")
    low, high = reach(weight, np.abs(bias.astype(np.int64)), at.types[0])
    _unproved(at, max(-low.min(), high.max()) <= EXACT)
    at.fused = 0
    if pixels:
        at.x, at.op = [x], Op(at.op.kind, at.op.name, at.op.inputs, {"groups": 1, "stride": [1, 1]})
        return convolution(at, _real(at, weight[:, None, None]), at.constant("bias", bias), 0, role)
    return dense(at, x, _real(at, weight), at.constant("bias", bias), role)


def _sumpool(at: At) -> int:
    _unproved(at, max(at.type.hi, -at.type.lo) <= EXACT)
    inputs = [at.cast(at.x[0], "float32", "float"), at.constant("axes", [1, 2], np.int32)]
    return at.add("SUM", inputs, options="ReducerOptions", keepDims=False)


# --- what joins, and tables -------------------------------------------------------------------------


def _qadd(at: At) -> int:
    """The file's ratios are m / 2^s; XNNPACK adds by multipliers of 20 bits, and every pair of inputs is tried."""
    target = _cut(at, at.op.attrs["signed"])
    shift = at.op.attrs["shift"]
    ratios = [
        min(m / (1 << shift), scaling.MOST_OF_SUM) for m in at.op.attrs["multipliers"]
    ]  # more is cut anyway
    if target == UNSIGNED:  # any scale will do: the one that leaves the first input as it is
        target = np.float32(at.net.scales[at.x[0]] / ratios[0])
    scales = [np.float32(target * ratio) for ratio in ratios]
    inputs = [
        _relabelled(at, x, scale, f"in{i}") for i, (x, scale) in enumerate(zip(at.x, scales, strict=True))
    ]
    a, b = (np.arange(x.lo, x.hi + 1) for x in at.types)
    m, n = at.op.attrs["multipliers"]
    want = (a[:, None] * m + b * n + ((1 << shift) >> 1)) >> shift
    low = -127 if at.op.attrs["signed"] else 0
    proved = scaling.sum_limits(scales[0] / target, scales[1] / target)
    if proved:
        got = scaling.quick_sum(a[:, None], b, (at.net.scales[inputs[0]], at.net.scales[inputs[1]], target))
        proved = bool((np.clip(got, low, 127) == np.clip(want, low, 127)).all())
    _unproved(at, proved)
    return at.add("ADD", inputs, options="AddOptions", scale=target, fusedActivationFunction=at.fused)


def _qmul(at: At) -> int:
    attrs = at.op.attrs
    ends = [a * b for a in (at.types[0].lo, at.types[0].hi) for b in (at.types[1].lo, at.types[1].hi)]
    bounds = np.array([min(ends)]), np.array([max(ends)])
    m, s = np.array([attrs["multiplier"]]), np.array([attrs["shift"]])
    target, gate = _cut(at, attrs["signed"]), broadcast(at)
    scales = scaling.weight_scales(
        bounds, m, s, at.net.scales[gate], target, signed=attrs["signed"], near=np.zeros(1)
    )
    _unproved(at, scales.proved)
    x = _relabelled(at, at.x[0], scales.values[0], "in")
    return at.add("MUL", [x, gate], options="MulOptions", scale=target, fusedActivationFunction=at.fused)


def concat(at: At) -> int:
    """Along the last axis: channels, or the features of flat vectors."""
    scale = at.net.scales.get(at.x[0])
    parts = at.x if scale is None else [_relabelled(at, x, scale, f"part{i}") for i, x in enumerate(at.x)]
    return at.add("CONCATENATION", parts, options="ConcatenationOptions", axis=len(at.type.shape))


def _lookup(at: At) -> int:
    """A gather: TFLite has no table of int8 but those of its own functions."""
    table = at.weight("table")
    place = at.cast(at.x[0], "int32", "place")
    start = np.arange(len(table) if table.ndim > 1 else 1) * table.shape[-1]
    start += 127 if at.types[0].dtype == "s8" else 0
    if start.any():
        place = at.add(
            "ADD", [place, at.constant("start", start, np.int32)], dims(at.type), "own_place", "AddOptions"
        )
    values = at.constant("table", table.reshape(-1), np.int8, UNSIGNED)
    return at.add("GATHER", [values, place], options="GatherOptions", dtype="int8", scale=UNSIGNED, axis=0)


INTEGERS: dict[str, Callable[[At], int]] = {
    "halve": _halve,
    "qconv2d": _qconv2d,
    "qdense": _qdense,
    "qlogits": _sums,
    "qavgpool": _qavgpool,
    "qchannelmean": _qchannelmean,
    "sumpool": _sumpool,
    "qadd": _qadd,
    "qmul": _qmul,
    "lookup": _lookup,
}
