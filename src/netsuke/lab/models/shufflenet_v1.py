"""ShuffleNet: grouped pointwise convolutions, and a channel shuffle so that the groups still talk."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from netsuke.errors import OptionError
from netsuke.lab.models import blocks
from netsuke.lab.models.blocks import ConvNormAct

STAGE2 = {
    1: 144,
    2: 200,
    3: 240,
    4: 272,
    8: 384,
}  # groups -> channels, table 1 of the paper; they double twice
REPEATS = (4, 8, 4)


class Unit(nn.Module):
    """act(x + f(x)), or, where the channels grow, act([x, f(x)]) with x average-pooled if the map halves.

    f is a grouped 1x1 to a quarter of the channels, a shuffle, a depthwise 3x3 and a grouped 1x1; `narrow`
    leaves the first one ungrouped, as the paper does where few channels arrive.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        groups: int,
        act: str,
        attention: str,
        narrow: bool = False,
    ):
        super().__init__()
        self.grows = inputs != outputs
        inner, made = outputs // 4, outputs - inputs if self.grows else outputs
        self.body = nn.Sequential(
            *ConvNormAct(inputs, inner, 1, groups=1 if narrow else groups, act=act),
            *([nn.ChannelShuffle(groups)] if groups > 1 else []),
            *ConvNormAct(inner, inner, 3, stride, groups=inner, act=""),
            *ConvNormAct(inner, made, 1, groups=groups, act=""),
            *blocks.attention(attention, made),
        )
        self.shortcut = nn.AvgPool2d(3, 2, 1) if stride == 2 else nn.Sequential()
        self.act = blocks.activation(act)

    def forward(self, x: Tensor) -> Tensor:
        same, made = self.shortcut(x), self.body(x)
        return self.act(torch.cat([same, made], 1) if self.grows else same + made)


def shufflenet_v1(
    *,
    shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    groups: int = 3,
    act: str = "relu",
    attention: str = "none",
    dropout: float = 0.0,
) -> nn.Sequential:
    """ShuffleNet (Zhang et al., 2018): floats [n, C, H, W] in 0..1 to logits [n, classes].

    `width` scales all channels, `depth` the number of units in the three stages, and `attention` ends each
    unit's main branch. A small image is halved by as many of the five halvings, first ones first, as it can
    take: 28x28 by the stem and its max pool. Raises OptionError for other groups than 1, 2, 3, 4 and 8.
    """
    blocks.require("shufflenet_v1", width=(width, 0.01, 16), depth=(depth, 0, 16), dropout=(dropout, 0, 0.99))
    if groups not in STAGE2:
        raise OptionError(f"shufflenet_v1: groups must be one of {', '.join(map(str, STAGE2))}; got {groups}")
    stem_stride, pool_stride, *stage_strides = blocks.strides(shape, 5)
    # a quarter of a stage's channels, and what a stage adds to the one before, must split into the groups
    stem = groups * max(1, round(24 * width / groups))
    outputs = 4 * groups * max(1, round(STAGE2[groups] * width / (4 * groups)))
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=ConvNormAct(shape[0], stem, 3, stem_stride, act=act),
        pool=nn.MaxPool2d(3, 2, 1) if pool_stride == 2 else nn.Sequential(),
    )
    inputs = stem
    for stage, (stride, repeats) in enumerate(zip(stage_strides, REPEATS, strict=True), start=2):
        units = [Unit(inputs, outputs, stride, groups, act, attention, narrow=stage == 2)]
        units += [
            Unit(outputs, outputs, 1, groups, act, attention)
            for _ in range(max(1, round(repeats * depth)) - 1)
        ]
        layers[f"stage{stage}"] = nn.Sequential(*units)
        inputs, outputs = outputs, outputs * 2
    return nn.Sequential(
        OrderedDict(
            **layers,
            globalpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(dropout),
            fc=nn.Linear(inputs, classes),
        )
    )
