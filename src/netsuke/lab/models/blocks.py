"""What several architectures are built of: normed convolutions, activations, attention, strides for any image size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import log2
from typing import Any

import torch
from torch import Tensor, nn

from netsuke.errors import OptionError

Shape = tuple[int, int, int]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "prelu": nn.PReLU,
    "silu": lambda: nn.SiLU(inplace=True),
    "hardswish": lambda: nn.Hardswish(inplace=True),
    "hardsigmoid": lambda: nn.Hardsigmoid(inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise OptionError(f"no activation {name!r}; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


class Standardize(nn.Module):
    """(x - mean) / std, a mean and a deviation a channel: what a network's weights were trained to see.

    In front of everything else; lowering makes it the graph's `normalize` op. It learns nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        if len(mean) != len(std) or not all(0 < s < float("inf") for s in std):
            raise OptionError(f"a mean and a deviation above 0 a channel; got {list(mean)} and {list(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm and, unless `act` is "", an activation: parts 0, 1 and 2.

    `padding` keeps the size at stride 1 when it is left out.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
        act: str = "relu",
        eps: float = 1e-5,
        momentum: float = 0.1,
        padding: int | None = None,
    ):
        rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        sides = ((rows - 1) // 2, (columns - 1) // 2) if padding is None else (padding, padding)
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, sides, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=eps, momentum=momentum),
        ]
        super().__init__(*layers, *([activation(act)] if act else []))


class SqueezeExcitation(nn.Module):
    """Each channel times a gate that looks at the mean of all channels: [n, C, H, W] to the same.

    Hu et al., Squeeze-and-Excitation Networks, 2018. `squeeze` is the number of hidden units.
    """

    def __init__(self, channels: int, squeeze: int, act: str = "relu", gate: str = "sigmoid"):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.fc2 = nn.Conv2d(squeeze, channels, 1)
        self.activation = activation(act)
        self.scale_activation = activation(gate)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return x * gate


class CBAM(nn.Module):
    """A gate a channel, then a gate a pixel: [n, C, H, W] to the same.

    Woo et al., CBAM: Convolutional Block Attention Module, 2018.
    """

    def __init__(self, channels: int, squeeze: int, kernel: int = 7):
        super().__init__()
        self.avgpool, self.maxpool = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.fc2 = nn.Conv2d(squeeze, channels, 1)
        self.activation, self.gate = nn.ReLU(), nn.Sigmoid()
        self.spatial = ConvNormAct(2, 1, kernel, act="sigmoid")

    def forward(self, x: Tensor) -> Tensor:
        mean = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        peak = self.fc2(self.activation(self.fc1(self.maxpool(x))))
        x = x * self.gate(mean + peak)
        return x * self.spatial(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))


ATTENTION: dict[str, Callable[[int, int], nn.Module] | None] = {
    "none": None,
    "se": SqueezeExcitation,
    "cbam": CBAM,
}


def attention(kind: str, channels: int, reduction: int = 8) -> list[nn.Module]:
    """The attention block for so many channels, in a list that is empty for "none"."""
    if kind not in ATTENTION:
        raise OptionError(f"no attention {kind!r}; there are {', '.join(ATTENTION)}")
    make = ATTENTION[kind]
    return [make(channels, max(2, channels // reduction))] if make else []


class StochasticDepth(nn.Module):
    """In training, drops a branch for a random `p` of the images (Huang et al., 2016); nothing otherwise."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.p
        return x * keep / (1 - self.p)


def classifier_of(features: Sequence[nn.Module], head: Sequence[nn.Module]) -> nn.Sequential:
    """Layers, global average pooling, dense layers: parameters are named features.* and classifier.*."""
    parts = {
        "features": nn.Sequential(*features),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Sequential(*head),
    }
    return nn.Sequential(OrderedDict(parts))


def initialise(model: nn.Sequential) -> nn.Sequential:
    """The weights that most ImageNet recipes start from: He et al. by the outputs, dense layers near zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def pooling(kind: str, kernel: int, stride: int, ceil: bool = False) -> nn.Module:
    """A "max" or "avg" pool without padding; `ceil` lets a max pool end beyond the map's edge."""
    if kind not in ("max", "avg"):
        raise OptionError(f"no pool {kind!r}; there are max, avg")
    return nn.MaxPool2d(kernel, stride, ceil_mode=ceil) if kind == "max" else nn.AvgPool2d(kernel, stride)


def scaled(channels: int, width: float) -> int:
    """So many channels times `width`, at least one."""
    return max(1, round(channels * width))


def round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, but never under 90 % of it (MobileNet's rule)."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def strides(shape: Shape, count: int) -> list[int]:
    """2 for each of the first of `count` halvings that leave a map of 4 pixels or more, 1 for the others.

    224-pixel images take all five of an ImageNet network, 28-pixel ones the first two.
    """
    halvings = max(0, int(log2(max(1, min(shape[1:])) / 4))) if min(shape[1:]) >= 4 else 0
    return [2 if i < halvings else 1 for i in range(count)]


def require(model: str, **values: tuple[float, float, float]) -> None:
    """Check options given as name=(value, low, high), both ends included. Raises OptionError."""
    for name, (value, low, high) in values.items():
        if not low <= value <= high:
            raise OptionError(f"{model}: {name} must be {low:g} to {high:g}; got {value:g}")


def map_size(features: nn.Module, shape: Shape) -> tuple[int, ...]:
    """(C, H, W) that `features` make of one black image.

    Raises OptionError naming the layer that does not fit its input, and what arrives there.
    """
    arriving: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            arriving.append((name, module, tuple(inputs[0].shape[1:])))

        return hook

    leaves = [(name, m) for name, m in features.named_modules() if not list(m.children())]
    handles = [m.register_forward_pre_hook(note(name)) for name, m in leaves]
    was = features.training
    try:
        with torch.no_grad():
            out = features.eval()(torch.zeros(1, *shape))
    except RuntimeError as error:
        name, layer, size = arriving[-1] if arriving else ("", features, shape)
        raise OptionError(
            f"layer {name!r} ({type(layer).__name__}) cannot work on the {'x'.join(map(str, size))} map "
            f"that arrives there from a {shape[1]}x{shape[2]} image; larger images would fit"
        ) from error
    finally:
        features.train(was)
        for handle in handles:
            handle.remove()
    return tuple(out.shape[1:])
