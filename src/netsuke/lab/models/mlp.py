"""The multilayer perceptron: dense layers alone (Rumelhart et al., 1986), with batch norm (Ioffe and Szegedy, 2015)."""

from __future__ import annotations

from torch import nn

from netsuke.lab.models import blocks


def mlp(
    *,
    shape: blocks.Shape,
    classes: int,
    hidden: int = 128,
    depth: int = 2,
    act: str = "relu",
    norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """`depth` hidden layers of `hidden` units: [n, C, H, W] in 0..1 to logits [n, classes].

    `norm` puts a batch norm before each activation. Raises OptionError.
    """
    blocks.require("mlp", hidden=(hidden, 1, 65536), depth=(depth, 0, 256), dropout=(dropout, 0, 1))
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = shape[0] * shape[1] * shape[2]
    for _ in range(depth):
        layers.append(nn.Linear(inputs, hidden, bias=not norm))
        layers += [nn.BatchNorm1d(hidden)] if norm else []
        layers += [blocks.activation(act), nn.Dropout(dropout)]
        inputs = hidden
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
