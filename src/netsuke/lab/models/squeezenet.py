"""SqueezeNet 1.1 (Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netsuke.lab.models import blocks


class Fire(nn.Module):
    """1x1 convolutions squeeze, 1x1 and 3x3 ones expand side by side: [n, inputs, H, W] to [n, 2 * expand, H, W]."""

    def __init__(self, inputs: int, squeeze: int, expand: int, act: str, norm: bool):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.squeeze_activation = self._activation(squeeze, act, norm)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = self._activation(expand, act, norm)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = self._activation(expand, act, norm)

    @staticmethod
    def _activation(channels: int, act: str, norm: bool) -> nn.Module:
        return nn.Sequential(*([nn.BatchNorm2d(channels)] if norm else []), blocks.activation(act))

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        narrow = self.expand1x1_activation(self.expand1x1(x))
        wide = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([narrow, wide], 1)


class SqueezeNet(nn.Module):
    """`features`, then a `classifier` that yields a map of 1x1."""

    def __init__(self, features: nn.Module, classifier: nn.Module):
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


def squeezenet(
    *,
    shape: blocks.Shape,
    classes: int,
    width: float = 1.0,
    act: str = "relu",
    attention: str = "none",
    pool: str = "max",
    norm: bool = False,
    dropout: float = 0.5,
) -> SqueezeNet:
    """A stem, eight fire modules, a 1x1 convolution and a global average: [n, C, H, W] in 0..1 to [n, classes].

    `width` scales the channels; `norm` puts a batch norm behind each convolution but the last; attention
    stands behind the stem and each fire module. Images under 64 pixels keep as many of the four halvings
    as leave four pixels; the weights have the same shapes at every size.
    """
    blocks.require("squeezenet", width=(width, 0.01, 16), dropout=(dropout, 0, 1))
    halve = blocks.strides(shape, 4)
    inputs = stem = blocks.scaled(64, width)
    # The stem is unpadded, which a map of a few pixels cannot afford.
    parts: list[nn.Module] = [nn.Conv2d(shape[0], stem, 3, halve[0], padding=2 - halve[0])]
    parts += [nn.BatchNorm2d(stem)] if norm else []
    parts += [blocks.activation(act), *blocks.attention(attention, stem)]
    for stage, fires in enumerate(
        (((16, 64),) * 2, ((32, 128),) * 2, ((48, 192),) * 2 + ((64, 256),) * 2), 1
    ):
        parts.append(blocks.pooling(pool, 3, 2, ceil=True) if halve[stage] == 2 else nn.Identity())
        for squeeze, expand in fires:
            squeeze, expand = blocks.scaled(squeeze, width), blocks.scaled(expand, width)
            parts += [Fire(inputs, squeeze, expand, act, norm), *blocks.attention(attention, 2 * expand)]
            inputs = 2 * expand
    last = nn.Conv2d(inputs, classes, 1)
    model = SqueezeNet(
        nn.Sequential(*parts),
        nn.Sequential(nn.Dropout(dropout), last, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)),
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    nn.init.normal_(last.weight, std=0.01)
    return model
