"""Residual networks of basic blocks (He et al., Deep Residual Learning for Image Recognition, 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from netsuke.lab.models import blocks


class BasicBlock(nn.Module):
    """act(x + attention(f(x))), f two normed 3x3 convolutions: [n, inputs, H, W] to [n, outputs, H', W'].

    The first activation works on a value of its own, the second on the sum: the shortcut stays untouched.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, act: str, attention: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = blocks.activation(act)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.attention = nn.Sequential(*blocks.attention(attention, outputs))
        self.downsample: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample = blocks.ConvNormAct(inputs, outputs, 1, stride, act="")
        self.act = blocks.activation(act)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.attention(self.bn2(self.conv2(inner)))
        return self.act(inner + self.downsample(x))


class ResNet(nn.Module):
    """A normed stem, perhaps a pool, stages of blocks, global average, dense: the names are torchvision's."""

    def __init__(
        self,
        stem: nn.Conv2d,
        pool: nn.Module,
        stages: Sequence[tuple[int, int, int]],
        classes: int,
        act: str,
        attention: str,
        dropout: float,
    ):
        """`stages` are (channels, blocks, stride of the first block)."""
        super().__init__()
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(stem.out_channels)
        self.relu = blocks.activation(act)
        self.maxpool = pool
        inputs = stem.out_channels
        for i, (channels, depth, stride) in enumerate(stages, 1):
            stage = nn.Sequential(BasicBlock(inputs, channels, stride, act, attention))
            stage.extend(BasicBlock(channels, channels, 1, act, attention) for _ in range(depth - 1))
            self.add_module(f"layer{i}", stage)
            inputs = channels
        self.stages = len(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{i}")(x)
        return self.fc(self.dropout(self.flatten(self.avgpool(x))))


def _imagenet(
    depths: tuple[int, ...],
    shape: blocks.Shape,
    classes: int,
    width: float,
    act: str,
    attention: str,
    dropout: float,
) -> ResNet:
    first, second, *later = blocks.strides(shape, 5)
    channels = [blocks.scaled(n, width) for n in (64, 128, 256, 512)]
    return ResNet(
        nn.Conv2d(shape[0], channels[0], 7, first, 3, bias=False),
        nn.MaxPool2d(3, 2, 1) if second == 2 else nn.Identity(),
        list(zip(channels, depths, [1, *later], strict=True)),
        classes,
        act,
        attention,
        dropout,
    )


def resnet18(
    *,
    shape: blocks.Shape,
    classes: int,
    width: float = 1.0,
    act: str = "relu",
    attention: str = "none",
    dropout: float = 0.0,
) -> ResNet:
    """Eight basic blocks: [n, C, H, W] in 0..1 to logits [n, classes].

    `width` scales the channels, `dropout` acts before the dense layer. Images under 128 pixels keep as many
    of the five halvings as leave four pixels; the weights have the same shapes at every size.
    """
    blocks.require("resnet18", width=(width, 0.01, 16), dropout=(dropout, 0, 1))
    return _imagenet((2, 2, 2, 2), shape, classes, width, act, attention, dropout)


def resnet34(
    *,
    shape: blocks.Shape,
    classes: int,
    width: float = 1.0,
    act: str = "relu",
    attention: str = "none",
    dropout: float = 0.0,
) -> ResNet:
    """Sixteen basic blocks, the rest as in `resnet18`."""
    blocks.require("resnet34", width=(width, 0.01, 16), dropout=(dropout, 0, 1))
    return _imagenet((3, 4, 6, 3), shape, classes, width, act, attention, dropout)


def resnet_small(
    *,
    shape: blocks.Shape,
    classes: int,
    width: float = 1.0,
    depth: int = 3,
    stem: int = 1,
    act: str = "relu",
    attention: str = "none",
    dropout: float = 0.0,
) -> ResNet:
    """The paper's networks for small images, 16-32-64 channels: [n, C, H, W] in 0..1 to logits [n, classes].

    `depth` basic blocks a stage make 6 * depth + 2 layers: 3 is ResNet-20. Shortcuts that change the shape
    are normed 1x1 convolutions. From 64 pixels the stem is strided too, from 128 a pool follows it; `stem`
    strides it (2) at any size, for a quarter of the work.
    """
    blocks.require("resnet_small", width=(width, 0.01, 64), depth=(depth, 1, 64), stem=(stem, 1, 2))
    blocks.require("resnet_small", dropout=(dropout, 0, 1))
    second, third, _, first, pool = blocks.strides(shape, 5)
    channels = [blocks.scaled(n, width) for n in (16, 32, 64)]
    return ResNet(
        nn.Conv2d(shape[0], channels[0], 3, max(stem, first), 1, bias=False),
        nn.MaxPool2d(3, 2, 1) if pool == 2 else nn.Identity(),
        list(zip(channels, [depth] * 3, (1, second, third), strict=True)),
        classes,
        act,
        attention,
        dropout,
    )
