"""EfficientNet: inverted residuals scaled in width and depth together."""

from __future__ import annotations

from math import ceil

from torch import nn

from netsuke.lab.models.blocks import (
    ConvNormAct,
    SqueezeExcitation,
    classifier_of,
    initialise,
    require,
    round_channels,
    strides,
)
from netsuke.lab.models.blocks import (
    attention as attend,
)
from netsuke.lab.models.mobilenet_v3 import InvertedResidual

# Expansion, kernel, channels, blocks, and whether the first block halves the map.
STAGES = [
    (1, 3, 16, 1, False),
    (6, 3, 24, 2, True),
    (6, 5, 40, 2, True),
    (6, 3, 80, 3, True),
    (6, 5, 112, 3, False),
    (6, 5, 192, 4, True),
    (6, 3, 320, 1, False),
]
# Width, depth and dropout of B0 to B7, as published.
SCALES = [
    (1.0, 1.0, 0.2),
    (1.0, 1.1, 0.2),
    (1.1, 1.2, 0.3),
    (1.2, 1.4, 0.3),
    (1.4, 1.8, 0.4),
    (1.6, 2.2, 0.4),
    (1.8, 2.6, 0.5),
    (2.0, 3.1, 0.5),
]
DROP = 0.2  # of a branch, in training; grows from 0 at the first block


def _gates(kind: str, inputs: int, hidden: int, act: str) -> list[nn.Module]:
    if kind in ("none", "se"):
        return [SqueezeExcitation(hidden, max(1, inputs // 4), act)]
    return attend(kind, hidden)


def efficientnet_b0(
    *,
    shape: tuple[int, int, int],
    classes: int,
    phi: int = 0,
    width: float = 1.0,
    depth: float = 1.0,
    head: int = 0,
    act: str = "silu",
    attention: str = "none",
    dropout: float = -1.0,
) -> nn.Sequential:
    """Tan and Le, EfficientNet, 2019: [n, C, H, W] in 0..1 to [n, classes], named as in torchvision.

    `phi` 0 to 7 scales width, depth and dropout to those of B0 to B7; `width` and `depth` multiply on top of that.
    `head` sets the channels of the last convolution (0: four times those before it), `dropout` -1 is as published.
    `attention` "none" and "se" are as published, squeeze-and-excitation in every block; "cbam" takes its place.
    """
    require(
        "efficientnet_b0",
        phi=(phi, 0, 7),
        width=(width, 0.01, 16),
        depth=(depth, 0.01, 16),
        head=(head, 0, 65536),
        dropout=(dropout, -1, 1),
    )
    wider, deeper, published = SCALES[phi]
    # As the published weights were trained, on large images.
    eps, momentum = (1e-3, 1e-2) if phi >= 5 and min(shape[1:]) >= 64 else (1e-5, 0.1)
    counts = [ceil(count * deeper * depth) for *_, count, _ in STAGES]
    steps = iter(strides(shape, 5))
    inputs = round_channels(32 * wider * width)
    layers: list[nn.Module] = [
        ConvNormAct(shape[0], inputs, 3, next(steps), act=act, eps=eps, momentum=momentum)
    ]
    done = 0
    for (expansion, kernel, channels, _, halves), count in zip(STAGES, counts, strict=True):
        outputs = round_channels(channels * wider * width)
        stage = []
        for i in range(count):
            hidden = round_channels(inputs * expansion)
            stride = next(steps) if halves and i == 0 else 1
            gates = _gates(attention, inputs, hidden, act)
            drop = DROP * done / sum(counts)
            stage.append(
                InvertedResidual(inputs, hidden, outputs, kernel, stride, act, gates, eps, momentum, drop)
            )
            inputs, done = outputs, done + 1
        layers.append(nn.Sequential(*stage))
    head = head or 4 * inputs
    layers.append(ConvNormAct(inputs, head, 1, act=act, eps=eps, momentum=momentum))
    last = nn.Linear(head, classes)
    model = initialise(classifier_of(layers, [nn.Dropout(published if dropout < 0 else dropout), last]))
    nn.init.uniform_(last.weight, -(classes**-0.5), classes**-0.5)
    return model
