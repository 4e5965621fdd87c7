"""Scales and shifts that wait for a layer to take them in, sums, gates, activations."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from netsuke.graph import INPUT
from netsuke.import_onnx.builder import Builder, Value

# x times one of these of itself is an activation of its own
GATED = {"sigmoid": "silu", "hardsigmoid": "hardswish"}


def scaled(r: Builder, x: Value, a: np.ndarray, b: np.ndarray) -> Value:
    """a * x + b a channel: folded into the layer that gave x, or left waiting for the next."""
    if x.affine is not None:
        a, b = x.affine[0] * a, x.affine[1] * a + b
        settled = x.name != INPUT and (a == 1).all() and not b.any()
        return replace(x, affine=None if settled else (a, b))
    source = r.ops[x.name]
    if source.kind not in ("conv2d", "dense") or x.shared:
        return replace(x, affine=(a, b))
    weight, bias = (r.tensors[source.tensor(role)] for role in ("weight", "bias"))
    return r.store(x, weight=weight * a.reshape(-1, *[1] * (weight.ndim - 1)), bias=bias * a + b)


def pointwise(r: Builder, x: Value, kind: str, **attrs: Any) -> Value:
    x = r.materialized(x)
    return replace(x, name=r.emit(kind, [x], x.shape, **attrs).name, shared=False)


def add(r: Builder) -> Value:
    a, b = r.alike(r.materialized(r.value(0)), r.materialized(r.value(1)))
    if r.kind != "Add" or _form(a) != _form(b):
        raise r.fail(f"of two computed values {list(a.dims)} and {list(b.dims)}")
    return replace(a, name=r.emit("add", [a, b], a.shape).name, shared=False)


def gate(r: Builder) -> Value:
    """The product of two values: the larger one is gated by element, by channel or by pixel."""
    x, g = sorted((r.value(0), r.value(1)), key=lambda v: (prod(v.dims), len(v.shape)), reverse=True)
    (x, one), (g, other) = _factored(r, x), _factored(r, g)
    factor = one * other
    for part, whole in ((g, x), (x, g)):
        source = r.ops.get(part.name)
        swish = source is not None and source.kind in GATED and source.inputs == (whole.name,)
        if source and swish and _form(part) == _form(whole):
            if not part.shared:
                r.drop(part)
            return _times(pointwise(r, whole, GATED[source.kind]), factor)
    own = (*x.shape[:1], 1, 1)
    if g.shape == own and x.shape != own:
        (g, _) = r.alike(g, replace(x, shape=x.shape[:1]))
    by_channel = g.dims == (own[::-1] if x.nhwc else own) and len(g.shape) == 1
    by_pixel = g.shape == (1, *x.shape[1:]) and g.nhwc == x.nhwc and len(x.shape) == 3
    if not (_form(g) == _form(x) or (len(x.shape) == 3 and not x.groups and (by_channel or by_pixel))):
        raise r.fail(f"of two computed values {list(x.dims)} and {list(g.dims)}")
    return _times(replace(x, name=r.emit("mul", [x, g], x.shape).name, shared=False), factor)


def _form(x: Value) -> tuple[object, ...]:
    """Values of one form have their elements in the same places."""
    return x.shape, x.dims, x.nhwc, x.groups, None if x.order is None else id(x.order)


def _factored(r: Builder, x: Value) -> tuple[Value, float]:
    """A waiting factor that is the same for all passes through a product; anything else becomes an op."""
    if x.affine is None or x.name == INPUT or x.affine[1].any() or np.ptp(x.affine[0]):
        return r.materialized(x), 1.0
    return replace(x, affine=None), float(x.affine[0][0])


def _times(x: Value, factor: float) -> Value:
    if factor == 1:
        return x
    return replace(x, affine=(np.full(x.shape[0], factor), np.zeros(x.shape[0])))
