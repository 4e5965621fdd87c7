"""The finder's network: depthwise-separable blocks at a quarter of the tile's resolution, and no dense layer."""

from __future__ import annotations

from torch import nn

from netsuke.lab.models.blocks import ConvNormAct
from netsuke.lab.models.separable import Residual
from netsuke.reader.finder import BOX, STRIDE


def network(*, width: int = 64, depth: int = 6, classes: int = 10) -> nn.Sequential:
    """[n, 1, S, S] of bright ink to [n, classes + 4, S / 4, S / 4]: logits, and how far a digit reaches from there.

    "No digit" is one more class whose logit is the constant 0. The last four are distances to the left, upper, right
    and lower side of the digit's box, in units of `UNIT` pixels (Tian et al., FCOS, 2019). Depthwise 5x5 kernels make
    the network see some two digits around each place: an o among letters is no 0.
    """
    stem, middle = max(4, width // 4), max(4, width // 2)
    return nn.Sequential(
        *ConvNormAct(1, stem, 5, 2),
        *_block(stem, middle, 3, 1),
        *_block(middle, width, 3, STRIDE // 2),
        *(Residual(_block(width, width, 5, 1)) for _ in range(depth)),
        nn.Conv2d(width, classes + BOX, 1),
    )


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *ConvNormAct(inputs, inputs, kernel, stride, inputs), *ConvNormAct(inputs, outputs, 1)
    )
