"""One reader a kind of node: what a node of the file becomes in the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from netsuke.import_onnx.builder import Builder, Value, reorder


def _padding(r: Builder, x: Value, kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """[top, left, bottom, right], with auto_pad resolved."""
    auto = r.attrs.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        return list(r.attrs.get("pads", [0, 0, 0, 0]))
    if auto == "VALID":
        return [0, 0, 0, 0]
    first, last = [], []
    for size, k, s in zip(x.shape[1:], kernel, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        small, large = total // 2, total - total // 2
        first.append(small if auto == "SAME_UPPER" else large)
        last.append(large if auto == "SAME_UPPER" else small)
    return [*first, *last]


def _window(r: Builder, kernel: Sequence[int]) -> tuple[Value, list[int], list[int], tuple[int, int]]:
    """Input map, stride, padding and the size of the result."""
    x = r.image()
    stride = list(r.attrs.get("strides", [1, 1]))
    if any(d != 1 for d in r.attrs.get("dilations", [1, 1])):
        raise r.fail(f"with dilations {list(r.attrs['dilations'])}; only 1 is known")
    if len(kernel) != 2 or len(stride) != 2:
        raise r.fail("over another number of axes than two")
    padding = _padding(r, x, kernel, stride)
    if len(padding) != 4 or min(padding) < 0:
        raise r.fail(f"with the padding {padding}")
    spans = [x.shape[1 + i] + padding[i] + padding[2 + i] - kernel[i] for i in (0, 1)]
    if min(spans) < 0:
        raise r.fail(f"with a {kernel[0]}x{kernel[1]} window on a {x.shape[1]}x{x.shape[2]} map")
    if r.attrs.get("ceil_mode", 0) and any(span % s for span, s in zip(spans, stride, strict=True)):
        raise r.fail("with ceil_mode=1")
    return x, stride, padding, (spans[0] // stride[0] + 1, spans[1] // stride[1] + 1)


def _conv(r: Builder) -> Value:
    weight = r.weight(1)
    if weight.ndim != 4:
        raise r.fail("over another number of axes than two")
    x, stride, padding, size = _window(r, weight.shape[2:])
    groups, bias = r.attrs.get("group", 1), r.constant(2)
    y = r.emit("conv2d", [x], (len(weight), *size), stride=stride, padding=padding, groups=groups)
    return r.store(y, weight=weight, bias=np.zeros(len(weight)) if bias is None else bias)


def _maxpool(r: Builder) -> Value:
    kernel = list(r.attrs["kernel_shape"])
    x, stride, padding, size = _window(r, kernel)
    return r.emit("maxpool", [x], (x.shape[0], *size), kernel=kernel, stride=stride, padding=padding)


def _avgpool(r: Builder) -> Value:
    kernel = list(r.attrs["kernel_shape"])
    x, stride, padding, size = _window(r, kernel)
    if any(padding):
        raise r.fail(f"with padding {padding}; only 0 is known")
    return r.emit("avgpool", [x], (x.shape[0], *size), kernel=kernel, stride=stride)


def _globalavgpool(r: Builder) -> Value:
    x = r.image()
    return replace(r.emit("globalavgpool", [x], x.shape[:1]), dims=(x.shape[0], 1, 1))


def _reducemean(r: Builder) -> Value:
    x = r.materialized(r.value())
    over = sorted(axis % (len(x.dims) + 1) for axis in _axes(r))
    if len(x.shape) != 3 or len(x.dims) != 3 or over != ([1, 2] if x.nhwc else [2, 3]):
        raise r.fail("over other axes than rows and columns")
    y = r.emit("globalavgpool", [x], x.shape[:1])
    kept = (1, 1, x.shape[0]) if x.nhwc else (x.shape[0], 1, 1)
    return replace(y, dims=kept) if r.attrs.get("keepdims", 1) else y


def _dense(r: Builder, weight: np.ndarray, bias: np.ndarray | None) -> Value:
    """`weight` [outputs, inputs]; arithmetic that waits in the input goes into it."""
    x = r.value()
    x = r.flattened(x) if len(x.dims) == 1 else x
    if len(x.dims) != 1 or weight.ndim != 2 or weight.shape[1] != x.dims[0]:
        raise r.fail(f"of a value of the shape {list(x.dims)} and a weight {list(weight.shape)}")
    weight = reorder(weight.astype(np.float64), x)
    bias = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    if x.affine is not None:
        weight, bias = weight * x.affine[0], bias + weight @ x.affine[1]
    return r.store(r.emit("dense", [x], weight.shape[:1]), weight=weight, bias=bias)


def _gemm(r: Builder) -> Value:
    if r.attrs.get("transA", 0):
        raise r.fail("with transA=1")
    weight, bias = r.weight(1), r.constant(2)
    weight = (weight if r.attrs.get("transB", 0) else weight.T) * r.attrs.get("alpha", 1.0)
    if bias is not None:
        if bias.size not in (1, len(weight)):
            raise r.fail(f"with a bias of the shape {list(bias.shape)}")
        bias = np.broadcast_to(bias.reshape(-1), len(weight)) * r.attrs.get("beta", 1.0)
    return _dense(r, weight, bias)


def _scaled(r: Builder, x: Value, a: np.ndarray, b: np.ndarray) -> Value:
    """a * x + b a channel: folded into the layer that gave x, or left waiting for the next."""
    if x.affine is not None:
        return replace(x, affine=(x.affine[0] * a, x.affine[1] * a + b))
    source = r.ops[x.name]
    if source.kind not in ("conv2d", "dense") or x.shared:
        return replace(x, affine=(a, b))
    weight, bias = (r.tensors[source.tensor(role)] for role in ("weight", "bias"))
    return r.store(x, weight=weight * a.reshape(-1, *[1] * (weight.ndim - 1)), bias=bias * a + b)


def _batchnorm(r: Builder) -> Value:
    x = r.value()
    gamma, beta, mean, variance = (r.weight(i).astype(np.float64) for i in (1, 2, 3, 4))
    if r.attrs.get("training_mode", 0):
        raise r.fail("in training mode")
    if gamma.shape != x.shape[:1] or x.nhwc or x.order is not None:
        raise r.fail(f"of {gamma.size} channels for a value of the shape {list(x.dims)}")
    a = gamma / np.sqrt(variance + r.attrs.get("epsilon", 1e-5))
    return _scaled(r, x, a, beta - mean * a)


def _arithmetic(r: Builder) -> Value:
    """Add, Sub, Mul, Div: of a value and a constant, or the sum of two values."""
    names = r.node.input
    computed = [name not in r.constants for name in names]
    if all(computed):
        return _add(r)
    x, constant = r.value(computed.index(True)), r.weight(computed.index(False))
    c = x.ours(constant)
    if c is None or (r.kind == "Div" and not computed[0]):
        raise r.fail(f"with a constant {list(constant.shape)} that is not one number a channel")
    one, none = np.ones_like(c), np.zeros_like(c)
    if r.kind == "Mul":
        return _scaled(r, x, c, none)
    if r.kind == "Div":
        return _scaled(r, x, 1 / c, none)
    if r.kind == "Add":
        return _scaled(r, x, one, c)
    return _scaled(r, x, one, -c) if computed[0] else _scaled(r, x, -one, c)


def _add(r: Builder) -> Value:
    a, b = r.materialized(r.value(0)), r.materialized(r.value(1))
    same = a.shape == b.shape and a.dims == b.dims and a.nhwc == b.nhwc and a.order is b.order
    if r.kind != "Add" or not same:
        raise r.fail(f"of two computed values {list(a.dims)} and {list(b.dims)}")
    return replace(a, name=r.emit("add", [a, b], a.shape).name, shared=False)


def _pointwise(kind: str) -> Callable[[Builder], Value]:
    def read(r: Builder) -> Value:
        x = r.materialized(r.value())
        return replace(x, name=r.emit(kind, [x], x.shape).name, shared=False)

    return read


def _clip(r: Builder) -> Value:
    low, high = (r.attrs.get(name, r.constant(i)) for i, name in ((1, "min"), (2, "max")))
    if low is not None and low == 0 and (high is None or high == 6 or high > 1e30):
        return _pointwise("relu6" if high == 6 else "relu")(r)
    raise r.fail(f"to {low}..{high}; only 0..6 and 0.. are known")


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
    """A new form of the same elements: a map flattened, or axes of one element that come, go and move."""
    if len(dims) == 1:
        return r.flattened(x) if len(x.dims) > 1 else x
    if dims == x.dims:
        return x
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


def _axes(r: Builder) -> list[int]:
    """The axes of Squeeze, Unsqueeze or ReduceMean: an attribute, or from opset 13 or 18 on an input."""
    axes = r.constant(1) if len(r.node.input) > 1 else r.attrs.get("axes")
    if axes is None:
        raise r.fail("without axes")
    return [int(axis) for axis in np.atleast_1d(axes)]


def _squeeze(r: Builder) -> Value:
    x = r.value()
    gone = {axis % (len(x.dims) + 1) for axis in _axes(r)}
    if 0 in gone:
        raise r.fail("of the batch axis")
    return _reshaped(r, x, tuple(d for i, d in enumerate(x.dims, 1) if i not in gone))


def _unsqueeze(r: Builder) -> Value:
    x, axes = r.value(), _axes(r)
    dims = list(x.dims)
    for axis in sorted(axis % (len(dims) + len(axes) + 1) for axis in axes):
        if axis == 0:
            raise r.fail("of the batch axis")
        dims.insert(axis - 1, 1)
    return _reshaped(r, x, tuple(dims))


def _transpose(r: Builder) -> Value:
    """Between N, C, H, W and N, H, W, C, which moves no data of ours."""
    x, perm = r.value(), list(r.attrs.get("perm", []))
    if len(x.dims) == 3 and len(x.shape) == 3:
        if x.nhwc and perm == [0, 3, 1, 2]:
            return replace(x, nhwc=False, dims=x.shape)
        if not x.nhwc and perm == [0, 2, 3, 1]:
            return replace(x, nhwc=True, dims=(*x.shape[1:], x.shape[0]))
    raise r.fail(f"by {perm} of a value of the shape {list(x.dims)}")


READ: dict[str, Callable[[Builder], Value]] = {
    "Add": _arithmetic,
    "AveragePool": _avgpool,
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _arithmetic,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _globalavgpool,
    "Identity": _same,
    "LogSoftmax": _softmax,
    "MatMul": lambda r: _dense(r, r.weight(1).T, None),
    "MaxPool": _maxpool,
    "Mul": _arithmetic,
    "ReduceMean": _reducemean,
    "Relu": _pointwise("relu"),
    "Reshape": _reshape,
    "Sigmoid": _pointwise("sigmoid"),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _arithmetic,
    "Tanh": _pointwise("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
