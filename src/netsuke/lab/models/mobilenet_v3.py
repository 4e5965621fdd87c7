"""MobileNet V3: inverted residuals with squeeze-and-excitation and hard-swish, found by search."""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn

from netsuke.lab.models.blocks import (
    ConvNormAct,
    Shape,
    SqueezeExcitation,
    StochasticDepth,
    activation,
    classifier_of,
    initialise,
    require,
    round_channels,
    strides,
)
from netsuke.lab.models.blocks import (
    attention as attend,
)

EPS = 1e-3  # of the batch norms, as published

# A stage: channels, kernel, squeezes, swishes (else ReLU), halves at its first block, expanded channels of its blocks.
Stage = tuple[int, int, bool, bool, bool, list[int]]
SMALL: list[Stage] = [
    (16, 3, True, False, True, [16]),
    (24, 3, False, False, True, [72, 88]),
    (40, 5, True, True, True, [96, 240, 240]),
    (48, 5, True, True, False, [120, 144]),
    (96, 5, True, True, True, [288, 576, 576]),
]
LARGE: list[Stage] = [
    (16, 3, False, False, False, [16]),
    (24, 3, False, False, True, [64, 72]),
    (40, 5, True, False, True, [72, 120, 120]),
    (80, 3, False, True, True, [240, 200, 184, 184]),
    (112, 3, True, True, False, [480, 672]),
    (160, 5, True, True, True, [672, 960, 960]),
]


class InvertedResidual(nn.Module):
    """Widen to `hidden`, a depthwise convolution, gates, narrow; the input is added where it fits.

    [n, inputs, H, W] to [n, outputs, H / stride, W / stride]. `drop` is the chance that training leaves the
    branch out.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        stride: int,
        act: str,
        gates: list[nn.Module],
        eps: float,
        momentum: float,
        drop: float = 0.0,
    ):
        super().__init__()

        def conv(
            a: int, b: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = act
        ) -> nn.Module:
            return ConvNormAct(a, b, kernel, stride, groups, act, eps, momentum)

        self.residual = stride == 1 and inputs == outputs
        self.block = nn.Sequential(
            *([conv(inputs, hidden)] if hidden != inputs else []),
            conv(hidden, hidden, kernel, stride, groups=hidden),
            *gates,
            conv(hidden, outputs, act=""),
        )
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.stochastic_depth(self.block(x)) if self.residual else self.block(x)


def _gates(kind: str, squeezes: bool, hidden: int) -> list[nn.Module]:
    if kind == "se" or (kind == "none" and squeezes):
        return [SqueezeExcitation(hidden, round_channels(hidden // 4), gate="hardsigmoid")]
    return attend(kind, hidden)


def _mobilenet_v3(
    name: str,
    stages: list[Stage],
    hidden_head: int,
    shape: Shape,
    classes: int,
    width: float,
    depth: float,
    head: int,
    act: str,
    attention: str,
    dropout: float,
) -> nn.Sequential:
    require(
        name,
        width=(width, 0.01, 16),
        depth=(depth, 0.01, 16),
        head=(head, 0, 65536),
        dropout=(dropout, 0, 1),
    )
    # Published for ImageNet's million steps; in the hundreds of a small set its averages would not arrive.
    momentum = 0.01 if min(shape[1:]) >= 64 else 0.1
    steps = iter(strides(shape, 5))
    inputs = round_channels(stages[0][0] * width)
    layers: list[nn.Module] = [
        ConvNormAct(shape[0], inputs, 3, next(steps), act=act, eps=EPS, momentum=momentum)
    ]
    for channels, kernel, squeezes, swishes, halves, expanded in stages:
        outputs = round_channels(channels * width)
        count = ceil(len(expanded) * depth)
        for i, wide in enumerate((expanded + [expanded[-1]] * count)[:count]):
            hidden = round_channels(wide * width)
            stride = next(steps) if halves and i == 0 else 1
            gates = _gates(attention, squeezes, hidden)
            own = act if swishes else "relu"
            layers.append(
                InvertedResidual(inputs, hidden, outputs, kernel, stride, own, gates, EPS, momentum)
            )
            inputs = outputs
    layers.append(ConvNormAct(inputs, 6 * inputs, 1, act=act, eps=EPS, momentum=momentum))
    head = head or round_channels(hidden_head * width)
    last = [nn.Linear(6 * inputs, head), activation(act), nn.Dropout(dropout), nn.Linear(head, classes)]
    return initialise(classifier_of(layers, last))


def mobilenet_v3_small(
    *,
    shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    head: int = 0,
    act: str = "hardswish",
    attention: str = "none",
    dropout: float = 0.2,
) -> nn.Sequential:
    """Howard et al., Searching for MobileNetV3, 2019: [n, C, H, W] in 0..1 to [n, classes], named as in torchvision.

    `width` multiplies channels (rounded to eights), `depth` the blocks of a stage (at least one stays; more
    repeat its last). `head` sets the units of the hidden dense layer (0: 1024 times `width`). `act` stands where
    the paper has hard-swish; the first stages keep ReLU. `attention` "none" is as published, squeeze-and-excitation
    in some blocks; "se" gives it to all, "cbam" puts CBAM into all, in its place.
    """
    return _mobilenet_v3(
        "mobilenet_v3_small", SMALL, 1024, shape, classes, width, depth, head, act, attention, dropout
    )


def mobilenet_v3_large(
    *,
    shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    head: int = 0,
    act: str = "hardswish",
    attention: str = "none",
    dropout: float = 0.2,
) -> nn.Sequential:
    """The large network of the same paper, with 1280 hidden units; options as for `mobilenet_v3_small`."""
    return _mobilenet_v3(
        "mobilenet_v3_large", LARGE, 1280, shape, classes, width, depth, head, act, attention, dropout
    )
