"""Files of ONNX Runtime's and other static quantisers, read as the float graph they stand for.

`QuantizeLinear` and `DequantizeLinear` give no op: they say between what limits a value lies (`Builder.ranges`) and on
what grid a weight stands (`Builder.grids`). The operators of the format QOperator are first spelled as dequantise,
compute in float, quantise, which is what they mean. `integers.py` then makes the integer graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from netsuke.errors import UnsupportedOp
from netsuke.graph import INPUT
from netsuke.import_onnx.arithmetic import scaled
from netsuke.import_onnx.builder import Builder, Value

LIMITS = {np.dtype(np.uint8): (0, 255), np.dtype(np.int8): (-128, 127)}
Node = Any
# An operator of QOperator to the float one, and where its operands [value, scale, zero point] and its result's
# [scale, zero point] start among its inputs.
OPERATORS: dict[str, tuple[str, tuple[int, ...], int]] = {
    "QLinearConv": ("Conv", (0, 3), 6),
    "QLinearMatMul": ("MatMul", (0, 3), 6),
    "QGemm": ("Gemm", (0, 3), 7),
    "QLinearAdd": ("Add", (0, 3), 6),
    "QLinearMul": ("Mul", (0, 3), 6),
    "QLinearSigmoid": ("Sigmoid", (0,), 3),
    "QLinearLeakyRelu": ("LeakyRelu", (0,), 3),
    "QLinearSoftmax": ("Softmax", (0,), 3),
    "QLinearAveragePool": ("AveragePool", (0,), 3),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), 3),
}
BIAS = {"QLinearConv": 8, "QGemm": 6}  # where an int32 bias stands, in units of the product of both scales
DYNAMIC = frozenset(
    {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
)


def spelled(node: Node) -> Iterator[Node]:
    """A node of the format QOperator as nodes of QDQ; any other node as it is."""
    from onnx import helper

    if node.op_type == "QLinearConcat":
        starts, result, kind = tuple(range(2, len(node.input), 3)), 0, "Concat"
    elif node.op_type in OPERATORS:
        kind, starts, result = OPERATORS[node.op_type]
    else:
        yield node
        return
    base = node.name or node.output[0]
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attrs.pop("channels_last", 0):
        raise UnsupportedOp(
            f"node {base!r} is {node.op_type} with channels last; import takes N, C, H, W there"
        )
    attrs.pop("opset", None)
    given = list(node.input) + [""] * 12
    inputs = []
    for i in starts:
        real = f"{base}/{i}.real"
        axis = {"QLinearConv": 0, "QGemm": 0 if attrs.get("transB") else 1}.get(node.op_type, 1)
        yield helper.make_node("DequantizeLinear", given[i : i + 3], [real], name=real, axis=axis)
        inputs.append(real)
    bias = BIAS.get(node.op_type, len(given) - 1)
    if given[bias]:
        unit, real = f"{base}/unit", f"{base}/bias.real"
        yield helper.make_node("Mul", [given[1], given[4]], [unit], name=unit)
        yield helper.make_node("DequantizeLinear", [given[bias], unit], [real], name=real, axis=0)
        inputs.append(real)
    if not given[result]:  # a last QGemm may answer in floats
        yield helper.make_node(kind, inputs, list(node.output), name=base, **attrs)
        return
    real = f"{base}/real"
    yield helper.make_node(kind, inputs, [real], name=base, **attrs)
    yield helper.make_node(
        "QuantizeLinear", [real, *given[result : result + 2]], list(node.output), name=f"{base}/q"
    )


def _grid(r: Builder) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point, float64 and int64, of the node that is read."""
    scale, zero = r.weight(1).astype(np.float64), r.constant(2)
    if (scale <= 0).any() or not np.isfinite(scale).all():
        raise r.fail("with a scale that is not positive")
    return scale, np.zeros(1, np.int64) if zero is None else zero.astype(np.int64)


def constant(r: Builder) -> None:
    """DequantizeLinear of a weight: its float value, and its grid."""
    whole, (scale, zero) = r.weight(0), _grid(r)
    if r.attrs.get("block_size", 0):
        raise r.fail("in blocks; import knows one scale, or one a channel")
    if scale.size > 1:
        axis = r.attrs.get("axis", 1) % whole.ndim
        shape = [-1 if i == axis else 1 for i in range(whole.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    name = r.node.output[0]
    r.constants[name] = ((whole.astype(np.int64) - zero) * scale).astype(np.float32)
    r.grids[name] = scale


def limits(r: Builder) -> Value:
    """QuantizeLinear or DequantizeLinear of an activation: between which limits the value lies."""
    x, (scale, zero) = r.value(), _grid(r)
    stored = r.constant(2)
    dtype = np.dtype(np.uint8) if stored is None else stored.dtype
    if scale.size > 1 or dtype not in LIMITS:
        raise r.fail(f"of an activation as {dtype.name}; import knows uint8 and int8, one scale a tensor")
    if x.name == INPUT:
        if r.kind == "DequantizeLinear":  # the image itself is uint8
            channels = np.ones(x.shape[0])
            x = scaled(r, x, channels * scale.item(), channels * -(zero.item() * scale.item()))
        x = r.materialized(x)
    elif x.affine is not None:
        x = r.materialized(x)
    low, high = LIMITS[dtype]
    r.ranges[x.name] = ((low - zero.item()) * scale.item(), (high - zero.item()) * scale.item())
    return x


LINEAR: dict[str, Callable[[Builder], Value]] = {"DequantizeLinear": limits, "QuantizeLinear": limits}
