"""The emitters of float ops, and of those that take floats and integers alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netsuke.export.onnx.net import FLOAT, At, window


def _unary(kind: str, **attrs: Any) -> Callable[[At], str]:
    return lambda at: at.add(kind, at.x, **attrs)


def _normalize(at: At) -> str:
    scales, offsets = (np.asarray(at.op.attrs[k], np.float32)[:, None, None] for k in ("scales", "offsets"))
    x = at.add("Cast", at.x, "float", to=FLOAT)
    x = at.add("Mul", [x, at.constant("scales", scales)], "scaled")
    return at.add("Add", [x, at.constant("offsets", offsets)])


def _conv2d(at: At) -> str:
    weights = [at.constant(role, at.weight(role)) for role in ("weight", "bias")]
    return at.add("Conv", [*at.x, *weights], **window(at.op.attrs))


def _dense(at: At) -> str:
    weights = [at.constant(role, at.weight(role)) for role in ("weight", "bias")]
    return at.add("Gemm", [*at.x, *weights], transB=1)


def _avgpool(at: At) -> str:
    return at.add("AveragePool", at.x, **window(at.op.attrs), count_include_pad=1)


def _prelu(at: At) -> str:
    slope = at.weight("slope").reshape(-1, *[1] * (len(at.types[0].shape) - 1))
    return at.add("PRelu", [*at.x, at.constant("slope", slope)])


def _silu(at: At) -> str:
    return at.add("Mul", [*at.x, at.add("Sigmoid", at.x, "gate")])


def _hardsigmoid(at: At, role: str = "out") -> str:
    return at.add("HardSigmoid", at.x, role, alpha=1 / 6, beta=0.5)


def broadcast(at: At, gate: str, of: int = 1) -> str:
    """A gate of one value a channel, made a map of one pixel; any other gate as it is."""
    if len(at.types[of].shape) == len(at.types[0].shape):
        return gate
    shape = at.constant("shape", np.array([0, -1, 1, 1], np.int64))
    return at.add("Reshape", [gate, shape], "gate")


def reduced(at: At, kind: str, x: str, role: str = "out", axes: Sequence[int] = (1,)) -> str:
    """A reduction over `axes`, by default the channels; since opset 18 they are an input."""
    if at.net.opset < 18:
        return at.add(kind, [x], role, axes=list(axes), keepdims=1)
    return at.add(kind, [x, at.constant("axes", np.array(axes, np.int64))], role, keepdims=1)


def _slice(at: At) -> str:
    ends = [at.constant(key, np.array([at.op.attrs[key]], np.int64)) for key in ("start", "stop")]
    return at.add("Slice", [*at.x, *ends, at.constant("axes", np.array([1], np.int64))])


def _shuffle(at: At) -> str:
    channels, *sides = at.types[0].shape
    groups = at.op.attrs["groups"]
    cut = at.constant("cut", np.array([0, groups, channels // groups, *sides], np.int64))
    whole = at.constant("whole", np.array([0, channels, *sides], np.int64))
    swapped = at.add(
        "Transpose", [at.add("Reshape", [*at.x, cut], "groups")], "swapped", perm=[0, 2, 1, 3, 4]
    )
    return at.add("Reshape", [swapped, whole])


def _relu6(at: At) -> str:
    return at.add("Clip", [*at.x, at.constant("min", np.float32(0)), at.constant("max", np.float32(6))])


def _globalavgpool(at: At) -> str:
    return at.add("Flatten", [at.add("GlobalAveragePool", at.x, "map")], axis=1)


FLOATS: dict[str, Callable[[At], str]] = {
    "normalize": _normalize,
    "conv2d": _conv2d,
    "dense": _dense,
    "relu": _unary("Relu"),
    "relu6": _relu6,
    "sigmoid": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "leakyrelu": lambda at: at.add("LeakyRelu", at.x, alpha=at.op.attrs["slope"]),
    "prelu": _prelu,
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda at: at.add("Mul", [*at.x, _hardsigmoid(at, "gate")]),
    "avgpool": _avgpool,
    "channelmean": lambda at: reduced(at, "ReduceMean", at.x[0]),
    "mul": lambda at: at.add("Mul", [at.x[0], broadcast(at, at.x[1])]),
    "globalavgpool": _globalavgpool,
    "add": _unary("Add"),
    # both
    "maxpool": lambda at: at.add("MaxPool", at.x, **window(at.op.attrs)),
    "flatten": _unary("Flatten", axis=1),
    "channelmax": lambda at: reduced(at, "ReduceMax", at.x[0]),
    "concat": lambda at: at.add("Concat", at.x, axis=1),
    "slice": _slice,
    "shuffle": _shuffle,
}
