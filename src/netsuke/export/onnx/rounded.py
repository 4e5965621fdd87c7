"""The emitters of float ops whose weights are integers: weight-only and dynamic quantisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke.export.onnx.floats import reduced
from netsuke.export.onnx.net import FLOAT, UINT8, At, window
from netsuke.kernels import MIN_PEAK

INT4_OPSET = 21  # the first whose DequantizeLinear takes INT4
EXACT = 1 << 24  # whole numbers up to here are exact in float32


def _dequantized(at: At) -> str:
    """The weights as `DequantizeLinear`; packed by two a byte where they are narrow and the opset knows it."""
    weight = at.constant("weight", at.weight("weight"))
    if at.op.attrs["bits"] <= 4 and at.net.opset >= INT4_OPSET:
        at.net.int4.add(weight)
    return at.add("DequantizeLinear", [weight, at.constant("scale", at.weight("scale"))], "real", axis=0)


def _wconv2d(at: At) -> str:
    inputs = [*at.x, _dequantized(at), at.constant("bias", at.weight("bias"))]
    return at.add("Conv", inputs, **window(at.op.attrs))


def _wdense(at: At) -> str:
    inputs = [*at.x, _dequantized(at), at.constant("bias", at.weight("bias"))]
    return at.add("Gemm", inputs, transB=1)


def _whole(at: At) -> tuple[str, str]:
    """Activations as whole numbers of -127..127, still floats, and each image's step.

    Not `DynamicQuantizeLinear`: its one step for the whole batch would let an image change the answer to another.
    """
    axes = list(range(1, len(at.types[0].shape) + 1))
    peak = reduced(at, "ReduceMax", at.add("Abs", at.x, "magnitude"), "peak", axes)
    peak = at.add("Max", [peak, at.constant("least", np.float32(MIN_PEAK))], "reach")
    step = at.add("Div", [peak, at.constant("levels", np.float32(127))], "step")
    return at.add("Round", [at.add("Div", [*at.x, step], "ratio")], "whole"), step


def _bytes(at: At, whole: str, weight: np.ndarray) -> list[str]:
    """Operands of an integer product: uint8 with zero point 128 on both sides.

    ONNX Runtime multiplies int8 by int8 five to ten times slower, and u8 by s8 saturates on processors without VNNI.
    """
    moved = at.add("Add", [whole, at.constant("middle", np.float32(128))], "moved")
    codes = at.constant("weight", (weight.astype(np.int16) + 128).astype(np.uint8))
    return [at.add("Cast", [moved], "bytes", to=UINT8), codes, at.scalar("middle"), at.scalar("middle")]


def _rescaled(at: At, acc: str, step: str, axes: int) -> str:
    """The kernel's products in the kernel's order, so that each rounds alike.

    The factors stand one after the other: their product as one lets ONNX Runtime (1.31) fuse the layer into a
    `MatMulIntegerToFloat`, which mistakes a step an image beside a scale a channel.
    """
    scale, bias = (at.weight(role).reshape(-1, *[1] * axes) for role in ("scale", "bias"))
    y = at.add("Mul", [acc, step], "stepped")
    y = at.add("Mul", [y, at.constant("scale", scale)], "scaled")
    return at.add("Add", [y, at.constant("bias", bias)])


def _dconv2d(at: At) -> str:
    """Integers, but for grouped layers whose sums float32 holds exactly: `ConvInteger` goes group by group,
    ten times slower than `Conv` on a depthwise layer.
    """
    weight, (whole, step) = at.weight("weight"), _whole(at)
    attrs = window(at.op.attrs)
    reach = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1).max() * 127
    if attrs["group"] > 1 and reach <= EXACT:
        codes = at.add("Cast", [at.constant("weight", weight)], "wide_weight", to=FLOAT)
        acc = at.add("Conv", [whole, codes], "sum", **attrs)
    else:
        total = at.add("ConvInteger", _bytes(at, whole, weight), "total", **attrs)
        acc = at.add("Cast", [total], "sum", to=FLOAT)
    return _rescaled(at, acc, step, axes=2)


def _ddense(at: At) -> str:
    whole, step = _whole(at)
    total = at.add("MatMulInteger", _bytes(at, whole, at.weight("weight").T), "total")
    return _rescaled(at, at.add("Cast", [total], "sum", to=FLOAT), step, axes=0)


ROUNDED: dict[str, Callable[[At], str]] = {
    "wconv2d": _wconv2d,
    "wdense": _wdense,
    "dconv2d": _dconv2d,
    "ddense": _ddense,
}
