"""What every op means, in NumPy: the definition that each other runtime must meet.

Integer kernels are exact: sums run in float64 BLAS, which holds every int32 without rounding
(`Graph.types` has proved that no sum leaves int32), and come back as int64 before requantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from netsuke.errors import GraphError
from netsuke.graph import INPUT, Graph, Op, Tensors

MIN_PEAK = 1e-30  # of an image that a dynamic op rounds: one of nothing but zeros still has a step
LARGEST = 1 << 23  # elements of one activation of a batch
Kernel = Callable[[Op, Sequence[np.ndarray], Tensors], np.ndarray]


def run(graph: Graph, tensors: Tensors, images: np.ndarray, *, batch: int = 256) -> np.ndarray:
    """Logits of raw `uint8` images [n, C, H, W]: float32 or int32 [n, classes], or [n, O, H, W] where they are a map.

    At most `batch` images at a time, fewer where maps are large.

    Raises GraphError where graph and weights do not fit, or the images are of another shape or type.
    """
    types = graph.types(tensors)
    if images.dtype != np.uint8 or images.shape[1:] != graph.input_shape:
        raise GraphError(
            f"needs uint8 images [n, {', '.join(map(str, graph.input_shape))}]; got {images.dtype} {list(images.shape)}"
        )
    batch = max(1, min(batch, LARGEST // max(x.elements for x in types.values())))
    parts = [
        activations(graph, tensors, images[i : i + batch])[graph.output] for i in range(0, len(images), batch)
    ]
    dtype = np.int32 if graph.integer else np.float32
    if not parts:
        return np.zeros((0, *types[graph.output].shape), dtype)
    return np.ascontiguousarray(np.concatenate(parts), dtype)


def activations(graph: Graph, tensors: Tensors, images: np.ndarray) -> dict[str, np.ndarray]:
    """The output of every op for one batch; integer activations as int64 (input included, as given)."""
    values: dict[str, np.ndarray] = {INPUT: images}
    for op in graph.ops:
        values[op.name] = KERNELS[op.kind](op, [values[name] for name in op.inputs], tensors)
    return values


# --- shared arithmetic ------------------------------------------------------------------------------


def requantize(
    acc: np.ndarray, multiplier: np.ndarray | np.int64, shift: np.ndarray | np.int64, *, signed: bool
) -> np.ndarray:
    """int64 sums to activations: `(acc*m + (1 << (s-1))) >> s`, clipped to 0..127 or -127..127.

    Round half up (an arithmetic shift floors), as DESIGN's integer contract says. For s = 0 nothing is added.
    """
    value = (acc * multiplier + ((np.int64(1) << shift) >> 1)) >> shift
    return np.clip(value, -127 if signed else 0, 127)


def _windows(x: np.ndarray, kernel: Sequence[int], stride: Sequence[int]) -> np.ndarray:
    """[n, C, H, W] -> a view [n, C, rows, columns, kernel rows, kernel columns]."""
    view = np.lib.stride_tricks.sliding_window_view(x, tuple(kernel), axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1]]


def _pad(x: np.ndarray, padding: Sequence[int], value: float) -> np.ndarray:
    if not any(padding):
        return x
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def convolve(
    x: np.ndarray, weight: np.ndarray, stride: Sequence[int], padding: Sequence[int], groups: int
) -> np.ndarray:
    """Cross-correlation in the element type of `x`: [n, C, H, W] * [O, C/groups, r, c] -> [n, O, rows, columns]."""
    out, depth, rows, columns = weight.shape
    view = _windows(_pad(x, padding, 0), (rows, columns), stride)
    n, _, high, wide = view.shape[:4]
    if depth == 1 and out == groups:  # depthwise: a sum of shifted maps, without the copies of im2col
        total = np.zeros((n, out, high, wide), x.dtype)
        for r in range(rows):
            for c in range(columns):
                total += view[..., r, c] * weight[:, 0, r, c][:, None, None]
        return total
    maps = []
    for group in range(groups):
        part = view[:, group * depth : (group + 1) * depth].transpose(0, 2, 3, 1, 4, 5)
        kernel = weight[group * out // groups : (group + 1) * out // groups].reshape(out // groups, -1)
        maps.append(part.reshape(n, high, wide, -1) @ kernel.T.astype(x.dtype))
    return np.concatenate(maps, -1).transpose(0, 3, 1, 2)


# --- float kernels ----------------------------------------------------------------------------------


def _channels(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None, None]


def _normalize(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return x[0].astype(np.float32) * _channels(op.attrs["scales"]) + _channels(op.attrs["offsets"])


def _conv2d(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    a = op.attrs
    y = convolve(x[0], w[op.tensor("weight")], a["stride"], a["padding"], a["groups"])
    return y + w[op.tensor("bias")][:, None, None]


def _dense(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return x[0] @ w[op.tensor("weight")].T + w[op.tensor("bias")]


def dequantized(op: Op, w: Tensors) -> np.ndarray:
    """The real weights, float32, that integers and a scale a channel stand for."""
    weight = w[op.tensor("weight")]
    return weight.astype(np.float32) * w[op.tensor("scale")].reshape(-1, *[1] * (weight.ndim - 1))


def _wconv2d(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    a = op.attrs
    y = convolve(x[0], dequantized(op, w), a["stride"], a["padding"], a["groups"])
    return y + w[op.tensor("bias")][:, None, None]


def _wdense(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return x[0] @ dequantized(op, w).T + w[op.tensor("bias")]


def quantized_input(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Activations [n, ...] as whole numbers of -127..127, and the step of each image: its peak is 127 steps.

    A step an image, not one for all, so that no answer depends on its neighbours in the batch.
    """
    peak = np.abs(x).max(tuple(range(1, x.ndim)), keepdims=True)
    step = np.maximum(peak, np.float32(MIN_PEAK)) / np.float32(127)
    return np.rint(x / step), step


def _rescaled(op: Op, acc: np.ndarray, step: np.ndarray, w: Tensors) -> np.ndarray:
    """Integer sums to floats; each product rounds to float32 in this order in every runtime."""
    scale, bias = (_axes(w[op.tensor(role)], acc.ndim) for role in ("scale", "bias"))
    return acc.astype(np.float32) * step * scale + bias


def _dconv2d(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    a = op.attrs
    whole, step = quantized_input(x[0])
    acc = convolve(_exact(whole), _exact(w[op.tensor("weight")]), a["stride"], a["padding"], a["groups"])
    return _rescaled(op, acc, step, w)


def _ddense(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    whole, step = quantized_input(x[0])
    return _rescaled(op, _exact(whole) @ _exact(w[op.tensor("weight")]).T, step, w)


def _pooled(op: Op, x: np.ndarray, value: float = 0) -> np.ndarray:
    """The windows of a pool, padded with `value`: zeros count in an average."""
    return _windows(_pad(x, op.attrs.get("padding", ()), value), op.attrs["kernel"], op.attrs["stride"])


def _avgpool(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return _pooled(op, x[0]).mean((-2, -1), dtype=np.float32)


def _prelu(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return np.where(x[0] < 0, x[0] * _axes(w[op.tensor("slope")], x[0].ndim), x[0])


def _hardsigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x / np.float32(6) + np.float32(0.5), np.float32(0), np.float32(1))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x.clip(-80, 80)))).astype(np.float32)


def _mul(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    """A gate of one value a channel, or a pixel, or an element."""
    gate = x[1] if x[1].ndim == x[0].ndim else x[1][:, :, None, None]
    return x[0] * gate


# --- integer kernels --------------------------------------------------------------------------------


def _exact(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)  # BLAS speed, and exact below 2**53


def _axes(values: np.ndarray, ndim: int) -> np.ndarray:
    """Values [C] to stand beside an activation [n, C, ...] of `ndim` axes."""
    return values.reshape(-1, *[1] * (ndim - 2))


def _requantized(op: Op, acc: np.ndarray, w: Tensors) -> np.ndarray:
    m, s = (_axes(w[op.tensor(role)].astype(np.int64), acc.ndim) for role in ("multiplier", "shift"))
    return requantize(acc, m, s, signed=op.attrs["signed"])


def _qconv2d(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    a = op.attrs
    acc = convolve(_exact(x[0]), _exact(w[op.tensor("weight")]), a["stride"], a["padding"], a["groups"])
    return _requantized(op, acc.astype(np.int64) + w[op.tensor("bias")][:, None, None], w)


def _sums(op: Op, x: np.ndarray, w: Tensors) -> np.ndarray:
    return (_exact(x) @ _exact(w[op.tensor("weight")]).T).astype(np.int64) + w[op.tensor("bias")]


def _qlogits(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return np.moveaxis(
        _sums(op, np.moveaxis(x[0], 1, -1), w), -1, 1
    )  # the channels of a map are its second axis


def _qdense(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return _requantized(op, _sums(op, x[0], w), w)


def _qavgpool(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return _averaged(op, _pooled(op, x[0].astype(np.int64)).sum((-2, -1)))


def _qchannelmean(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return _averaged(op, x[0].astype(np.int64).sum(1, keepdims=True))


def _averaged(op: Op, total: np.ndarray) -> np.ndarray:
    # The signed clip serves both element types: an average of 0..127 stays in 0..127, or is cut there.
    return requantize(total, np.int64(op.attrs["multiplier"]), np.int64(op.attrs["shift"]), signed=True)


def _qmul(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    a = op.attrs
    product = _mul(op, [x[0].astype(np.int64), x[1].astype(np.int64)], w)
    return requantize(product, np.int64(a["multiplier"]), np.int64(a["shift"]), signed=a["signed"])


def _lookup(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    """Entry 0 of the table is for the lowest input: 0, or -127 where there are 255."""
    table = w[op.tensor("table")].astype(np.int64)
    place = x[0].astype(np.int64) + (127 if table.shape[-1] == 255 else 0)
    return table[place] if table.ndim == 1 else table[_axes(np.arange(len(table)), place.ndim), place]


def _qadd(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    (a, b), (ma, mb) = x, op.attrs["multipliers"]
    total = a.astype(np.int64) * ma + b.astype(np.int64) * mb
    return requantize(total, np.int64(1), np.int64(op.attrs["shift"]), signed=op.attrs["signed"])


# --- both -------------------------------------------------------------------------------------------


def _maxpool(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    low = -np.inf if x[0].dtype == np.float32 else -128  # below every activation, so padding never wins
    return _pooled(op, x[0], low).max((-2, -1))


def _shuffle(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    """Channel k of group g becomes channel g of group k (Zhang et al., ShuffleNet, 2018)."""
    n, channels, *sides = x[0].shape
    groups = op.attrs["groups"]
    return x[0].reshape(n, groups, channels // groups, *sides).swapaxes(1, 2).reshape(x[0].shape)


KERNELS: dict[str, Kernel] = {
    "normalize": _normalize,
    "conv2d": _conv2d,
    "dense": _dense,
    "wconv2d": _wconv2d,
    "wdense": _wdense,
    "dconv2d": _dconv2d,
    "ddense": _ddense,
    "relu": lambda op, x, w: np.maximum(x[0], np.float32(0)),
    "relu6": lambda op, x, w: np.clip(x[0], np.float32(0), np.float32(6)),
    "leakyrelu": lambda op, x, w: np.where(x[0] < 0, x[0] * np.float32(op.attrs["slope"]), x[0]),
    "prelu": _prelu,
    "silu": lambda op, x, w: x[0] * _sigmoid(x[0]),
    "hardswish": lambda op, x, w: x[0] * _hardsigmoid(x[0]),
    "hardsigmoid": lambda op, x, w: _hardsigmoid(x[0]),
    "sigmoid": lambda op, x, w: _sigmoid(x[0]),
    "tanh": lambda op, x, w: np.tanh(x[0]),
    "avgpool": _avgpool,
    "globalavgpool": lambda op, x, w: x[0].mean((2, 3), dtype=np.float32),
    "channelmean": lambda op, x, w: x[0].mean(1, dtype=np.float32, keepdims=True),
    "add": lambda op, x, w: x[0] + x[1],
    "mul": _mul,
    "maxpool": _maxpool,
    "channelmax": lambda op, x, w: x[0].max(1, keepdims=True),
    "concat": lambda op, x, w: np.concatenate(x, 1),
    "slice": lambda op, x, w: x[0][:, op.attrs["start"] : op.attrs["stop"]],
    "shuffle": _shuffle,
    "flatten": lambda op, x, w: x[0].reshape(len(x[0]), -1),
    "halve": lambda op, x, w: x[0].astype(np.int64) >> 1,
    "qconv2d": _qconv2d,
    "qdense": _qdense,
    "qlogits": _qlogits,
    "qavgpool": _qavgpool,
    "qchannelmean": _qchannelmean,
    "sumpool": lambda op, x, w: x[0].astype(np.int64).sum((2, 3)),
    "qadd": _qadd,
    "qmul": _qmul,
    "lookup": _lookup,
}
