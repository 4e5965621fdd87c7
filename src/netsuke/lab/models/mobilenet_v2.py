"""MobileNet V2: inverted residuals with linear bottlenecks."""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn

from netsuke.lab.models.blocks import (
    ConvNormAct,
    classifier_of,
    initialise,
    require,
    round_channels,
    strides,
)
from netsuke.lab.models.blocks import (
    attention as attend,
)

# Expansion, channels, blocks, and whether the first block halves the map.
STAGES = [
    (1, 16, 1, False),
    (6, 24, 2, True),
    (6, 32, 3, True),
    (6, 64, 4, True),
    (6, 96, 3, False),
    (6, 160, 3, True),
    (6, 320, 1, False),
]


class InvertedResidual(nn.Module):
    """Widen, look around in each channel, narrow without an activation: [n, inputs, H, W] to [n, outputs, ...].

    The input is added where it fits: at stride 1 with as many channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, act: str, attention: str):
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([ConvNormAct(inputs, hidden, 1, act=act)] if expansion != 1 else []),
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden, act=act),
            *attend(attention, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def mobilenet_v2(
    *,
    shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    head: int = 0,
    act: str = "relu6",
    attention: str = "none",
    dropout: float = 0.2,
) -> nn.Sequential:
    """Sandler et al., MobileNetV2, 2018: [n, C, H, W] in 0..1 to [n, classes], named as in torchvision.

    `width` multiplies channels (rounded to eights), `depth` the blocks of a stage (at least one stays). `head`
    sets the channels of the last convolution; 0 is 1280, times `width` where that is above 1, and for images
    under 64 pixels where it is below 1, too. Attention sits behind each depthwise convolution.
    """
    require(
        "mobilenet_v2",
        width=(width, 0.01, 16),
        depth=(depth, 0.01, 16),
        head=(head, 0, 65536),
        dropout=(dropout, 0, 1),
    )
    least = 1.0 if min(shape[1:]) >= 64 else 0.0
    head = head or round_channels(1280 * max(least, width))
    steps = iter(strides(shape, 5))
    inputs = round_channels(32 * width)
    layers: list[nn.Module] = [ConvNormAct(shape[0], inputs, 3, next(steps), act=act)]
    for expansion, channels, count, halves in STAGES:
        outputs = round_channels(channels * width)
        for i in range(ceil(count * depth)):
            stride = next(steps) if halves and i == 0 else 1
            layers.append(InvertedResidual(inputs, outputs, stride, expansion, act, attention))
            inputs = outputs
    layers.append(ConvNormAct(inputs, head, 1, act=act))
    return initialise(classifier_of(layers, [nn.Dropout(dropout), nn.Linear(head, classes)]))
