"""The zoos that `netsuke compare` trains: a label, the architecture, its options."""

from __future__ import annotations

from typing import Any

Preset = tuple[str, dict[str, Any]]

# One of each family that learns well under one plain recipe, narrow and shallow enough for 300 000 parameters on
# 28x28 grey images and for half a minute an epoch on one core.
SMALL: dict[str, Preset] = {
    "lenet5": ("lenet5", {}),
    "convnet": ("convnet", {}),
    "alexnet": ("alexnet", {"width": 0.24}),
    "vgg11_bn": ("vgg11_bn", {"width": 0.125}),
    "resnet_small": ("resnet_small", {"depth": 2, "stem": 2}),
    "separable": ("separable", {"width": 56}),
    "mobilenet_v1": ("mobilenet_v1", {"width": 0.25, "depth": 0.4}),
    "mobilenet_v2": ("mobilenet_v2", {"width": 0.2, "depth": 0.3}),
    "mobilenet_v3_small": ("mobilenet_v3_small", {"width": 0.5, "depth": 0.3, "dropout": 0.0}),
    "shufflenet_v2": ("shufflenet_v2", {"width": 0.25, "depth": 0.3, "head": 256}),
    "efficientnet_b0": ("efficientnet_b0", {"width": 0.12, "depth": 0.25}),
}

# Every architecture, under a million parameters each on such images. SqueezeNet and the MLP stay near 98 % on MNIST
# under the plain recipe: the one wants a larger learning rate, the other augmentation.
ALL: dict[str, Preset] = {
    "mlp": ("mlp", {"hidden": 256, "norm": True, "dropout": 0.2}),
    "lenet_300_100": ("lenet_300_100", {"dropout": 0.2}),
    "lenet5_caffe": ("lenet5_caffe", {"dropout": 0.5}),
    **SMALL,
    "vgg11": ("vgg11", {"width": 0.25}),
    "vgg13": ("vgg13", {"width": 0.25}),
    "vgg13_bn": ("vgg13_bn", {"width": 0.25}),
    "vgg16": ("vgg16", {"width": 0.25}),
    "vgg16_bn": ("vgg16_bn", {"width": 0.25}),
    "resnet18": ("resnet18", {"width": 0.25}),
    "resnet34": ("resnet34", {"width": 0.2}),
    "squeezenet": ("squeezenet", {"width": 0.25, "norm": True, "dropout": 0.0}),
    "mobilenet_v3_large": ("mobilenet_v3_large", {"width": 0.25}),
    "shufflenet_v1": ("shufflenet_v1", {"width": 0.25}),
    "ghostnet": ("ghostnet", {"width": 0.15, "depth": 0.3, "head": 240}),
}
