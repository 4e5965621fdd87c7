"""The zoos that `netsuke compare` trains: a label, the architecture, its options."""

from __future__ import annotations

from typing import Any

Preset = tuple[str, dict[str, Any]]

# One of each family, narrow and shallow enough for 300 000 parameters on 28x28 grey images.
SMALL: dict[str, Preset] = {
    "lenet5": ("lenet5", {}),
    "convnet": ("convnet", {}),
    "alexnet": ("alexnet", {"width": 0.24}),
    "vgg11_bn": ("vgg11_bn", {"width": 0.125}),
    "resnet_small": ("resnet_small", {"depth": 2, "stem": 2}),
    "squeezenet": ("squeezenet", {"width": 0.25, "norm": True}),
    "separable": ("separable", {"width": 40}),
    "mobilenet_v1": ("mobilenet_v1", {"width": 0.25, "depth": 0.4}),
    "mobilenet_v2": ("mobilenet_v2", {"width": 0.2, "depth": 0.3}),
    "mobilenet_v3_small": ("mobilenet_v3_small", {"width": 0.35, "depth": 0.3}),
    "shufflenet_v2": ("shufflenet_v2", {"width": 0.25, "depth": 0.3, "head": 256}),
    "efficientnet_b0": ("efficientnet_b0", {"width": 0.12, "depth": 0.25}),
    "ghostnet": ("ghostnet", {"width": 0.15, "depth": 0.3, "head": 240}),
}
