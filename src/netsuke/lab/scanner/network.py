"""The scanner's network: depthwise-separable blocks that keep the width and give up the height."""

from __future__ import annotations

from torch import nn

from netsuke.lab.models.blocks import ConvNormAct
from netsuke.lab.models.separable import Residual
from netsuke.reader.scanner import SIGNS, TALL


def network(*, width: int = 64, depth: int = 4, along: int = 3) -> nn.Sequential:
    """[n, 1, 32, W] of bright ink to logits [n, 13, 1, W / 2]; "none" is one more class, its logit the constant 0.

    `depth` blocks see shapes at a quarter of the resolution down and half of it across; then the four rows become one,
    and `along` blocks of three halves of the `width` see some two digits to either side.
    """
    stem, middle, wide = max(4, width // 4), max(4, width // 2), 3 * width // 2
    return nn.Sequential(
        *ConvNormAct(1, stem, 5, (2, 1)),
        *_block(stem, middle, 3, 2),
        Residual(_block(middle, middle, 5, 1)),
        *_block(middle, width, 3, (2, 1)),
        *(Residual(_block(width, width, 5, 1)) for _ in range(depth)),
        *ConvNormAct(width, width, (TALL // 8, 1), groups=width, padding=0),
        *ConvNormAct(width, wide, 1),
        *(Residual(_block(wide, wide, (1, 7), 1)) for _ in range(along)),
        nn.Conv2d(wide, len(SIGNS), 1),
    )


def _block(
    inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int | tuple[int, int]
) -> nn.Sequential:
    return nn.Sequential(
        *ConvNormAct(inputs, inputs, kernel, stride, inputs), *ConvNormAct(inputs, outputs, 1)
    )
