"""GhostNet: half of a layer's maps are computed, the other half are cheap depthwise copies of them."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from netsuke.lab.models import blocks
from netsuke.lab.models.blocks import ConvNormAct, SqueezeExcitation, round_channels

# (kernel, expanded channels, channels, squeeze and excitation, stride) of each bottleneck, table 1 of the paper
STAGES: tuple[tuple[tuple[int, int, int, bool, int], ...], ...] = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    (
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
    ),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1)),
)


class Ghost(nn.Module):
    """A 1x1 convolution for half of the outputs, and a depthwise 3x3 of that half for the other half."""

    def __init__(self, inputs: int, outputs: int, act: str):
        super().__init__()
        half = outputs // 2
        self.primary_conv = ConvNormAct(inputs, half, 1, act=act)
        self.cheap_operation = ConvNormAct(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary_conv(x)
        return torch.cat([primary, self.cheap_operation(primary)], 1)


class Bottleneck(nn.Module):
    """A ghost module that expands, a depthwise convolution where `reduces`, one that projects; plus a shortcut."""

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        kernel: int,
        stride: int,
        *,
        reduces: bool,
        gated: bool,
        act: str,
        attention: str,
    ):
        super().__init__()
        self.ghost1 = Ghost(inputs, expanded, act)
        self.dw = (
            ConvNormAct(expanded, expanded, kernel, stride, groups=expanded, act="") if reduces else None
        )
        squeeze = round_channels(expanded / 4, 4)
        self.se = SqueezeExcitation(expanded, squeeze, gate="hardsigmoid") if gated else None
        self.ghost2 = Ghost(expanded, outputs, act="")
        self.attention = nn.Sequential(*blocks.attention(attention, outputs))
        self.shortcut = nn.Sequential()
        if reduces or inputs != outputs:
            self.shortcut = nn.Sequential(
                *ConvNormAct(inputs, inputs, kernel, stride, groups=inputs, act=""),
                *ConvNormAct(inputs, outputs, 1, act=""),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        if self.dw is not None:
            y = self.dw(y)
        if self.se is not None:
            y = self.se(y)
        return self.attention(self.ghost2(y)) + self.shortcut(x)


def ghostnet(
    *,
    shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    head: int = 0,
    act: str = "relu",
    attention: str = "none",
    dropout: float = 0.2,
) -> nn.Sequential:
    """GhostNet (Han et al., 2020): floats [n, C, H, W] in 0..1 to logits [n, classes].

    At 224x224x3 with 1000 classes it has the published 5.2 million parameters. `width` scales the channels;
    `depth` the number of bottlenecks in the two stages that repeat; `head` is the channels of the last
    convolution, 0 for the published 1280, which do not scale. `attention` ends each bottleneck's main branch
    and leaves the published squeeze-and-excitation as it is. A small image is halved by as many of the five
    halvings, first ones first, as it can take: 28x28 by the stem and the second bottleneck.
    """
    blocks.require("ghostnet", width=(width, 0.01, 16), depth=(depth, 0, 16), head=(head, 0, 65536))
    blocks.require("ghostnet", dropout=(dropout, 0, 0.99))
    stem_stride, *halvings = blocks.strides(shape, 5)
    inputs, last = round_channels(16 * width, 4), head or 1280
    stem = ConvNormAct(shape[0], inputs, 3, stem_stride, act=act)
    stages: list[nn.Module] = []
    for rows in STAGES:
        count = max(1, round(len(rows) * depth))
        bottlenecks: list[nn.Module] = []
        for kernel, expanded, channels, gated, published in (rows + rows[-1:] * count)[:count]:
            middle, outputs = round_channels(expanded * width, 4), round_channels(channels * width, 4)
            stride = halvings.pop(0) if published == 2 else 1
            options = {"reduces": published == 2, "gated": gated}
            bottlenecks.append(
                Bottleneck(inputs, middle, outputs, kernel, stride, **options, act=act, attention=attention)
            )
            inputs = outputs
        stages.append(nn.Sequential(*bottlenecks))
    widest = round_channels(STAGES[-1][-1][1] * width, 4)
    return nn.Sequential(
        OrderedDict(
            stem=stem,
            blocks=nn.Sequential(*stages, ConvNormAct(inputs, widest, 1, act=act)),
            globalpool=nn.AdaptiveAvgPool2d(1),
            conv_head=nn.Conv2d(widest, last, 1),
            act_head=blocks.activation(act),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(dropout),
            classifier=nn.Linear(last, classes),
        )
    )
