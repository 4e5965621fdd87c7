"""VGG (Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from netsuke.lab.models import blocks
from netsuke.lab.models.plain import PlainNet, grid_of

# Convolutions in each of the five stages; a pool follows every stage.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
CHANNELS = (64, 128, 256, 512, 512)

DOC = """{layers} layers of weights{norm}: [n, C, H, W] in 0..1 to logits [n, classes].

    `width` scales every layer. Images under 128 pixels keep as many of the five pools as leave four pixels,
    and end in a global average and dense layers of 512 units in place of 4096. Raises OptionError.
"""


def _vgg(layers: int, norm: bool) -> Callable[..., PlainNet]:
    name = f"vgg{layers}{'_bn' if norm else ''}"

    def vgg(
        *,
        shape: blocks.Shape,
        classes: int,
        width: float = 1.0,
        act: str = "relu",
        attention: str = "none",
        pool: str = "max",
        dropout: float = 0.5,
    ) -> PlainNet:
        blocks.require(name, width=(width, 0.01, 16), dropout=(dropout, 0, 1))
        halve = blocks.strides(shape, 5)
        full = halve[4] == 2
        parts: list[nn.Module] = []
        inputs = shape[0]
        for stage, depth in enumerate(STAGES[layers]):
            outputs = blocks.scaled(CHANNELS[stage], width)
            for _ in range(depth):
                parts.append(nn.Conv2d(inputs, outputs, 3, padding=1))
                parts += [nn.BatchNorm2d(outputs)] if norm else []
                parts += [blocks.activation(act), *blocks.attention(attention, outputs)]
                inputs = outputs
            parts.append(blocks.pooling(pool, 2, 2) if halve[stage] == 2 else nn.Identity())
        features = nn.Sequential(*parts)
        size = blocks.map_size(features, shape)
        grid = grid_of(size) if full else (1, 1)
        hidden = blocks.scaled(4096 if full else 512, width)
        classifier = nn.Sequential(
            nn.Linear(size[0] * grid[0] * grid[1], hidden),
            blocks.activation(act),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            blocks.activation(act),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        blocks.initialise(features)
        return PlainNet(features, grid, classifier)

    vgg.__name__ = vgg.__qualname__ = name
    vgg.__doc__ = DOC.format(layers=layers, norm=", batch norm behind each convolution" if norm else "")
    return vgg


vgg11, vgg13, vgg16 = _vgg(11, False), _vgg(13, False), _vgg(16, False)
vgg11_bn, vgg13_bn, vgg16_bn = _vgg(11, True), _vgg(13, True), _vgg(16, True)
