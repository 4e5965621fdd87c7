"""MobileNet V1: depthwise-separable blocks in a row."""

from __future__ import annotations

from math import ceil

from torch import nn

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

# Channels and blocks of each stage; every stage but the first halves the map at its first block.
STAGES = [(64, 1), (128, 2), (256, 2), (512, 6), (1024, 2)]


def mobilenet_v1(
    *,
    shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    head: int = 0,
    act: str = "relu",
    attention: str = "none",
    dropout: float = 0.001,
) -> nn.Sequential:
    """Howard et al., MobileNets, 2017: [n, C, H, W] in 0..1 to [n, classes]; 4 231 976 parameters for ImageNet.

    `width` multiplies channels (rounded to eights), `depth` the blocks of a stage (at least one stays); `head`
    sets the channels of the last convolution (0: 1024 times `width`). Attention sits between the depthwise
    convolution and the pointwise one.
    """
    require(
        "mobilenet_v1",
        width=(width, 0.01, 16),
        depth=(depth, 0.01, 16),
        head=(head, 0, 65536),
        dropout=(dropout, 0, 1),
    )
    blocks = [
        (round_channels(channels * width), stage > 0 and i == 0)
        for stage, (channels, count) in enumerate(STAGES)
        for i in range(ceil(count * depth))
    ]
    if head:
        blocks[-1] = (head, blocks[-1][1])
    steps = iter(strides(shape, 5))
    inputs = round_channels(32 * width)
    layers: list[nn.Module] = [ConvNormAct(shape[0], inputs, 3, next(steps), act=act)]
    for outputs, halves in blocks:
        stride = next(steps) if halves else 1
        layers += [
            ConvNormAct(inputs, inputs, 3, stride, groups=inputs, act=act),
            *attend(attention, inputs),
            ConvNormAct(inputs, outputs, 1, act=act),
        ]
        inputs = outputs
    return initialise(classifier_of(layers, [nn.Dropout(dropout), nn.Linear(inputs, classes)]))
