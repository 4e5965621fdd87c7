"""The emitters of float ops, and of those that take floats and integers alike."""

from __future__ import annotations

from collections.abc import Callable
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
    "avgpool": lambda at: at.add("AveragePool", at.x, **window(at.op.attrs)),
    "globalavgpool": _globalavgpool,
    "add": _unary("Add"),
    # both
    "maxpool": lambda at: at.add("MaxPool", at.x, **window(at.op.attrs)),
    "flatten": _unary("Flatten", axis=1),
}
