"""The emitters of float ops. Maps are [n, H, W, C] here, so weights are turned and channels are the last axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netsuke.export.tflite.net import GROUPED_CONV_2D, At, dims
from netsuke.graph import Type

DENSE = frozenset({"dense", "wdense", "ddense", "qdense", "qlogits"})
LOWEST = float(np.finfo(np.float32).min)  # pads a maximum: below every activation


# --- windows ----------------------------------------------------------------------------------------


def _is_same(size: int, kernel: int, stride: int, before: int, after: int) -> bool:
    """Whether TensorFlow's SAME pads one axis by just this much."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    fits = (size + before + after - kernel) // stride + 1 == out
    return fits and (before, after) == (total // 2, total - total // 2)


def _padded(at: At, kernel: Sequence[int], value: float = 0.0, *, same: bool = True) -> tuple[int, int]:
    """The input, and the padding mode in which a window then gives what the op says.

    VALID where there is no padding; SAME where it comes to the same, unless `same` is False; else a pad first.
    """
    mode, x = at.net.schema.Padding, at.types[0]
    sides = tuple(at.op.attrs.get("padding", (0, 0, 0, 0)))
    if not any(sides):
        return at.x[0], mode.VALID
    top, left, bottom, right = sides
    rows, columns = zip(x.shape[1:], kernel, at.op.attrs["stride"], strict=True)
    if same and _is_same(*rows, top, bottom) and _is_same(*columns, left, right):
        return at.x[0], mode.SAME
    pads = at.constant("pads", [[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    shape = (1, x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[0])
    if value:
        scale = at.net.scales.get(at.x[0])
        low = at.constant("low", value) if scale is None else at.constant("low", -128, np.int8, scale)
        return at.add("PADV2", [at.x[0], pads, low], shape, "padded", "PadV2Options"), mode.VALID
    return at.add("PAD", [at.x[0], pads], shape, "padded", "PadOptions"), mode.VALID


def _conv2d(at: At) -> int:
    weight, axis = layout(at, at.weight("weight"))
    inputs = at.constant("weight", weight), at.constant("bias", at.weight("bias"))
    return convolution(at, *inputs, axis)


def layout(at: At, weight: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights [O, I/groups, r, c] as [O, r, c, I/groups] or, with one group a channel, [1, r, c, O]; the axis of O."""
    if at.op.attrs["groups"] == at.types[0].shape[0] > 1:
        return weight.transpose(1, 2, 3, 0), 3
    return weight.transpose(0, 2, 3, 1), 0


def convolution(at: At, weight: int, bias: int, axis: int, role: str = "out", **form: Any) -> int:
    """The operator, of weights in the layout whose `axis` holds the outputs; `form` goes to its output."""
    groups, (high, wide) = at.op.attrs["groups"], at.op.attrs["stride"]
    shape = at.net.tensors[weight].shape
    x, padding = _padded(at, shape[1:3])
    window = {"padding": padding, "strideH": high, "strideW": wide, "fusedActivationFunction": at.fused}
    if axis:
        return at.add(
            "DEPTHWISE_CONV_2D", [x, weight, bias], None, role, "DepthwiseConv2DOptions", **form, **window,
            depthMultiplier=shape[3] // groups,
        )  # fmt: skip
    version = GROUPED_CONV_2D if groups > 1 else 0
    return at.add(
        "CONV_2D", [x, weight, bias], None, role, "Conv2DOptions", version=version, **form, **window
    )


def _pool(at: At, kind: str, x: int, padding: int) -> int:
    (rows, columns), (high, wide) = at.op.attrs["kernel"], at.op.attrs["stride"]
    return at.add(
        kind, [x], options="Pool2DOptions", padding=padding, strideH=high, strideW=wide,
        filterHeight=rows, filterWidth=columns, fusedActivationFunction=at.fused,
    )  # fmt: skip


def _maxpool(at: At) -> int:
    return _pool(at, "MAX_POOL_2D", *_padded(at, at.op.attrs["kernel"], LOWEST))


def _avgpool(at: At) -> int:
    # SAME would leave the padding out of the average.
    return _pool(at, "AVERAGE_POOL_2D", *_padded(at, at.op.attrs["kernel"], same=False))


def _reduce(at: At, kind: str, axes: list[int], *, keep: bool) -> int:
    inputs = [at.x[0], at.constant("axes", axes, np.int32)]
    return at.add(kind, inputs, options="ReducerOptions", keepDims=keep)


# --- layers and shapes ------------------------------------------------------------------------------


def _normalize(at: At) -> int:
    scales, offsets = at.op.attrs["scales"], at.op.attrs["offsets"]
    x = at.cast(at.x[0], "float32", "float")
    x = at.add("MUL", [x, at.constant("scales", scales)], role="scaled", options="MulOptions")
    if not any(offsets):
        return x
    return at.add("ADD", [x, at.constant("offsets", offsets)], options="AddOptions")


def _flatten(at: At) -> int:
    """In the order of channels, rows, columns; where only dense layers read it, their weights are turned instead."""
    x, type_ = at.x[0], at.types[0]
    if _mixed(type_):
        users = at.net.users[at.op.name]
        if users and all(op.kind in DENSE for op in users):
            at.net.maps[at.op.name] = type_
        else:
            order = at.constant("order", [0, 3, 1, 2], np.int32)
            x = at.add("TRANSPOSE", [x, order], (1, *type_.shape), "turned", "TransposeOptions")
    return reshape(at, x, (-1, type_.elements))


def _mixed(type_: Type) -> bool:
    """Whether the order of channels and pixels makes a difference."""
    return len(type_.shape) == 3 and type_.shape[0] > 1 and type_.shape[1] * type_.shape[2] > 1


def reshape(at: At, x: int, shape: tuple[int, ...], role: str = "out") -> int:
    """To [n, …], written -1: the batch is whatever is left."""
    inputs = [x, at.constant(f"{role}_shape", shape, np.int32)]
    return at.add("RESHAPE", inputs, (1, *shape[1:]), role, "ReshapeOptions", newShape=list(shape))


def turned(at: At) -> np.ndarray:
    """The weight of a dense layer, its columns in the order in which the input comes."""
    weight, map_ = at.weight("weight"), at.net.maps.get(at.op.inputs[0])
    if map_:
        weight = weight.reshape(-1, *map_.shape).transpose(0, 2, 3, 1).reshape(weight.shape)
    return weight


def _dense(at: At) -> int:
    return dense(at, at.x[0], at.constant("weight", turned(at)), at.constant("bias", at.weight("bias")))


def dense(at: At, x: int, weight: int, bias: int, role: str = "out") -> int:
    return at.add(
        "FULLY_CONNECTED", [x, weight, bias], None, role, "FullyConnectedOptions",
        fusedActivationFunction=at.fused,
    )  # fmt: skip


def _binary(kind: str, options: str) -> Callable[[At], int]:
    return lambda at: at.add(kind, at.x, options=options, fusedActivationFunction=at.fused)


def broadcast(at: At) -> int:
    """A gate of one factor a channel, made a map of one pixel; any other gate as it is."""
    x, gate = at.types
    if len(gate.shape) == len(x.shape):
        return at.x[1]
    return reshape(at, at.x[1], (-1, 1, 1, gate.shape[0]), "gate")


def _mul(at: At) -> int:
    return at.add("MUL", [at.x[0], broadcast(at)], options="MulOptions", fusedActivationFunction=at.fused)


def _slice(at: At) -> int:
    rank, (start, stop) = len(dims(at.type)), (at.op.attrs["start"], at.op.attrs["stop"])
    begin = at.constant("begin", [0] * (rank - 1) + [start], np.int32)
    size = at.constant("size", [-1] * (rank - 1) + [stop - start], np.int32)
    return at.add("SLICE", [at.x[0], begin, size], options="SliceOptions")


def _shuffle(at: At) -> int:
    channels, high, wide = at.type.shape
    groups = at.op.attrs["groups"]
    x = reshape(at, at.x[0], (-1, groups, channels // groups), "grouped")
    order = at.constant("order", [0, 2, 1], np.int32)
    x = at.add("TRANSPOSE", [x, order], (1, channels // groups, groups), "turned", "TransposeOptions")
    return reshape(at, x, (-1, high, wide, channels))


# --- activations ------------------------------------------------------------------------------------


def _unary(kind: str, options: str = "") -> Callable[[At], int]:
    return lambda at: at.add(kind, at.x, options=options)


def _leakyrelu(at: At) -> int:
    return at.add("LEAKY_RELU", at.x, options="LeakyReluOptions", alpha=float(at.op.attrs["slope"]))


def _prelu(at: At) -> int:
    slope = at.weight("slope")
    return at.add(
        "PRELU", [at.x[0], at.constant("slope", slope.reshape((1,) * (len(at.type.shape) - 1) + (-1,)))]
    )


def _silu(at: At) -> int:
    return at.add("MUL", [at.x[0], at.add("LOGISTIC", at.x, role="gate")], options="MulOptions")


def _hardsigmoid(at: At) -> int:
    relu6 = at.net.schema.ActivationFunctionType.RELU6
    moved = at.add("ADD", [at.x[0], at.constant("three", 3.0)], role="moved", options="AddOptions",
                   fusedActivationFunction=relu6)  # fmt: skip
    return at.add("MUL", [moved, at.constant("sixth", 1 / 6)], options="MulOptions")


FLOATS: dict[str, Callable[[At], int]] = {
    "normalize": _normalize,
    "conv2d": _conv2d,
    "dense": _dense,
    "relu": _unary("RELU"),
    "relu6": _unary("RELU6"),
    "leakyrelu": _leakyrelu,
    "prelu": _prelu,
    "silu": _silu,
    "hardswish": _unary("HARD_SWISH", "HardSwishOptions"),
    "hardsigmoid": _hardsigmoid,
    "sigmoid": _unary("LOGISTIC"),
    "tanh": _unary("TANH"),
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "globalavgpool": lambda at: _reduce(at, "MEAN", [1, 2], keep=False),
    "channelmean": lambda at: _reduce(at, "MEAN", [3], keep=True),
    "channelmax": lambda at: _reduce(at, "REDUCE_MAX", [3], keep=True),
    "add": _binary("ADD", "AddOptions"),
    "mul": _mul,
    "slice": _slice,
    "shuffle": _shuffle,
    "flatten": _flatten,
}
FUSES = frozenset(
    {"conv2d", "dense", "wconv2d", "wdense", "dconv2d", "ddense", "maxpool", "avgpool", "add", "mul"}
)  # take a ReLU along
