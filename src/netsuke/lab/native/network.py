"""A training step's forward pass of a `QuantGraph` on maps [C, H, W, N], with gradients from the same kernels."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from netsuke.graph import INPUT, Op
from netsuke.lab.native.library import Norm, Shape, library

if TYPE_CHECKING:
    from netsuke.lab.quantgraph import QuantGraph
    from netsuke.lab.quantlayers import QuantLayer

LANES = 16  # floats of a vector: the batch must divide into them
KINDS = frozenset({"halve", "qconv2d", "qdense", "qlogits", "maxpool", "qadd", "sumpool", "flatten"})


def usable(graph: QuantGraph, x: Tensor) -> bool:
    """Whether this batch can run here: on a CPU, by kernels that are there."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or len(x) % LANES or len(x) == 0:
        return False
    return all(_known(op, graph) for op in graph.plan) and library() is not None


def _known(op: Op, graph: QuantGraph) -> bool:
    if op.kind == "qconv2d":
        groups = op.attrs["groups"]
        weight = graph.layer(op.name).weight
        return bool(groups == 1 or (weight.shape[0] == groups and weight.shape[1] == 1))
    if op.kind == "qadd":
        return list(op.attrs["multipliers"]) == [1, 1] and op.attrs["shift"] == 0
    return op.kind in KINDS


def forward(graph: QuantGraph, x: Tensor) -> Tensor:
    """Real logits [N, classes], or maps [N, O, H, W], of images in 0..1 [N, C, H, W], as `QuantGraph.forward` does."""
    values: dict[str, Tensor] = {INPUT: x}
    for op in graph.plan:
        inputs = [values[name] for name in op.inputs]
        values[op.name] = _step(graph, op, inputs)
    return values[graph.plan[-1].name]


def _step(graph: QuantGraph, op: Op, x: list[Tensor]) -> Tensor:
    if op.kind == "halve":
        return ((x[0] * 255).round() / 2).floor().permute(1, 2, 3, 0).contiguous()
    if op.kind in ("qconv2d", "qdense"):
        return _layer(graph.layer(op.name), x[0])
    if op.kind == "qlogits":
        return graph.layer(op.name)(x[0].movedim(-1, 0))
    if op.kind == "maxpool":
        return _Pool.apply(x[0], _window(op, x[0], x[0].shape[0], op.attrs["kernel"]))
    if op.kind == "qadd":
        return _Add.apply(x[0], x[1], -127.0 if op.attrs["signed"] else 0.0)
    if op.kind == "sumpool":
        total = x[0].sum((1, 2)) * op.attrs.get("scale", 1.0)
        return total.t() if op is graph.plan[-1] else total
    assert op.kind == "flatten"
    return x[0].reshape(-1, x[0].shape[-1])


def _layer(layer: QuantLayer, x: Tensor) -> Tensor:
    """Convolution or product, batch norm (or the frozen multipliers), rounding, clipping."""
    if layer.norm.training:
        return _Normed.apply(x, layer.integers(), layer.norm.weight, layer.norm.bias, layer)
    weight, bias, factor, _, _ = layer.stored()
    return _Frozen.apply(x, weight, bias, factor, layer.op, float(layer.lo))


def _window(op: Op, x: Tensor, outputs: int, kernel: Any) -> Shape:
    if x.ndim == 2:  # a vector is a map of one pixel
        return Shape(x.shape[0], 1, 1, x.shape[1], outputs, 1, 1, 1, 1, 1, 1, 0, 0)
    channels, height, width, batch = x.shape
    top, left, bottom, right = op.attrs["padding"]
    down, across = op.attrs["stride"]
    rows = (height + top + bottom - kernel[0]) // down + 1
    columns = (width + left + right - kernel[1]) // across + 1
    return Shape(
        channels, height, width, batch, outputs, rows, columns, kernel[0], kernel[1], down, across, top, left
    )


def _at(x: Tensor | None) -> ctypes.c_void_p:
    assert x is None or x.is_contiguous()
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _depthwise(op: Op) -> bool:
    return op.kind == "qconv2d" and op.attrs["groups"] > 1


def _room(shape: Shape, op: Op) -> Tensor:
    kernels = library()
    assert kernels is not None
    size = kernels.depthwise_scratch if _depthwise(op) else kernels.scratch
    return torch.empty(size(ctypes.byref(shape)))


def _sums(x: Tensor, weight: Tensor, op: Op) -> Tensor:
    """The sums of a layer, [O, rows, columns, N] or [O, N]."""
    kernels = library()
    assert kernels is not None
    if op.kind == "qdense":
        return weight @ x
    shape = _window(op, x, len(weight), weight.shape[2:])
    out = torch.empty(shape.outputs, shape.rows, shape.columns, shape.batch)
    room = _room(shape, op)
    if _depthwise(op):
        kernels.depthwise_forward(ctypes.byref(shape), _at(x), _at(weight), _at(out), _at(room))
    else:
        turned = weight.flatten(1).t().contiguous()
        kernels.conv_forward(ctypes.byref(shape), _at(x), _at(turned), _at(out), _at(room))
    return out


def _activated(sums: Tensor, before: Tensor, scale: Tensor, after: Tensor, lo: float) -> Tensor:
    kernels = library()
    assert kernels is not None
    out = torch.empty_like(sums)
    count = ctypes.c_long(sums[0].numel())
    rows = map(_at, (before, scale, after))
    kernels.activate(ctypes.c_long(len(sums)), count, _at(sums), *rows, ctypes.c_float(lo), _at(out))
    return out


def _gradient_sums(
    gradient: Tensor, sums: Tensor, before: Tensor, scale: Tensor, after: Tensor, lo: float
) -> tuple[Tensor, Tensor]:
    """Of each channel: the sum of what passes the activation, and of that times (sum + before)."""
    kernels = library()
    assert kernels is not None
    plain, times = torch.empty(len(sums)), torch.empty(len(sums))
    kernels.activate_sums(
        ctypes.c_long(len(sums)), ctypes.c_long(sums[0].numel()), _at(gradient), _at(sums), _at(before), _at(scale),
        _at(after), ctypes.c_float(lo), _at(plain), _at(times),
    )  # fmt: skip
    return plain, times


def _backward(
    gradient: Tensor, x: Tensor, weight: Tensor, sums: Tensor, op: Op, needs_x: bool, lo: float, *rows: Tensor
) -> tuple[Tensor | None, Tensor]:
    """Gradients of input and weight; `rows` are the fields of Norm."""
    kernels = library()
    assert kernels is not None
    norm = Norm(*(row.data_ptr() for row in rows), lo)
    kernel = weight.shape[2:] if weight.ndim == 4 else (1, 1)
    shape = _window(op, x, len(weight), kernel)
    flat = weight.flatten(1)
    dw = torch.empty_like(flat)
    dx = torch.empty_like(x) if needs_x or _depthwise(op) else None
    room = _room(shape, op)
    run = kernels.depthwise_backward if _depthwise(op) else kernels.conv_backward
    run(
        ctypes.byref(shape), ctypes.byref(norm), _at(gradient), _at(sums), _at(x), _at(flat), _at(dx), _at(dw),
        _at(room),
    )  # fmt: skip
    return dx if needs_x else None, dw.reshape(weight.shape)


class _Normed(Function):
    """A layer whose norm takes the statistics of its batch, which depend on its input too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, slope: Tensor, offset: Tensor, layer: QuantLayer
    ) -> Tensor:
        kernels = library()
        assert kernels is not None
        x, weight, norm = x.contiguous(), weight.contiguous(), layer.norm
        sums = _sums(x, weight, layer.op)
        rows = torch.empty(4, len(sums))
        before, scale, after, rate = rows
        kernels.norm_forward(
            ctypes.c_long(len(sums)), ctypes.c_long(sums[0].numel()), _at(sums), _at(slope), _at(offset),
            ctypes.c_float(layer.unit), ctypes.c_float(norm.eps), ctypes.c_float(norm.momentum or 0.0),
            *map(_at, layer.statistics()), _at(before), _at(scale), _at(after), _at(rate),
        )  # fmt: skip
        ctx.save_for_backward(x, weight, sums, rows)
        ctx.op, ctx.lo, ctx.unit = layer.op, float(layer.lo), layer.unit
        return _activated(sums, before, scale, after, ctx.lo)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, sums, (before, scale, after, rate) = ctx.saved_tensors
        gradient, count = gradient.contiguous(), sums[0].numel()
        plain, times = _gradient_sums(gradient, sums, before, scale, after, ctx.lo)
        means, slopes = scale * plain / count, scale * rate.square() * times / count
        rows = before, scale, after, means, slopes
        dx, dw = _backward(gradient, x, weight, sums, ctx.op, ctx.needs_input_grad[0], ctx.lo, *rows)
        return dx, dw, times * rate * ctx.unit, plain * ctx.unit, None


class _Frozen(Function):
    """A layer with the multipliers and biases that will be stored."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, factor: Tensor, op: Op, lo: float
    ) -> Tensor:
        x, weight, bias, factor = (part.contiguous() for part in (x, weight, bias, factor))
        sums = _sums(x, weight, op)
        ctx.save_for_backward(x, weight, sums, bias, factor)
        ctx.op, ctx.lo = op, lo
        return _activated(sums, bias, factor, torch.zeros_like(bias), lo)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, sums, bias, factor = ctx.saved_tensors
        gradient, zero = gradient.contiguous(), torch.zeros_like(bias)
        plain, times = _gradient_sums(gradient, sums, bias, factor, zero, ctx.lo)
        rows = bias, factor, zero, zero, zero
        dx, dw = _backward(gradient, x, weight, sums, ctx.op, ctx.needs_input_grad[0], ctx.lo, *rows)
        return dx, dw, factor * plain, times, None, None


class Rounded(Function):
    """`integers.rounded` of weights of two bits and more, in one pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, share: Tensor, limit: int) -> Tensor:
        kernels = library()
        assert kernels is not None
        weight, out, step = weight.contiguous(), torch.empty(weight.shape), torch.empty(len(share))
        sizes = ctypes.c_long(len(share)), ctypes.c_long(weight.numel() // len(share))
        kernels.round_forward(*sizes, _at(weight), _at(share), ctypes.c_float(limit), _at(out), _at(step))
        ctx.save_for_backward(weight, step)
        ctx.sizes, ctx.limit = sizes, ctypes.c_float(limit)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        kernels = library()
        assert kernels is not None
        weight, step = ctx.saved_tensors
        gradient, dw = gradient.contiguous(), torch.empty_like(weight)
        kernels.round_backward(*ctx.sizes, _at(gradient), _at(weight), _at(step), ctx.limit, _at(dw))
        return dw, None, None


class _Pool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: Shape) -> Tensor:
        kernels = library()
        assert kernels is not None
        x = x.contiguous()
        out = torch.empty(shape.outputs, shape.rows, shape.columns, shape.batch)
        kernels.maxpool_forward(ctypes.byref(shape), _at(x), _at(out))
        ctx.save_for_backward(x, out)
        ctx.shape = shape
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        kernels = library()
        assert kernels is not None
        x, out = ctx.saved_tensors
        gradient, dx = gradient.contiguous(), torch.empty_like(x)
        kernels.maxpool_backward(ctypes.byref(ctx.shape), _at(gradient), _at(x), _at(out), _at(dx))
        return dx, None


class _Add(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, lo: float) -> Tensor:
        kernels = library()
        assert kernels is not None
        a, b = a.contiguous(), b.contiguous()
        out = torch.empty_like(a)
        count = ctypes.c_long(a.numel())
        kernels.add_forward(count, _at(a), _at(b), ctypes.c_float(lo), _at(out))
        ctx.save_for_backward(a, b)
        ctx.lo = lo
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        kernels = library()
        assert kernels is not None
        a, b = ctx.saved_tensors
        gradient, dx = gradient.contiguous(), torch.empty_like(a)
        count = ctypes.c_long(a.numel())
        kernels.add_backward(count, _at(gradient), _at(a), _at(b), ctypes.c_float(ctx.lo), _at(dx))
        return dx, dx, None
