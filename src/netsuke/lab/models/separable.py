"""A depthwise-separable family made for kilobytes."""

from __future__ import annotations

from torch import Tensor, nn

from netsuke.errors import OptionError
from netsuke.lab.models import blocks


def _block(inputs: int, outputs: int, stride: int, act: str, attention: str) -> nn.Sequential:
    """Depthwise 3x3, then pointwise (Howard et al., MobileNets, 2017), then attention where it is wanted."""
    return nn.Sequential(
        *blocks.ConvNormAct(inputs, inputs, 3, stride, inputs, act),
        *blocks.ConvNormAct(inputs, outputs, 1, act=act),
        *blocks.attention(attention, outputs),
    )


class Residual(nn.Module):
    """x + f(x). With ReLU both are its outputs, so the sum stays unsigned and costs no requantisation."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


LAYOUTS = ("residual", "unpadded", "pooled")


def separable(
    *,
    shape: blocks.Shape,
    classes: int,
    width: int = 24,
    depth: int = 2,
    layout: str = "residual",
    act: str = "relu",
    attention: str = "none",
) -> nn.Sequential:
    """Depthwise-separable blocks, global pooling, a dense layer: [n, C, H, W] to [n, classes].

    `width` is the number of channels at the end.

    "residual": a strided stem of 0.37 of it, two blocks, the first of 0.62, and `depth` residual ones. A 28x28
    image is halved twice on the way; images under 14 pixels once, over 40 three times.

    "unpadded": a 3x3 stem of 0.45 of it, a pool, and `depth` blocks that grow from 0.67 to the whole, without
    padding while the map has five pixels and without an activation between depthwise and pointwise. At 1 KB on
    MNIST it makes a third fewer errors than the other, for a seventh more multiplications (docs/trials.md).

    "pooled": for devices with 2 KB of RAM. A 5x5 stem of a fifth of it and a pool, a block to the whole width and
    a pool, then `depth` residual blocks on 5x5 maps, which C computes in place.
    """
    if not (1 <= width <= 4096 and 0 <= depth <= 256):
        raise OptionError(f"separable: width must be 1 to 4096 and depth 0 to 256; got {width} and {depth}")
    if layout not in LAYOUTS:
        raise OptionError(f"separable: no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    build = {"residual": _residual, "unpadded": _unpadded, "pooled": _pooled}[layout]
    return nn.Sequential(
        *build(shape, width, depth, act, attention),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def _residual(shape: blocks.Shape, width: int, depth: int, act: str, attention: str) -> list[nn.Module]:
    stem, middle = max(2, round(0.37 * width)), max(2, round(0.62 * width))
    side = min(shape[1:])
    kernel, first = (3, 1) if side < 14 else (5, 2)
    return [
        *blocks.ConvNormAct(shape[0], stem, kernel, first, act=act),
        _block(stem, middle, 2 if side > 40 else 1, act, attention),
        _block(middle, width, 2, act, attention),
        *(Residual(_block(width, width, 1, act, attention)) for _ in range(depth)),
    ]


def _unpadded(shape: blocks.Shape, width: int, depth: int, act: str, attention: str) -> list[nn.Module]:
    """After JoshWarn's Parameter-Efficient MNIST (2023): small maps shrink by their borders, not by strides."""
    channels = max(2, round(0.45 * width))
    layers: list[nn.Module] = [
        *blocks.ConvNormAct(shape[0], channels, 3, act=act, padding=_trim(min(shape[1:])))
    ]
    side = min(shape[1:]) - 2 * (1 - _trim(min(shape[1:])))
    while side >= 18:
        layers.append(nn.MaxPool2d(2))
        side //= 2
    for i in range(depth):
        wide = width if i == depth - 1 else max(2, round(width * (2 + i / (depth - 1)) / 3))
        padding = _trim(side)
        layers.append(
            nn.Sequential(
                *blocks.ConvNormAct(channels, channels, 3, 1, channels, "", padding=padding),
                *blocks.ConvNormAct(channels, wide, 1, act=act),
                *blocks.attention(attention, wide),
            )
        )
        channels, side = wide, side - 2 * (1 - padding)
    if not depth:
        layers += blocks.ConvNormAct(channels, width, 1, act=act)
    return layers


def _pooled(shape: blocks.Shape, width: int, depth: int, act: str, attention: str) -> list[nn.Module]:
    """Few channels while the map is large, all of them once it is small: 28x28, 12x12, 5x5."""
    stem = max(4, 4 * round(0.055 * width))  # four channels are computed at a time
    kernel = 5 if min(shape[1:]) >= 20 else 3
    layers: list[nn.Module] = [
        *blocks.ConvNormAct(shape[0], stem, kernel, act=act, padding=0 if kernel == 5 else 1)
    ]
    side = min(shape[1:]) - (4 if kernel == 5 else 0)
    channels = stem
    while side >= 10:
        layers.append(nn.MaxPool2d(2))
        side //= 2
        if channels == stem:
            layers.append(_linear_block(stem, width, _trim(side), act, attention))
            channels, side = width, side - 2 * (1 - _trim(side))
    if channels == stem:
        layers.append(_linear_block(stem, width, 1, act, attention))
    return [*layers, *(Residual(_linear_block(width, width, 1, act, attention)) for _ in range(depth))]


def _linear_block(inputs: int, outputs: int, padding: int, act: str, attention: str) -> nn.Sequential:
    """Depthwise 3x3, then pointwise, with no activation between them."""
    return nn.Sequential(
        *blocks.ConvNormAct(inputs, inputs, 3, 1, inputs, "", padding=padding),
        *blocks.ConvNormAct(inputs, outputs, 1, act=act),
        *blocks.attention(attention, outputs),
    )


def _trim(side: int) -> int:
    """The padding of a 3x3 window: none while the map can spare its border."""
    return 0 if side >= 7 else 1
