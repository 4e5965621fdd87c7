"""The two LeNets that papers on compression measure themselves on, as Caffe's examples have them (Jia et al., 2014)."""

from __future__ import annotations

from torch import nn

from netsuke.lab.models import blocks


def lenet5_caffe(
    *,
    shape: blocks.Shape,
    classes: int,
    width: float = 1.0,
    norm: bool = False,
    act: str = "relu",
    pool: str = "max",
    dropout: float = 0.0,
) -> nn.Sequential:
    """conv20 - pool - conv50 - pool - dense500, 431 080 parameters at 28x28; to logits [n, classes].

    Takes [n, C, H, W] in 0..1. As in Caffe, the only activation stands behind the dense layer. `norm` puts a
    batch norm behind each layer but the last. Convolutions are unpadded, but padded below 20 pixels, where they
    would leave nothing to pool. Raises OptionError.
    """
    blocks.require("lenet5_caffe", width=(width, 0, 100), dropout=(dropout, 0, 1))
    first, second, dense = (blocks.scaled(n, width) for n in (20, 50, 500))
    padding = 2 if min(shape[1:]) < 20 else 0
    rows, columns = (max(1, ((side - 4 + 2 * padding) // 2 - 4 + 2 * padding) // 2) for side in shape[1:])

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 5, padding=padding, bias=not norm)]
        return layers + ([nn.BatchNorm2d(outputs)] if norm else []) + [blocks.pooling(pool, 2, 2)]

    return nn.Sequential(
        *block(shape[0], first),
        *block(first, second),
        nn.Flatten(),
        *_dense(second * rows * columns, dense, act, norm),
        nn.Dropout(dropout),
        nn.Linear(dense, classes),
    )


def lenet_300_100(
    *,
    shape: blocks.Shape,
    classes: int,
    width: float = 1.0,
    norm: bool = False,
    act: str = "relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """LeNet-300-100 (LeCun et al., 1998), 266 610 parameters at 28x28; to logits [n, classes].

    Takes [n, C, H, W] in 0..1. `norm` puts a batch norm before each activation. Raises OptionError.
    """
    blocks.require("lenet_300_100", width=(width, 0, 100), dropout=(dropout, 0, 1))
    first, second = (blocks.scaled(n, width) for n in (300, 100))
    return nn.Sequential(
        nn.Flatten(),
        *_dense(shape[0] * shape[1] * shape[2], first, act, norm),
        *_dense(first, second, act, norm),
        nn.Dropout(dropout),
        nn.Linear(second, classes),
    )


def _dense(inputs: int, outputs: int, act: str, norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Linear(inputs, outputs, bias=not norm)]
    return layers + ([nn.BatchNorm1d(outputs)] if norm else []) + [blocks.activation(act)]
