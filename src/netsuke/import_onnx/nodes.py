"""One reader a kind of node: what a node of the file becomes in the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from netsuke.graph import INPUT
from netsuke.import_onnx.arithmetic import add, gate, pointwise, scaled
from netsuke.import_onnx.builder import Builder, Value, reorder
from netsuke.import_onnx.joints import concat, cut, split
from netsuke.import_onnx.qdq import LINEAR
from netsuke.import_onnx.windows import avgpool, axes, conv, globalpool, maxpool, reduction


def _dense(r: Builder, weight: np.ndarray, bias: np.ndarray | None, axis: int = 0) -> Value:
    """`weight` [outputs, inputs], the outputs along `axis` in the file; arithmetic that waits in the input goes in."""
    x = r.value()
    ends = (1, 1) if r.kind == "Conv" else ()
    x = r.flattened(x) if len(x.dims) == 1 else x
    if x.dims[1:] != ends or weight.ndim != 2 or weight.shape[1] != x.dims[0]:
        raise r.fail(f"of a value of the shape {list(x.dims)} and a weight {list(weight.shape)}")
    weight = reorder(weight.astype(np.float64), x)
    bias = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    if x.affine is not None:
        weight, bias = weight * x.affine[0], bias + weight @ x.affine[1]
    y = r.store(r.emit("dense", [x], weight.shape[:1]), weight=weight, bias=bias)
    r.mark(y, r.grid(1, axis))
    return replace(y, dims=(*y.shape, *ends))


def _pixel(r: Builder) -> bool:
    """Whether a 1x1 convolution reads one pixel: the average of a map, as in squeeze-and-excitation."""
    x, weight = r.value(), r.weight(1)
    plain = not any(r.attrs.get("pads", [0])) and r.attrs.get("group", 1) == 1
    return len(x.shape) == 1 and x.dims == (*x.shape, 1, 1) and plain and weight.shape[2:] == (1, 1)


def _gemm(r: Builder) -> Value:
    if r.attrs.get("transA", 0):
        raise r.fail("with transA=1")
    weight, bias = r.weight(1), r.constant(2)
    weight = (weight if r.attrs.get("transB", 0) else weight.T) * r.attrs.get("alpha", 1.0)
    if bias is not None:
        if bias.size not in (1, len(weight)):
            raise r.fail(f"with a bias of the shape {list(bias.shape)}")
        bias = np.broadcast_to(bias.reshape(-1), len(weight)) * r.attrs.get("beta", 1.0)
    return _dense(r, weight, bias, 0 if r.attrs.get("transB", 0) else 1)


def _batchnorm(r: Builder) -> Value:
    x = r.value()
    gamma, beta, mean, variance = (r.weight(i).astype(np.float64) for i in (1, 2, 3, 4))
    if r.attrs.get("training_mode", 0):
        raise r.fail("in training mode")
    if gamma.shape != x.shape[:1] or x.nhwc or x.order is not None:
        raise r.fail(f"of {gamma.size} channels for a value of the shape {list(x.dims)}")
    a = gamma / np.sqrt(variance + r.attrs.get("epsilon", 1e-5))
    return scaled(r, x, a, beta - mean * a)


def _arithmetic(r: Builder) -> Value:
    """Add, Sub, Mul, Div: of a value and a constant, or the sum or the product of two values."""
    names = r.node.input
    computed = [name not in r.constants for name in names]
    if all(computed):
        return gate(r) if r.kind == "Mul" else add(r)
    x, constant = r.value(computed.index(True)), r.weight(computed.index(False))
    c = x.ours(constant)
    if c is None or (r.kind == "Div" and not computed[0]):
        raise r.fail(f"with a constant {list(constant.shape)} that is not one number a channel")
    one, none = np.ones_like(c), np.zeros_like(c)
    if r.kind == "Mul":
        return scaled(r, x, c, none)
    if r.kind == "Div":
        return scaled(r, x, 1 / c, none)
    if r.kind == "Add":
        return scaled(r, x, one, c)
    return scaled(r, x, one, -c) if computed[0] else scaled(r, x, -one, c)


def _pointwise(kind: str) -> Callable[[Builder], Value]:
    return lambda r: pointwise(r, r.value(), kind)


def _clip(r: Builder) -> Value:
    low, high = (r.attrs.get(name, r.constant(i)) for i, name in ((1, "min"), (2, "max")))
    if low is None or low != 0 or not (high is None or high == 6 or high > 1e30):
        raise r.fail(f"to {low}..{high}; only 0..6 and 0.. are known")
    x = r.value()
    moved = x.affine if x.name != INPUT else None
    if high == 6 and moved and (moved[0] == 1).all() and (moved[1] == 3).all():
        # relu6(x + 3), of which older exports of hard-swish and hard-sigmoid are made
        six = np.full_like(moved[0], 6)
        return replace(pointwise(r, replace(x, affine=None), "hardsigmoid"), affine=(six, 0 * six))
    return pointwise(r, x, "relu6" if high == 6 else "relu")


def _leakyrelu(r: Builder) -> Value:
    return pointwise(r, r.value(), "leakyrelu", slope=float(r.attrs.get("alpha", 0.01)))


def _prelu(r: Builder) -> Value:
    x = r.value()
    slope = x.ours(r.weight(1))
    if slope is None:
        raise r.fail(f"with a slope {list(r.weight(1).shape)} that is not one number a channel")
    return r.store(pointwise(r, x, "prelu"), slope=slope)


def _hardsigmoid(r: Builder) -> Value:
    alpha, beta = r.attrs.get("alpha", 0.2), r.attrs.get("beta", 0.5)
    if abs(alpha - 1 / 6) > 1e-5 or beta != 0.5:
        raise r.fail(f"with alpha {alpha:g} and beta {beta:g}; only 1/6 and 1/2 are known")
    return pointwise(r, r.value(), "hardsigmoid")


def _same(r: Builder) -> Value:
    return r.value()


def _cast(r: Builder) -> Value:
    if r.attrs["to"] not in (1, 10, 11, 16):  # float32, float16, double, bfloat16
        raise r.fail("to another type than float")
    return r.value()


def _softmax(r: Builder) -> Value:
    x = r.value()
    axis = r.attrs.get("axis", -1)
    if r.node.output[0] not in r.last or len(x.dims) != 1 or axis not in (1, -1):
        raise r.fail("elsewhere than at the end")
    return x


def _reshaped(r: Builder, x: Value, dims: tuple[int, ...]) -> Value:
    """A new form of the same elements: a map flattened or in groups, or axes of one element that come, go and move."""
    if x.groups and dims != x.dims:  # a map again
        x = replace(x, dims=x.shape, groups=0)
    if len(dims) == 1:
        return r.flattened(x) if len(x.dims) > 1 else x
    if dims == x.dims:
        return x
    pixels = (x.shape[1:], (prod(x.shape[1:]),))  # as a map, or in a row
    if len(x.shape) == 3 and x.dims == x.shape and prod(dims[:2]) == x.shape[0] and dims[2:] in pixels:
        return replace(x, dims=dims, groups=dims[0])
    wide = [[d for d in form if d != 1] for form in (x.shape, dims)]
    if wide[0] != wide[1] or (len(x.shape) == 3 and x.shape[0] > 1):
        raise r.fail(f"from {list(x.dims)} to {list(dims)}; import knows flattening and moving unit axes")
    return replace(x, dims=dims, nhwc=len(x.shape) == len(dims) == 3 and dims != x.shape)


def _reshape(r: Builder) -> Value:
    x = r.value()
    target = [int(v) for v in r.weight(1)]
    target = [(1, *x.dims)[i] if v == 0 and i <= len(x.dims) else v for i, v in enumerate(target)]
    rest = prod(v for v in target if v != -1)
    size = prod(x.dims)
    # The batch is symbolic: [1, F] (as folded from its shape), [-1, F] and [n, -1] all mean n rows.
    if target.count(-1) == 1 and target[0] != -1:
        target[target.index(-1)] = size // max(rest // max(target[0], 1), 1)
    if len(target) < 2 or prod(target[1:]) != size:
        raise r.fail(f"from {list(x.dims)} to {target[1:]}")
    return _reshaped(r, x, tuple(target[1:]))


def _flatten(r: Builder) -> Value:
    x = r.value()
    if r.attrs.get("axis", 1) not in (1, -len(x.dims)):
        raise r.fail(f"with axis {r.attrs['axis']}")
    return _reshaped(r, x, (prod(x.dims),))


def _squeeze(r: Builder) -> Value:
    x = r.value()
    gone = {axis % (len(x.dims) + 1) for axis in axes(r)}
    if 0 in gone:
        raise r.fail("of the batch axis")
    return _reshaped(r, x, tuple(d for i, d in enumerate(x.dims, 1) if i not in gone))


def _unsqueeze(r: Builder) -> Value:
    x, new = r.value(), axes(r)
    dims = list(x.dims)
    for axis in sorted(axis % (len(dims) + len(new) + 1) for axis in new):
        if axis == 0:
            raise r.fail("of the batch axis")
        dims.insert(axis - 1, 1)
    return _reshaped(r, x, tuple(dims))


def _transpose(r: Builder) -> Value:
    """Between N, C, H, W and N, H, W, C, which moves no data of ours, or of groups and the channels in them."""
    x, perm = r.value(), list(r.attrs.get("perm", []))
    if len(x.dims) == 3 and len(x.shape) == 3:
        if x.nhwc and perm == [0, 3, 1, 2]:
            return replace(x, nhwc=False, dims=x.shape)
        if not x.nhwc and perm == [0, 2, 3, 1]:
            return replace(x, nhwc=True, dims=(*x.shape[1:], x.shape[0]))
    if x.groups and perm == [0, 2, 1, *range(3, len(x.dims) + 1)]:  # a channel shuffle
        x = r.materialized(x)
        y = r.emit("shuffle", [x], x.shape, groups=x.groups)
        return replace(y, dims=(x.dims[1], x.dims[0], *x.dims[2:]), groups=x.dims[1])
    raise r.fail(f"by {perm} of a value of the shape {list(x.dims)}")


READ: dict[str, Callable[[Builder], Value | list[Value | None]]] = {
    "Add": _arithmetic,
    "AveragePool": avgpool,
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": concat,
    "Conv": lambda r: _dense(r, r.weight(1)[:, :, 0, 0], r.constant(2)) if _pixel(r) else conv(r),
    "Div": _arithmetic,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": globalpool,
    "GlobalMaxPool": globalpool,
    "HardSigmoid": _hardsigmoid,
    "HardSwish": _pointwise("hardswish"),
    "Identity": _same,
    "LeakyRelu": _leakyrelu,
    "LogSoftmax": _softmax,
    "MatMul": lambda r: _dense(r, r.weight(1).T, None, 1),
    "MaxPool": maxpool,
    "Mul": _arithmetic,
    "PRelu": _prelu,
    "ReduceMax": reduction,
    "ReduceMean": reduction,
    "Relu": _pointwise("relu"),
    "Reshape": _reshape,
    "Sigmoid": _pointwise("sigmoid"),
    "Slice": cut,
    "Softmax": _softmax,
    "Split": split,
    "Squeeze": _squeeze,
    "Sub": _arithmetic,
    "Tanh": _pointwise("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    **LINEAR,
}
