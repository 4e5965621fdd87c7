"""The emitters of integer ops, and the proof that each is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netsuke.export.onnx.floats import broadcast
from netsuke.export.onnx.net import DOUBLE, FLOAT, INT32, UINT8, At, window
from netsuke.export.rounding import reach, stairs
from netsuke.graph import Op


def rounding_scales(
    lowest: np.ndarray, highest: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, *, signed: bool
) -> np.ndarray | None:
    """Scales, float32 [O], with which QLinearConv requantises exactly as the contract; None where there are none.

    `lowest` and `highest` bound each channel's accumulator; `multiplier` and `shift` are the contract's m and s.
    ONNX Runtime gives `rint(float32(acc) * scale)`: half to even, and two roundings in float32; `export.rounding`
    says why a comparison at the steps is a proof. (A sufficient
    condition in closed form, for unsigned outputs: |acc| < 2**24, s <= 14 and scale = m / 2**s * (1 + 2**-22). Sums
    beside a step j + 1/2 < 2**7 then stay 2**-14 below it, more than the 2**-15 + 2**-18 of scaling and rounding,
    and those on it rise above it by more than an ulp. The test below passes far more than that.)
    """
    steps = stairs(lowest, highest, multiplier, shift, signed=signed)
    scale = steps.middle.astype(np.float32)
    column = scale[:, None]
    fused = steps.agrees(lambda acc: np.rint(acc.astype(np.float32).astype(np.float64) * column))
    agrees = steps.agrees(lambda acc: np.rint(acc.astype(np.float32) * column)) & fused
    return scale if agrees.all() else None  # fused: where a runtime contracts product and rounding


def _codes(at: At, weight: np.ndarray) -> tuple[np.ndarray, np.integer]:
    """Weights as ONNX Runtime multiplies them without loss on every processor, and their zero point.

    Processors without VNNI add pairs of u8 * s8 products in 16 bits, saturating. Activations of 0..127 cannot reach
    that (2 * 127 * 127 < 2**15: hence the contract's 7 bits); -127..127 as 1..255 could, but u8 * u8 is
    widened first.
    """
    if at.types[0].dtype == "s8":
        return (weight.astype(np.int16) + 128).astype(np.uint8), np.uint8(128)
    return weight, np.int8(0)


def _convolution(
    at: At, weight: np.ndarray, bias: np.ndarray, m: np.ndarray, s: np.ndarray, *, signed: bool
) -> str:
    """QLinearConv and a clip where that is provably exact, else ConvInteger and `_requantized`."""
    ends = reach(weight, bias, at.types[0])
    scales = rounding_scales(*ends, m, s, signed=signed)
    codes, zero = _codes(at, weight)
    w, attrs = at.constant("weight", codes), window(at.op.attrs)
    attrs.pop("kernel_shape", None)
    if scales is None:
        z = at.constant("weight_zero", zero)
        acc = at.add("ConvInteger", [at.x[0], w, at.zero(at.types[0]), z], "sum", **attrs)
        if bias.any():
            acc = at.add("Add", [acc, at.constant("bias", bias[:, None, None])], "biased")
        return _requantized(at, acc, ends, m, s, signed, axes=2)
    one, z = at.scalar("one"), at.constant("weight_zero", np.full(len(weight), zero))
    out = at.scalar("middle" if signed else "zero")
    inputs = [at.x[0], one, at.zero(at.types[0]), w, at.constant("scale", scales), z, one, out]
    y = at.add("QLinearConv", [*inputs, at.constant("bias", bias)], "wide", **attrs)
    return at.add("Clip", [y, at.scalar("bit")] if signed else [y, "", at.scalar("top")])


def _requantized(
    at: At,
    acc: str,
    ends: tuple[np.ndarray, np.ndarray],
    m: np.ndarray,
    s: np.ndarray,
    signed: bool,
    axes: int = 0,
) -> str:
    """int32 sums to uint8 activations, exact by the width of the float type.

    acc * m is below 2**31 (`Graph.types` checks it), so that no float64 step rounds; nor does a float32 step while
    all that is added up, in units of 2**-s, stays below 2**24.
    """
    m, s = m.astype(np.int64), s.astype(np.int64)
    offset = 128 if signed else 0
    bound = np.maximum(np.abs(ends[0]), np.abs(ends[1])) * m + ((2 * offset + 1) << s >> 1)
    narrow = bound.max() < 1 << 24 and m.max() < 1 << 24
    dtype, code = (np.float32, FLOAT) if narrow else (np.float64, DOUBLE)
    factor = (m / np.exp2(s)).astype(dtype).reshape(-1, *[1] * axes)
    y = at.add("Cast", [acc], "cast", to=code)
    y = at.add("Mul", [y, at.constant("factor", factor)], "scaled")
    return _rounded(at, y, dtype(offset + 0.5), signed)


def _rounded(at: At, y: str, half: Any, signed: bool) -> str:
    """Round half up, clip, cast; `half` is 1/2 and the zero point."""
    y = at.add("Floor", [at.add("Add", [y, at.constant("half", half)], "moved")], "floor")
    low, high = (1, 255) if signed else (0, 127)
    limits = [at.constant("min", type(half)(low)), at.constant("max", type(half)(high))]
    return at.add("Cast", [at.add("Clip", [y, *limits], "clip")], to=UINT8)


def _qconv2d(at: At) -> str:
    w = at.weight
    return _convolution(at, w("weight"), w("bias"), w("multiplier"), w("shift"), signed=at.op.attrs["signed"])


def _qavgpool(at: At) -> str:
    a, channels = at.op.attrs, at.types[0].shape[0]
    at.op = Op("qavgpool", at.op.name, at.op.inputs, {**a, "groups": channels})
    ones, m, s = (np.full(channels, v, np.int32) for v in (1, a["multiplier"], a["shift"]))
    weight = np.ones((channels, 1, *a["kernel"]), np.int8)
    return _convolution(at, weight, 0 * ones, m, s, signed=at.types[0].dtype == "s8")


def _sums(at: At) -> str:
    """int32 sums of a dense layer."""
    weight, x = at.weight("weight"), at.types[0]
    if len(x.shape) == 3:
        return _pixel_sums(at, weight)
    if x.dtype == "i32":  # the sums of a pooled map: as wide as int32, so int32 it is
        w = at.add("Cast", [at.constant("weight", weight.T)], "wide_weight", to=INT32)
        acc = at.add("MatMul", [*at.x, w], "sum")
    else:
        codes, zero = _codes(at, weight.T)
        inputs = [*at.x, at.constant("weight", codes), at.zero(x), at.constant("weight_zero", zero)]
        acc = at.add("MatMulInteger", inputs, "sum")
    return at.add("Add", [acc, at.constant("bias", at.weight("bias"))], "biased")


def _pixel_sums(at: At, weight: np.ndarray) -> str:
    """The same of every pixel of a map."""
    codes, zero = _codes(at, weight[:, :, None, None])
    inputs = [*at.x, at.constant("weight", codes), at.zero(at.types[0]), at.constant("weight_zero", zero)]
    acc = at.add("ConvInteger", inputs, "sum")
    return at.add("Add", [acc, at.constant("bias", at.weight("bias")[:, None, None])], "biased")


def _qdense(at: At) -> str:
    ends = reach(at.weight("weight"), at.weight("bias"), at.types[0])
    m, s = at.weight("multiplier"), at.weight("shift")
    return _requantized(at, _sums(at), ends, m, s, at.op.attrs["signed"])


def as_int32(at: At) -> str:
    """Activations as int32, their zero point taken off."""
    y = at.add("Cast", at.x, "int32", to=INT32)
    return at.add("Sub", [y, at.scalar("offset")], "signed") if at.types[0].dtype == "s8" else y


def _sumpool(at: At) -> str:
    axes = at.constant("axes", np.array([2, 3], np.int64))
    return at.add("ReduceSum", [as_int32(at), axes], keepdims=0)


def _qadd(at: At) -> str:
    """Exact in float64: every term is a multiple of 2**-shift, and below 2**31."""
    terms, offset = [], 0.0
    for i, (x, type_, m) in enumerate(zip(at.x, at.types, at.op.attrs["multipliers"], strict=True)):
        factor = m / (1 << at.op.attrs["shift"])
        wide = at.add("Cast", [x], f"cast{i}", to=DOUBLE)
        terms.append(at.add("Mul", [wide, at.constant(f"factor{i}", np.float64(factor))], f"scaled{i}"))
        offset -= 128 * factor if type_.dtype == "s8" else 0
    signed = at.op.attrs["signed"]
    half = np.float64(0.5 + offset + (128 if signed else 0))
    return _rounded(at, at.add("Add", terms, "sum"), half, signed)


def _qchannelmean(at: At) -> str:
    """A 1x1 convolution with ones."""
    a, channels = at.op.attrs, at.types[0].shape[0]
    at.op = Op("qchannelmean", at.op.name, at.op.inputs, {**a, "groups": 1, "stride": [1, 1]})
    zero, m, s = (np.array([v], np.int32) for v in (0, a["multiplier"], a["shift"]))
    weight = np.ones((1, channels, 1, 1), np.int8)
    return _convolution(at, weight, zero, m, s, signed=at.types[0].dtype == "s8")


def _qmul(at: At) -> str:
    """Exact in floats as `_requantized` is."""
    attrs = at.op.attrs
    offset = 128 if attrs["signed"] else 0
    bound = 127 * 127 * attrs["multiplier"] + ((2 * offset + 1) << attrs["shift"] >> 1)
    code, dtype = (FLOAT, np.float32) if bound < 1 << 24 else (DOUBLE, np.float64)
    factors = []
    for i, (x, type_) in enumerate(zip(at.x, at.types, strict=True)):
        wide = at.add("Cast", [broadcast(at, x, i)], f"cast{i}", to=code)
        if type_.dtype == "s8":
            wide = at.add("Sub", [wide, at.constant("middle", dtype(128))], f"signed{i}")
        factors.append(wide)
    factor = at.constant("factor", dtype(attrs["multiplier"] / (1 << attrs["shift"])))
    y = at.add("Mul", [at.add("Mul", factors, "product"), factor], "scaled")
    return _rounded(at, y, dtype(0.5 + offset), attrs["signed"])


def _lookup(at: At) -> str:
    """A gather from a table by the stored code, which is moved by 128 where values have a sign."""
    table = at.weight("table")
    if at.op.attrs["signed"]:
        table = table + 128
    if at.types[0].dtype == "s8":  # codes 1..255
        table = np.concatenate([table[..., :1], table], -1)
    place = at.add("Cast", at.x, "place", to=INT32)
    if table.ndim > 1:
        start = np.arange(len(table), dtype=np.int32) * table.shape[1]
        start = start.reshape(-1, *[1] * (len(at.types[0].shape) - 1))
        place = at.add("Add", [place, at.constant("start", start)], "own_place")
    return at.add("Gather", [at.constant("table", table.reshape(-1).astype(np.uint8)), place])


def concat(at: At) -> str:
    """Unsigned parts beside signed ones move to the signed codes first."""
    parts = []
    mixed = len({x.dtype for x in at.types}) > 1
    for i, (x, type_) in enumerate(zip(at.x, at.types, strict=True)):
        if mixed and type_.dtype == "u7":
            wide = at.add("Cast", [x], f"wide{i}", to=INT32)
            x = at.add(
                "Cast", [at.add("Add", [wide, at.scalar("offset")], f"moved{i}")], f"part{i}", to=UINT8
            )
        parts.append(x)
    return at.add("Concat", parts, axis=1)


INTEGERS: dict[str, Callable[[At], str]] = {
    "halve": lambda at: at.add("BitShift", [*at.x, at.scalar("bit")], direction="RIGHT"),
    "qconv2d": _qconv2d,
    "qdense": _qdense,
    "qlogits": _sums,
    "qavgpool": _qavgpool,
    "sumpool": _sumpool,
    "qadd": _qadd,
    "qchannelmean": _qchannelmean,
    "qmul": _qmul,
    "lookup": _lookup,
    "concat": concat,
}
