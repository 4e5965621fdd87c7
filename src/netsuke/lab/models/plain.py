"""What AlexNet and VGG share: convolutions and pools in one line, then dense layers on the flattened map."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlainNet(nn.Module):
    """`features`, an average to a grid of rows and columns, `classifier`: the names are torchvision's."""

    def __init__(self, features: nn.Module, grid: tuple[int, int], classifier: nn.Module):
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(grid)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def grid_of(size: tuple[int, ...]) -> tuple[int, int]:
    """The map's own rows and columns up to the 7x7 of a 224-pixel image, 1x1 for a larger map [C, H, W].

    Anything between would be an adaptive pool with uneven windows, which no runtime has.
    """
    return (size[1], size[2]) if max(size[1:]) <= 7 else (1, 1)
