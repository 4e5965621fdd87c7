"""Type rules of the integer contract's own ops."""

from __future__ import annotations

from math import prod

import numpy as np

from netsuke.graph.floats import CONV, PADDING, WINDOW, Spec, conv_shape, dense_weight, gated, same
from netsuke.graph.need import Need
from netsuke.graph.types import INT32_MAX, RANGES, Type, typed


def _halve(n: Need) -> Type:
    return typed(n.image("u8").shape, "u7")


def _qconv2d(n: Need) -> Type:
    x = n.image("u7", "s8")
    weight, shape = conv_shape(n, x, np.int8)
    return typed(shape, n.requantized(n.accumulate(weight, x)))


def _qdense(n: Need) -> Type:
    x = n.vector("u7", "s8", "i32")
    weight = dense_weight(n, x, np.int8)
    return typed(weight.shape[:1], n.requantized(n.accumulate(weight, x)))


def _qlogits(n: Need) -> Type:
    """Of a vector, or of every pixel of a map: then a map of sums."""
    flat = len(n.inputs[0].shape) == 1
    x = n.vector("u7", "s8", "i32") if flat else n.image("u7", "s8")
    weight = dense_weight(n, x, np.int8)
    bound = int(n.accumulate(weight, x).max())
    return Type((len(weight), *x.shape[1:]), "i32", -bound, bound)


def _qavgpool(n: Need) -> Type:
    x = n.image("u7", "s8")
    n.averaged(x.hi * prod(n.op.attrs["kernel"]))
    return typed((x.shape[0], *n.pool(x)), x.dtype)


def _sumpool(n: Need) -> Type:
    x = n.image("u7", "s8")
    area = x.shape[1] * x.shape[2]
    if x.hi * area > INT32_MAX:
        raise n.fail("its sums can overflow int32")
    return Type(x.shape[:1], "i32", x.lo * area, x.hi * area)


def _qadd(n: Need) -> Type:
    a = same(n, "u7", "s8")
    n.averaged(127 * sum(n.op.attrs["multipliers"]), 1)
    return typed(a.shape, "s8" if n.op.attrs["signed"] else "u7")


def _qmul(n: Need) -> Type:
    x = gated(n, "u7", "s8")
    n.averaged(127 * 127)
    return typed(x.shape, n.element())


def _qchannelmean(n: Need) -> Type:
    x = n.image("u7", "s8")
    n.averaged(x.hi * x.shape[0])
    return typed((1, *x.shape[1:]), x.dtype)


def _lookup(n: Need) -> Type:
    """A table of 128 entries for unsigned inputs, of 255 for signed ones; one for all, or one a channel."""
    x, entries = n.inputs[0], {"u7": 128, "s8": 255}
    if x.dtype not in entries or not x.shape:
        raise n.fail(f"needs u7 or s8; gets {x.dtype} {list(x.shape)}")
    array = n.tensors.get(n.op.tensor("table"))
    shared = array is None or array.ndim == 1
    table = n.weight("table", ((), x.shape[:1])[not shared] + (entries[x.dtype],), np.int32)
    low, high = RANGES[n.element()]
    if table.min() < low or table.max() > high:
        raise n.fail(f"its table must hold {low} to {high}")
    return typed(x.shape, n.element())


_REQUANTIZED = ("weight", "bias", "multiplier", "shift")

INTEGERS: dict[str, Spec] = {
    "halve": Spec(_halve),
    "qconv2d": Spec(_qconv2d, (*CONV, "bits", "signed"), _REQUANTIZED),
    "qdense": Spec(_qdense, ("bits", "signed"), _REQUANTIZED),
    "qlogits": Spec(_qlogits, ("bits", "scale"), ("weight", "bias")),
    "qavgpool": Spec(_qavgpool, (*WINDOW, "multiplier", "shift"), optional=PADDING),
    "qchannelmean": Spec(_qchannelmean, ("multiplier", "shift")),
    "sumpool": Spec(_sumpool, optional=("scale",)),  # the scale where its sums are the logits
    "qadd": Spec(_qadd, ("multipliers", "shift", "signed"), arity=2),
    "qmul": Spec(_qmul, ("multiplier", "shift", "signed"), arity=2),
    "lookup": Spec(_lookup, ("signed",), ("table",)),
}
