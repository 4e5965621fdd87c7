"""Type rules of float ops, and of those that take floats and integers alike: one function a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from netsuke.graph.need import Need
from netsuke.graph.types import INT32_MAX, Type, typed


def _normalize(n: Need) -> Type:
    x = n.image("u8")
    if not len(n.op.attrs["scales"]) == len(n.op.attrs["offsets"]) == x.shape[0]:
        raise n.fail(f"needs {x.shape[0]} scales and offsets, one a channel")
    return typed(x.shape, "f32")


def conv_shape(n: Need, x: Type, dtype: type) -> tuple[np.ndarray, tuple[int, ...]]:
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


def _conv2d(n: Need) -> Type:
    weight, shape = conv_shape(n, n.image("f32"), np.float32)
    n.weight("bias", weight.shape[:1], np.float32)
    return typed(shape, "f32")


def dense_weight(n: Need, x: Type, dtype: type) -> np.ndarray:
    array = n.tensors.get(n.op.tensor("weight"))
    if array is None or array.ndim != 2 or 0 in array.shape:
        raise n.fail("its weight must have two axes, outputs and inputs")
    return n.weight("weight", (array.shape[0], x.shape[0]), dtype)


def _dense(n: Need) -> Type:
    weight = dense_weight(n, n.vector("f32"), np.float32)
    n.weight("bias", weight.shape[:1], np.float32)
    return typed(weight.shape[:1], "f32")


def _scaled(n: Need, weight: np.ndarray, *, dynamic: bool) -> None:
    """Check what stands beside integer weights in a float op: their width, a scale and a bias a channel.

    `dynamic` ops sum products with activations of -127..127 in int32.
    """
    n.within_bits(weight)
    scale = n.weight("scale", weight.shape[:1], np.float32)
    n.weight("bias", weight.shape[:1], np.float32)
    magnitudes = np.abs(weight.astype(np.int64)).reshape(len(weight), -1)
    reach = np.abs(scale.astype(np.float64)) * magnitudes.max(1, initial=0)
    if (reach > np.finfo(np.float32).max).any():
        raise n.fail("its scale times its weights is too large for float32")
    if dynamic and (magnitudes.sum(1) * 127 > INT32_MAX).any():
        raise n.fail("its sums can overflow int32")


def _rounded_conv2d(n: Need, *, dynamic: bool = False) -> Type:
    weight, shape = conv_shape(n, n.image("f32"), np.int8)
    _scaled(n, weight, dynamic=dynamic)
    return typed(shape, "f32")


def _rounded_dense(n: Need, *, dynamic: bool = False) -> Type:
    weight = dense_weight(n, n.vector("f32"), np.int8)
    _scaled(n, weight, dynamic=dynamic)
    return typed(weight.shape[:1], "f32")


def _pointwise(n: Need) -> Type:
    x = n.inputs[0]
    if x.dtype != "f32":
        raise n.fail(f"is a float op; gets {x.dtype}")
    return x


def _avgpool(n: Need) -> Type:
    x = n.image("f32")
    return typed((x.shape[0], *n.pool(x)), "f32")


def _globalavgpool(n: Need) -> Type:
    return typed(n.image("f32").shape[:1], "f32")


def same(n: Need, *dtypes: str) -> Type:
    a, b = n.inputs
    if a.shape != b.shape or a.dtype not in dtypes or b.dtype not in dtypes:
        got = f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
        raise n.fail(f"needs two equal shapes of {' or '.join(dtypes)}; gets {got}")
    return a


def _add(n: Need) -> Type:
    return same(n, "f32")


def _prelu(n: Need) -> Type:
    x = _pointwise(n)
    n.weight("slope", x.shape[:1], np.float32)
    return x


def gated(n: Need, *dtypes: str) -> Type:
    """The first input, which the second multiplies: element by element, channel by channel or pixel by pixel."""
    x, gate = n.inputs
    fits = gate.shape in (x.shape, x.shape[:1], (1, *x.shape[1:])) and len(x.shape) in (1, 3)
    if not fits or x.dtype not in dtypes or gate.dtype not in dtypes:
        got = f"{x.dtype} {list(x.shape)} and {gate.dtype} {list(gate.shape)}"
        raise n.fail(f"needs a map and a gate of its shape, of its channels or of its pixels; gets {got}")
    return x


def _channelmean(n: Need) -> Type:
    return typed((1, *n.image("f32").shape[1:]), "f32")


# --- floats and integers ----------------------------------------------------------------------------


def _channelmax(n: Need) -> Type:
    x = n.image("f32", "u7", "s8")
    return typed((1, *x.shape[1:]), x.dtype)


def _concat(n: Need) -> Type:
    """Along the channels. Unsigned and signed integers give signed ones: their unit is the same."""
    first, dtypes = n.inputs[0], {x.dtype for x in n.inputs}
    if not (dtypes == {"f32"} or dtypes <= {"u7", "s8"}) or any(
        x.shape[1:] != first.shape[1:] for x in n.inputs
    ):
        got = ", ".join(f"{x.dtype} {list(x.shape)}" for x in n.inputs)
        raise n.fail(f"needs inputs that differ only in their channels; gets {got}"[:300])
    dtype = first.dtype if len(dtypes) == 1 else "s8"
    return typed((sum(x.shape[0] for x in n.inputs), *first.shape[1:]), dtype)


def _slice(n: Need) -> Type:
    x, start, stop = n.inputs[0], n.op.attrs["start"], n.op.attrs["stop"]
    if x.dtype not in ("f32", "u7", "s8") or not start < stop <= x.shape[0]:
        raise n.fail(f"channels {start} to {stop} are not within {x.dtype} {list(x.shape)}")
    return typed((stop - start, *x.shape[1:]), x.dtype)


def _shuffle(n: Need) -> Type:
    x = n.image("f32", "u7", "s8")
    if x.shape[0] % n.op.attrs["groups"]:
        raise n.fail(f"{x.shape[0]} channels do not divide into {n.op.attrs['groups']} groups")
    return x


def _maxpool(n: Need) -> Type:
    x = n.image("f32", "u7", "s8")
    return typed((x.shape[0], *n.pool(x)), x.dtype)


def _flatten(n: Need) -> Type:
    x = n.inputs[0]
    if x.dtype == "i32" and len(x.shape) == 3:
        raise n.fail("nothing follows a map of sums")
    return Type((x.elements,), x.dtype, x.lo, x.hi)


@dataclass(frozen=True)
class Spec:
    """The form of one op kind: its type rule, attributes (some may be left out), weights, number of inputs.

    `arity` 0 means two inputs or more.
    """

    infer: Callable[[Need], Type]
    attrs: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    arity: int = 1
    optional: tuple[str, ...] = ()


WINDOW = ("kernel", "stride")
CONV = ("stride", "padding", "groups")
PADDING = ("padding",)
SCALED = ("weight", "scale", "bias")

FLOATS: dict[str, Spec] = {
    "normalize": Spec(_normalize, ("scales", "offsets")),
    "conv2d": Spec(_conv2d, CONV, ("weight", "bias")),
    "dense": Spec(_dense, (), ("weight", "bias")),
    # weights stored as integers: multiplied as floats (w), or by activations rounded at run time (d)
    "wconv2d": Spec(_rounded_conv2d, (*CONV, "bits"), SCALED),
    "wdense": Spec(_rounded_dense, ("bits",), SCALED),
    "dconv2d": Spec(partial(_rounded_conv2d, dynamic=True), (*CONV, "bits"), SCALED),
    "ddense": Spec(partial(_rounded_dense, dynamic=True), ("bits",), SCALED),
    "relu": Spec(_pointwise),
    "relu6": Spec(_pointwise),
    "leakyrelu": Spec(_pointwise, ("slope",)),
    "prelu": Spec(_prelu, (), ("slope",)),
    "silu": Spec(_pointwise),
    "hardswish": Spec(_pointwise),
    "hardsigmoid": Spec(_pointwise),
    "sigmoid": Spec(_pointwise),
    "tanh": Spec(_pointwise),
    "avgpool": Spec(_avgpool, WINDOW, optional=PADDING),
    "globalavgpool": Spec(_globalavgpool),
    "channelmean": Spec(_channelmean),
    "add": Spec(_add, arity=2),
    "mul": Spec(lambda n: gated(n, "f32"), arity=2),
}
WEIGHT_ONLY = frozenset({"wconv2d", "wdense"})
DYNAMIC = frozenset({"dconv2d", "ddense"})
BOTH: dict[str, Spec] = {
    "maxpool": Spec(_maxpool, (*WINDOW, "padding")),
    "channelmax": Spec(_channelmax),
    "flatten": Spec(_flatten),
    "concat": Spec(_concat, arity=0),
    "slice": Spec(_slice, ("start", "stop")),
    "shuffle": Spec(_shuffle, ("groups",)),
}
