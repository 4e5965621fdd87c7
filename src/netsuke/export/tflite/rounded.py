"""The emitters of float ops whose weights are integers: weight-only and dynamic quantisation.

Weights are stored as int8, or as INT4 where they have four bits or fewer, and dequantised once, as the file is loaded.
TFLite's own "hybrid" operators would also round the activations of a weight-only layer, and XNNPACK's round those of a
dynamic one about a zero point, which the contract does not: so dynamic layers are spelled out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke.export.tflite.floats import convolution, dense, layout, turned
from netsuke.export.tflite.net import INT4_DEQUANTIZE, At, dims
from netsuke.kernels import MIN_PEAK


def _real(at: At, weight: np.ndarray, scales: np.ndarray, axis: int = 0) -> int:
    """Weights dequantised; `scales` one a place along `axis`, or one for all."""
    stored, version = at.constant("weight", weight, np.int8, scales, axis), 0
    if at.op.attrs["bits"] <= 4:
        at.net.narrow(stored, weight)
        version = INT4_DEQUANTIZE
    real = at.add("DEQUANTIZE", [stored], weight.shape, "real_weight", dtype="float32", version=version)
    at.net.tensors[real].shapeSignature = None  # no batch
    return real


def _wconv2d(at: At) -> int:
    weight, axis = layout(at, at.weight("weight"))
    real = _real(at, weight, at.weight("scale"), axis)
    return convolution(at, real, at.constant("bias", at.weight("bias")), axis)


def _wdense(at: At) -> int:
    real = _real(at, turned(at), at.weight("scale"))
    return dense(at, at.x[0], real, at.constant("bias", at.weight("bias")))


def _whole(at: At) -> tuple[int, int]:
    """Activations as whole numbers of -127..127, still floats, and each image's step."""
    x, rank = at.x[0], len(at.types[0].shape)
    shape, one = dims(at.types[0]), (1,) * (rank + 1)
    axes = at.constant("axes", list(range(1, rank + 1)), np.int32)
    size = at.add("ABS", [x], shape, "magnitude", "AbsOptions")
    peak = at.add("REDUCE_MAX", [size, axes], one, "peak", "ReducerOptions", keepDims=True)
    peak = at.add("MAXIMUM", [peak, at.constant("least", MIN_PEAK)], one, "reach", "MaximumMinimumOptions")
    step = at.add("DIV", [peak, at.constant("levels", 127)], one, "step", "DivOptions")
    ratio = at.add("DIV", [x, step], shape, "ratio", "DivOptions")
    return at.add("ROUND", [ratio], shape, "whole"), step


def _rescaled(at: At, acc: int, step: int, fused: int) -> int:
    y = at.add("MUL", [acc, step], role="stepped", options="MulOptions")
    y = at.add("MUL", [y, at.constant("scale", at.weight("scale"))], role="scaled", options="MulOptions")
    return at.add(
        "ADD",
        [y, at.constant("bias", at.weight("bias"))],
        options="AddOptions",
        fusedActivationFunction=fused,
    )


def _dconv2d(at: At) -> int:
    fused, at.fused = at.fused, 0
    (whole, step), source = _whole(at), at.x
    at.x = [whole]
    weight, axis = layout(at, at.weight("weight"))
    real = _real(at, weight, np.ones(1))
    none = at.constant("none", np.zeros(at.type.shape[0]))
    acc = convolution(at, real, none, axis, "sum")
    at.x = source
    return _rescaled(at, acc, step, fused)


def _ddense(at: At) -> int:
    fused, at.fused = at.fused, 0
    whole, step = _whole(at)
    real = _real(at, turned(at), np.ones(1))
    acc = dense(at, whole, real, at.constant("none", np.zeros(at.type.shape[0])), "sum")
    return _rescaled(at, acc, step, fused)


ROUNDED: dict[str, Callable[[At], int]] = {
    "wconv2d": _wconv2d,
    "wdense": _wdense,
    "dconv2d": _dconv2d,
    "ddense": _ddense,
}
