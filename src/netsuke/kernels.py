"""What every op means, in NumPy: the definition that each other runtime must meet.

Integer kernels are exact: sums run in float64 BLAS, which holds every int32 without rounding
(`Graph.types` has proved that no sum leaves int32), and come back as int64 before requantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from netsuke.errors import GraphError
from netsuke.graph import INPUT, Graph, Op, Tensors

Kernel = Callable[[Op, Sequence[np.ndarray], Tensors], np.ndarray]


def run(graph: Graph, tensors: Tensors, images: np.ndarray, *, batch: int = 256) -> np.ndarray:
    """Logits of raw `uint8` images [n, C, H, W]: float32 or int32 [n, classes].

    Raises GraphError where graph and weights do not fit, or the images are of another shape or type.
    """
    types = graph.types(tensors)
    if images.dtype != np.uint8 or images.shape[1:] != graph.input_shape:
        raise GraphError(
            f"needs uint8 images [n, {', '.join(map(str, graph.input_shape))}]; got {images.dtype} {list(images.shape)}"
        )
    parts = [
        activations(graph, tensors, images[i : i + batch])[graph.output] for i in range(0, len(images), batch)
    ]
    dtype = np.int32 if graph.integer else np.float32
    return np.concatenate(parts).astype(dtype) if parts else np.zeros((0, *types[graph.output].shape), dtype)


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
    top, left, bottom, right = padding
    if not any(padding):
        return x
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


def _avgpool(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return _windows(x[0], op.attrs["kernel"], op.attrs["stride"]).mean((-2, -1), dtype=np.float32)


# --- integer kernels --------------------------------------------------------------------------------


def _exact(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)  # BLAS speed, and exact below 2**53


def _requantized(op: Op, acc: np.ndarray, w: Tensors) -> np.ndarray:
    axes = (slice(None),) + (None,) * (acc.ndim - 2)
    m, s = (w[op.tensor(role)].astype(np.int64)[axes] for role in ("multiplier", "shift"))
    return requantize(acc, m, s, signed=op.attrs["signed"])


def _qconv2d(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    a = op.attrs
    acc = convolve(_exact(x[0]), _exact(w[op.tensor("weight")]), a["stride"], a["padding"], a["groups"])
    return _requantized(op, acc.astype(np.int64) + w[op.tensor("bias")][:, None, None], w)


def _sums(op: Op, x: np.ndarray, w: Tensors) -> np.ndarray:
    return (_exact(x) @ _exact(w[op.tensor("weight")]).T).astype(np.int64) + w[op.tensor("bias")]


def _qdense(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    return _requantized(op, _sums(op, x[0], w), w)


def _qavgpool(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    a = op.attrs
    total = _windows(x[0].astype(np.int64), a["kernel"], a["stride"]).sum((-2, -1))
    # The signed clip serves both element types: an average of 0..127 stays in 0..127, or is cut there.
    return requantize(total, np.int64(a["multiplier"]), np.int64(a["shift"]), signed=True)


def _qadd(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    (a, b), (ma, mb) = x, op.attrs["multipliers"]
    total = a.astype(np.int64) * ma + b.astype(np.int64) * mb
    return requantize(total, np.int64(1), np.int64(op.attrs["shift"]), signed=op.attrs["signed"])


# --- both -------------------------------------------------------------------------------------------


def _maxpool(op: Op, x: Sequence[np.ndarray], w: Tensors) -> np.ndarray:
    low = -np.inf if x[0].dtype == np.float32 else -128  # below every activation, so padding never wins
    return _windows(_pad(x[0], op.attrs["padding"], low), op.attrs["kernel"], op.attrs["stride"]).max(
        (-2, -1)
    )


KERNELS: dict[str, Kernel] = {
    "normalize": _normalize,
    "conv2d": _conv2d,
    "dense": _dense,
    "relu": lambda op, x, w: np.maximum(x[0], np.float32(0)),
    "relu6": lambda op, x, w: np.clip(x[0], np.float32(0), np.float32(6)),
    "sigmoid": lambda op, x, w: (1 / (1 + np.exp(-x[0].clip(-80, 80)))).astype(np.float32),
    "tanh": lambda op, x, w: np.tanh(x[0]),
    "avgpool": _avgpool,
    "globalavgpool": lambda op, x, w: x[0].mean((2, 3), dtype=np.float32),
    "add": lambda op, x, w: x[0] + x[1],
    "maxpool": _maxpool,
    "flatten": lambda op, x, w: x[0].reshape(len(x[0]), -1),
    "halve": lambda op, x, w: x[0].astype(np.int64) >> 1,
    "qconv2d": _qconv2d,
    "qdense": _qdense,
    "qlogits": lambda op, x, w: _sums(op, x[0], w),
    "qavgpool": _qavgpool,
    "sumpool": lambda op, x, w: x[0].astype(np.int64).sum((2, 3)),
    "qadd": _qadd,
}
