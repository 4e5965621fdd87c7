"""AlexNet, the one-column version (Krizhevsky, One weird trick for parallelizing CNNs, 2014)."""

from __future__ import annotations

from torch import nn

from netsuke.lab.models import blocks
from netsuke.lab.models.plain import PlainNet, grid_of

CHANNELS = (64, 192, 384, 256, 256)


def alexnet(
    *,
    shape: blocks.Shape,
    classes: int,
    width: float = 1.0,
    act: str = "relu",
    attention: str = "none",
    pool: str = "max",
    dropout: float = 0.5,
) -> PlainNet:
    """Five convolutions and three dense layers: [n, C, H, W] in 0..1 to logits [n, classes].

    `width` scales every layer. Images under 128 pixels get a 5x5 stem, as many of the five halvings as
    leave four pixels, and dense layers of 256 units in place of 4096. Raises OptionError.
    """
    blocks.require("alexnet", width=(width, 0.01, 16), dropout=(dropout, 0, 1))
    halve = blocks.strides(shape, 5)
    full = halve[4] == 2
    channels = [blocks.scaled(n, width) for n in CHANNELS]

    def conv(i: int, kernel: int, stride: int = 1, padding: int | None = None) -> list[nn.Module]:
        padding = kernel // 2 if padding is None else padding
        inputs = channels[i - 1] if i else shape[0]
        return [
            nn.Conv2d(inputs, channels[i], kernel, stride, padding),
            blocks.activation(act),
            *blocks.attention(attention, channels[i]),
        ]

    def halved(i: int) -> nn.Module:
        return blocks.pooling(pool, 3, 2) if halve[i] == 2 else nn.Identity()

    features = nn.Sequential(
        *(conv(0, 11, 4, 2) if full else conv(0, 5, halve[0])),
        halved(1),
        *conv(1, 5),
        halved(2),
        *conv(2, 3),
        *conv(3, 3),
        *conv(4, 3),
        halved(3),
    )
    size = blocks.map_size(features, shape)
    grid = grid_of(size)
    hidden = blocks.scaled(4096 if full else 256, width)
    classifier = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(size[0] * grid[0] * grid[1], hidden),
        blocks.activation(act),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        blocks.activation(act),
        nn.Linear(hidden, classes),
    )
    return PlainNet(features, grid, classifier)
