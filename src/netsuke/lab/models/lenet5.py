"""LeNet-5 (LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998)."""

from __future__ import annotations

from torch import nn

from netsuke.lab.models import blocks


def lenet5(
    *,
    shape: blocks.Shape,
    classes: int,
    act: str = "relu",
    attention: str = "none",
    pool: str = "avg",
    dropout: float = 0.0,
) -> nn.Sequential:
    """The 1998 layout, 6-16-120-84: [n, C, H, W] in 0..1 to logits [n, classes].

    28x28 images are padded to its 32x32; ReLU stands for the scaled tanh and a dense layer for the radial
    output units, as everybody does today; the sub-sampling is a plain average. With
    act="tanh" it comes nearer to the original.
    """
    rows, columns = (max(1, (side // 2 - 4) // 2) for side in shape[1:])
    return nn.Sequential(
        nn.Conv2d(shape[0], 6, 5, padding=2),
        blocks.activation(act),
        *blocks.attention(attention, 6),
        blocks.pooling(pool, 2, 2),
        nn.Conv2d(6, 16, 5),
        blocks.activation(act),
        *blocks.attention(attention, 16),
        blocks.pooling(pool, 2, 2),
        nn.Flatten(),
        nn.Linear(16 * rows * columns, 120),
        blocks.activation(act),
        nn.Linear(120, 84),
        blocks.activation(act),
        nn.Dropout(dropout),
        nn.Linear(84, classes),
    )
