"""ShuffleNet V2: half of the channels pass untouched, the other half is worked on, then both are shuffled."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from netsuke.lab.models import blocks
from netsuke.lab.models.blocks import ConvNormAct

STAGE2 = {0.5: 48, 1.0: 116, 1.5: 176, 2.0: 244}  # width -> channels as published; they double twice
REPEATS = (4, 8, 4)


class Unit(nn.Module):
    """[x1, f(x2)] shuffled, x1 and x2 being the halves of x; where `grows`, [g(x), f(x)] shuffled.

    f is 1x1, depthwise 3x3, 1x1; g is depthwise 3x3, 1x1; each makes half of the outputs.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, act: str, attention: str, grows: bool):
        super().__init__()
        self.grows, half = grows, outputs // 2
        if grows:
            self.branch1 = nn.Sequential(
                *ConvNormAct(inputs, inputs, 3, stride, groups=inputs, act=""),
                *ConvNormAct(inputs, half, 1, act=act),
            )
        self.branch2 = nn.Sequential(
            *ConvNormAct(inputs if grows else half, half, 1, act=act),
            *ConvNormAct(half, half, 3, stride, groups=half, act=""),
            *ConvNormAct(half, half, 1, act=act),
            *blocks.attention(attention, half),
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        if self.grows:
            return self.shuffle(torch.cat([self.branch1(x), self.branch2(x)], 1))
        same, worked = x.chunk(2, dim=1)
        return self.shuffle(torch.cat([same, self.branch2(worked)], 1))


def shufflenet_v2(
    *,
    shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    head: int = 0,
    act: str = "relu",
    attention: str = "none",
    dropout: float = 0.0,
) -> nn.Sequential:
    """ShuffleNet V2 (Ma et al., 2018): floats [n, C, H, W] in 0..1 to logits [n, classes].

    At 224x224x3 with 1000 classes the parameters have torchvision's names and shapes: `width` 0.5, 1, 1.5 and
    2 are shufflenet_v2_x0_5 to x2_0, other widths scale the channels of x1_0. `depth` scales the number of
    units in the three stages; `head` is the channels of the last convolution, 0 for as published (1024, from
    width 2 on 2048); `attention` ends each unit's main branch. A small image is halved by as many of the five
    halvings, first ones first, as it can take: 28x28 by the stem and its max pool.
    """
    blocks.require("shufflenet_v2", width=(width, 0.01, 16), depth=(depth, 0, 16), head=(head, 0, 65536))
    blocks.require("shufflenet_v2", dropout=(dropout, 0, 0.99))
    stem_stride, pool_stride, *stage_strides = blocks.strides(shape, 5)
    outputs = STAGE2.get(width, 2 * max(1, round(116 * width / 2)))
    inputs, last = min(24, outputs), head or (2048 if width >= 2 else 1024)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=ConvNormAct(shape[0], inputs, 3, stem_stride, act=act),
        maxpool=nn.MaxPool2d(3, 2, 1) if pool_stride == 2 else nn.Sequential(),
    )
    for stage, (stride, repeats) in enumerate(zip(stage_strides, REPEATS, strict=True), start=2):
        units = [Unit(inputs, outputs, stride, act, attention, grows=True)]
        units += [
            Unit(outputs, outputs, 1, act, attention, grows=False)
            for _ in range(max(1, round(repeats * depth)) - 1)
        ]
        layers[f"stage{stage}"] = nn.Sequential(*units)
        inputs, outputs = outputs, outputs * 2
    return nn.Sequential(
        OrderedDict(
            **layers,
            conv5=ConvNormAct(inputs, last, 1, act=act),
            globalpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(dropout),
            fc=nn.Linear(last, classes),
        )
    )
