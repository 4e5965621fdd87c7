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


def separable(
    *,
    shape: blocks.Shape,
    classes: int,
    width: int = 24,
    depth: int = 2,
    act: str = "relu",
    attention: str = "none",
) -> nn.Sequential:
    """A strided stem, two separable blocks, `depth` residual ones, global pooling: [n, C, H, W] to [n, classes].

    `width` is the number of channels at the end; the stem has 0.37 of it and the first block 0.62. A 28x28
    image is halved twice on the way; images under 14 pixels once, over 40 three times.
    """
    if not (1 <= width <= 4096 and 0 <= depth <= 256):
        raise OptionError(f"separable: width must be 1 to 4096 and depth 0 to 256; got {width} and {depth}")
    stem, middle = max(2, round(0.37 * width)), max(2, round(0.62 * width))
    side = min(shape[1:])
    kernel, first = (3, 1) if side < 14 else (5, 2)
    return nn.Sequential(
        *blocks.ConvNormAct(shape[0], stem, kernel, first, act=act),
        _block(stem, middle, 2 if side > 40 else 1, act, attention),
        _block(middle, width, 2, act, attention),
        *(Residual(_block(width, width, 1, act, attention)) for _ in range(depth)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )
