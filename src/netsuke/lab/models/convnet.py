"""The common small CNN: conv32 - pool - conv64 - pool - dense128, as in Keras' MNIST example."""

from __future__ import annotations

from torch import nn

from netsuke.errors import OptionError
from netsuke.lab.models import blocks


def convnet(
    *,
    shape: blocks.Shape,
    classes: int,
    width: float = 1.0,
    norm: bool = False,
    act: str = "relu",
    attention: str = "none",
    pool: str = "max",
    dropout: float = 0.5,
) -> nn.Sequential:
    """Two 3x3 convolutions with pooling, then two dense layers: [n, C, H, W] in 0..1 to logits [n, classes].

    `width` scales every layer; `norm` puts a batch norm behind each convolution. Convolutions are unpadded,
    but padded below 20 pixels, where they would leave nothing to pool. Pooling comes before the
    activation: for a max pool and a rising activation the result is the same, at a quarter of the work.
    """
    if not 0 < width < 100:
        raise OptionError(f"convnet: width must be above 0 and below 100; got {width:g}")
    first, second, dense = (max(1, round(n * width)) for n in (32, 64, 128))
    padding = 1 if min(shape[1:]) < 20 else 0
    rows, columns = (max(1, ((side - 2 + 2 * padding) // 2 - 2 + 2 * padding) // 2) for side in shape[1:])

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=padding, bias=not norm)]
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers += [blocks.pooling(pool, 2, 2), blocks.activation(act)]
        return layers + blocks.attention(attention, outputs)

    return nn.Sequential(
        *block(shape[0], first),
        *block(first, second),
        nn.Flatten(),
        nn.Linear(second * rows * columns, dense),
        blocks.activation(act),
        nn.Dropout(dropout),
        nn.Linear(dense, classes),
    )
