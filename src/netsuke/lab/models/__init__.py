"""Architectures: each a plain function of the image shape and the number of classes; add a line to `MODELS`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from netsuke.errors import OptionError
from netsuke.lab.models.alexnet import alexnet
from netsuke.lab.models.blocks import map_size
from netsuke.lab.models.convnet import convnet
from netsuke.lab.models.efficientnet import efficientnet_b0
from netsuke.lab.models.ghostnet import ghostnet
from netsuke.lab.models.lenet5 import lenet5
from netsuke.lab.models.lenet_caffe import lenet5_caffe, lenet_300_100
from netsuke.lab.models.mlp import mlp
from netsuke.lab.models.mobilenet_v1 import mobilenet_v1
from netsuke.lab.models.mobilenet_v2 import mobilenet_v2
from netsuke.lab.models.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from netsuke.lab.models.presets import ALL, SMALL, Preset
from netsuke.lab.models.resnet import resnet18, resnet34, resnet_small
from netsuke.lab.models.separable import separable
from netsuke.lab.models.shufflenet_v1 import shufflenet_v1
from netsuke.lab.models.shufflenet_v2 import shufflenet_v2
from netsuke.lab.models.squeezenet import squeezenet
from netsuke.lab.models.vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "lenet5": lenet5,
    "lenet5_caffe": lenet5_caffe,
    "lenet_300_100": lenet_300_100,
    "convnet": convnet,
    "alexnet": alexnet,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg11_bn": vgg11_bn,
    "vgg13_bn": vgg13_bn,
    "vgg16_bn": vgg16_bn,
    "resnet_small": resnet_small,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "squeezenet": squeezenet,
    "separable": separable,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet_v3_large,
    "shufflenet_v1": shufflenet_v1,
    "shufflenet_v2": shufflenet_v2,
    "efficientnet_b0": efficientnet_b0,
    "ghostnet": ghostnet,
}


ZOO: dict[str, dict[str, Preset]] = {"small": SMALL, "all": ALL}

KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}


def options_of(name: str) -> dict[str, Any]:
    """The options of an architecture, each with its default."""
    parameters = inspect.signature(MODELS[name]).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("shape", "classes")}


def build(
    name: str, shape: tuple[int, int, int], classes: int, /, *, seed: int = 0, **options: Any
) -> nn.Module:
    """The named network for images [C, H, W], with its own options and initial weights drawn by `seed`.

    Raises OptionError for an unknown name or option, naming the ones there are, and for an impossible value;
    where a layer gets a map that it empties, it names the layer and the map.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise OptionError(f"no model {name!r}; there are {', '.join(MODELS)}{hint}")
    known = {key: type(default) for key, default in options_of(name).items()}
    unknown = set(options) - set(known)
    if unknown:
        raise OptionError(f"{name} has no option {sorted(unknown)[0]!r}; it takes {', '.join(known)}")
    for key, value in options.items():
        kind = known[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise OptionError(f"{name}: {key} must be {KINDS[kind]}; got {value!r}")
    torch.manual_seed(seed)
    try:
        model = MODELS[name](shape=shape, classes=classes, **options)
        map_size(model, shape)
    except OptionError as error:
        text = str(error)
        raise OptionError(text if text.startswith(name) else f"{name}: {text}") from None
    except (ValueError, RuntimeError, MemoryError) as error:  # what torch thinks of an option
        raise OptionError(f"{name}: {str(error).splitlines()[0]}") from error
    return model
