"""What each kind of layer becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx, nn

from netsuke.errors import UnsupportedLayer
from netsuke.graph import INPUT, Op, infer
from netsuke.lab.lower.builder import PIXELS, Builder, array, scaling
from netsuke.lab.models.blocks import Standardize

Rule = Callable[[Builder, str, Any], str]  # the graph, the name of what arrives, the layer


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else [int(v) for v in value]


def _conv(b: Builder, x: str, layer: nn.Conv2d) -> str:
    if _pair(layer.dilation) != [1, 1] or layer.padding_mode != "zeros":
        raise b.fail("dilation and padding modes but zeros are unknown")
    kernel = _pair(layer.kernel_size)
    if isinstance(layer.padding, str):
        pad = [0, 0] if layer.padding == "valid" else [(k - 1) // 2 for k in kernel]
        extra = [0, 0] if layer.padding == "valid" else [k - 1 - p for k, p in zip(kernel, pad, strict=True)]
        padding = [*pad, *extra]
    else:
        padding = _pair(layer.padding) * 2
    if len(b.types[x].shape) == 1:  # behind a global pool, where a map is one pixel
        if any(padding) or layer.groups > 1 or layer.weight.shape[2:] != (1, 1):
            raise b.fail("behind a global pool a convolution must be 1x1, unpadded and of one group")
        return b.emit("dense", (x,), weight=array(layer.weight)[:, :, 0, 0], bias=_bias(layer))
    attrs = {"stride": _pair(layer.stride), "padding": padding, "groups": layer.groups}
    return b.emit("conv2d", (x,), attrs, weight=array(layer.weight), bias=_bias(layer))


def _dense(b: Builder, x: str, layer: nn.Linear) -> str:
    return b.emit("dense", (x,), weight=array(layer.weight), bias=_bias(layer))


def _bias(layer: nn.Conv2d | nn.Linear) -> np.ndarray:
    return np.zeros(len(layer.weight), np.float32) if layer.bias is None else array(layer.bias)


def _norm(b: Builder, x: str, layer: nn.BatchNorm2d) -> str:
    """Fold into the layer before, which nothing else may read."""
    op = next((op for op in b.ops if op.name == x), None)
    if op is None or op.kind not in ("conv2d", "dense") or not b.alone(x):
        raise _unfolded(b, "it must follow a convolution or dense layer")
    if layer.running_mean is None or layer.running_var is None:
        raise _unfolded(b, "it keeps no running statistics")
    mean, variance = layer.running_mean.double(), layer.running_var.double()
    gain = (variance + layer.eps).rsqrt() * (1 if layer.weight is None else layer.weight.detach().double())
    offset = 0 if layer.bias is None else layer.bias.detach().double()
    weight, bias = b.tensors[op.tensor("weight")], b.tensors[op.tensor("bias")]
    factor = gain.numpy().reshape(-1, *[1] * (weight.ndim - 1))
    moved = (bias - mean.numpy()) * gain.numpy() + np.asarray(offset)
    b.tensors[op.tensor("weight")] = (weight * factor).astype(np.float32)
    b.tensors[op.tensor("bias")] = moved.astype(np.float32)
    return x


def _unfolded(b: Builder, text: str) -> UnsupportedLayer:
    return UnsupportedLayer(f"cannot fold {b.node.target!r}: {text}")


def _pool(b: Builder, x: str, layer: nn.MaxPool2d | nn.AvgPool2d) -> str:
    kernel, stride = _pair(layer.kernel_size), _pair(layer.stride or layer.kernel_size)
    attrs: dict[str, Any] = {"kernel": kernel, "stride": stride}
    padding = _pair(layer.padding) * 2
    if getattr(layer, "dilation", 1) not in (1, (1, 1)):
        raise b.fail("pools take no dilation")
    if layer.ceil_mode:
        sides = b.types[x].shape[1:]
        more = [_ceiling(*axis) for axis in zip(sides, kernel, stride, padding[:2], strict=True)]
        padding = [*padding[:2], *(p + m for p, m in zip(padding[2:], more, strict=True))]
    if isinstance(layer, nn.MaxPool2d):
        return b.emit("maxpool", (x,), attrs | {"padding": padding})
    if layer.divisor_override or (any(padding) and (layer.ceil_mode or not layer.count_include_pad)):
        raise b.fail("an average counts its padding, and takes no divisor of its own")
    return b.emit("avgpool", (x,), attrs | ({"padding": padding} if any(padding) else {}))


def _ceiling(side: int, kernel: int, stride: int, padding: int) -> int:
    """Cells to add at the end so that a rounded-down count of windows equals torch's rounded-up one."""
    reach = side + 2 * padding - kernel
    windows = -(-reach // stride) + 1
    if (windows - 1) * stride >= side + padding:  # torch starts no window in the padding at the end
        windows -= 1
    return max(0, (windows - 1) * stride - reach)


def adaptive(b: Builder, x: str, size: Any) -> str:
    """An average to rows and columns that divide those of the map."""
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if sides == (1, 1):
        return b.emit("globalavgpool", (x,))
    have = b.types[x].shape[1:]
    want = [h if w is None else int(w) for h, w in zip(have, sides, strict=True)]
    if any(h % w for h, w in zip(have, want, strict=True)):
        raise b.fail(f"a map of {have[0]}x{have[1]} does not divide into {want[0]}x{want[1]}")
    kernel = [h // w for h, w in zip(have, want, strict=True)]
    return x if kernel == [1, 1] else b.emit("avgpool", (x,), {"kernel": kernel, "stride": kernel})


def _peak(b: Builder, x: str, layer: nn.AdaptiveMaxPool2d) -> str:
    if layer.output_size not in (1, (1, 1)):
        raise b.fail("adaptive maximum pooling only to 1x1")
    whole = list(b.types[x].shape[1:])
    attrs = {"kernel": whole, "stride": whole, "padding": [0, 0, 0, 0]}
    return b.emit("flatten", (b.emit("maxpool", (x,), attrs),))


def _standardize(b: Builder, x: str, layer: Standardize) -> str:
    """Becomes the graph's first op."""
    source = b.node.args[0]
    first = isinstance(source, fx.Node) and source.op == "placeholder" and len(source.users) == 1
    if x != PIXELS or not first:
        raise b.fail("it must come first, and nothing else may read the image")
    attrs = scaling(layer.mean.flatten().tolist(), layer.std.flatten().tolist())
    b.ops[0] = Op("normalize", PIXELS, (INPUT,), attrs)
    b.types[PIXELS] = infer(b.ops[0], [b.types[INPUT]], {})
    return x


def _prelu(b: Builder, x: str, layer: nn.PReLU) -> str:
    slope = np.broadcast_to(array(layer.weight), b.types[x].shape[:1]).copy()
    return b.emit("prelu", (x,), slope=slope)


def flatten(b: Builder, x: str, start: int, end: int) -> str:
    if (start, end) != (1, -1):
        raise b.refuse("flattens from axis 1 to the last, no others")
    return x if len(b.types[x].shape) == 1 else b.emit("flatten", (x,))


def plain(kind: str) -> Rule:
    return lambda b, x, layer: b.emit(kind, (x,))


def _same(b: Builder, x: str, layer: nn.Module) -> str:
    return x


PASSING = (nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten)  # give on the very values they get

LAYERS: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _conv,
    nn.Linear: _dense,
    nn.BatchNorm2d: _norm,
    nn.BatchNorm1d: _norm,
    nn.ReLU: plain("relu"),
    nn.ReLU6: plain("relu6"),
    nn.LeakyReLU: lambda b, x, layer: b.emit("leakyrelu", (x,), {"slope": layer.negative_slope}),
    nn.PReLU: _prelu,
    nn.SiLU: plain("silu"),
    nn.Hardswish: plain("hardswish"),
    nn.Hardsigmoid: plain("hardsigmoid"),
    nn.Sigmoid: plain("sigmoid"),
    nn.Tanh: plain("tanh"),
    nn.MaxPool2d: _pool,
    nn.AvgPool2d: _pool,
    nn.AdaptiveAvgPool2d: lambda b, x, layer: adaptive(b, x, layer.output_size),
    nn.AdaptiveMaxPool2d: _peak,
    nn.ChannelShuffle: lambda b, x, layer: b.emit("shuffle", (x,), {"groups": layer.groups}),
    Standardize: _standardize,
    nn.Flatten: lambda b, x, layer: flatten(b, x, layer.start_dim, layer.end_dim),
    nn.Dropout: _same,
    nn.Dropout2d: _same,
    nn.Identity: _same,
}
