"""Readers of what slides or reduces: convolutions, pools, means and maxima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from netsuke.import_onnx.builder import Builder, Value


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
    if r.attrs.get("ceil_mode", 0):  # cells at the end, so that what is rounded down is what was rounded up
        more = [-span % s for span, s in zip(spans, stride, strict=True)]
        # Runtimes disagree on windows that lie in the padding.
        beyond = any(p + m >= k for p, m, k in zip(padding[2:], more, kernel, strict=True))
        if any(more) and (r.kind != "MaxPool" or beyond):
            raise r.fail("with ceil_mode=1")
        padding = [*padding[:2], padding[2] + more[0], padding[3] + more[1]]
        spans = [span + m for span, m in zip(spans, more, strict=True)]
    return x, stride, padding, (spans[0] // stride[0] + 1, spans[1] // stride[1] + 1)


def conv(r: Builder) -> Value:
    weight = r.weight(1)
    if weight.ndim != 4:
        raise r.fail("over another number of axes than two")
    x, stride, padding, size = _window(r, weight.shape[2:])
    groups, bias = r.attrs.get("group", 1), r.constant(2)
    y = r.emit("conv2d", [x], (len(weight), *size), stride=stride, padding=padding, groups=groups)
    r.mark(y, r.grid(1, 0))
    return r.store(y, weight=weight, bias=np.zeros(len(weight)) if bias is None else bias)


def maxpool(r: Builder) -> Value:
    kernel = list(r.attrs["kernel_shape"])
    x, stride, padding, size = _window(r, kernel)
    return r.emit("maxpool", [x], (x.shape[0], *size), kernel=kernel, stride=stride, padding=padding)


def avgpool(r: Builder) -> Value:
    kernel = list(r.attrs["kernel_shape"])
    x, stride, padding, size = _window(r, kernel)
    padded: dict[str, list[int]] = {}
    if any(padding):
        if not r.attrs.get("count_include_pad", 0):
            raise r.fail(f"that does not count its padding {padding}; only averages that do are known")
        padded = {"padding": padding}
    return r.emit("avgpool", [x], (x.shape[0], *size), kernel=kernel, stride=stride, **padded)


def globalpool(r: Builder) -> Value:
    x = r.image()
    y = r.peak(x) if r.kind == "GlobalMaxPool" else r.emit("globalavgpool", [x], x.shape[:1])
    return replace(y, dims=(x.shape[0], 1, 1))


def reduction(r: Builder) -> Value:
    """ReduceMean and ReduceMax: over rows and columns, or over the channels, whose axis stays."""
    x = r.materialized(r.value())
    over = sorted(axis % (len(x.dims) + 1) for axis in axes(r))
    kept, image = bool(r.attrs.get("keepdims", 1)), len(x.shape) == len(x.dims) == 3 and not x.groups
    if image and over == ([3] if x.nhwc else [1]) and kept:
        y = r.emit("channelmax" if r.kind == "ReduceMax" else "channelmean", [x], (1, *x.shape[1:]))
        return replace(y, dims=(*x.shape[1:], 1), nhwc=True) if x.nhwc else y
    if not image or over != ([1, 2] if x.nhwc else [2, 3]):
        raise r.fail("over other axes than rows and columns, or the channels with keepdims")
    y = r.peak(x) if r.kind == "ReduceMax" else r.emit("globalavgpool", [x], x.shape[:1])
    return replace(y, dims=(1, 1, x.shape[0]) if x.nhwc else (x.shape[0], 1, 1)) if kept else y


def axes(r: Builder) -> list[int]:
    """The axes of Squeeze, Unsqueeze, ReduceMean or ReduceMax: an attribute, or from opset 13 or 18 on an input."""
    axes = r.constant(1) if len(r.node.input) > 1 else r.attrs.get("axes")
    if axes is None:
        raise r.fail("without axes")
    return [int(axis) for axis in np.atleast_1d(axes)]
