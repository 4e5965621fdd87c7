"""Architectures: each a plain function of the image shape and the number of classes; add a line to `MODELS`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from netsuke.errors import OptionError
from netsuke.lab.models.convnet import convnet
from netsuke.lab.models.lenet5 import lenet5
from netsuke.lab.models.separable import separable

MODELS: dict[str, Callable[..., nn.Module]] = {"convnet": convnet, "lenet5": lenet5, "separable": separable}


KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def build(
    name: str, shape: tuple[int, int, int], classes: int, /, *, seed: int = 0, **options: Any
) -> nn.Module:
    """The named network for images [C, H, W], with its own options and initial weights drawn by `seed`.

    Raises OptionError for an unknown name or option, naming the ones there are, and for an impossible value.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise OptionError(f"no model {name!r}; there are {', '.join(MODELS)}{hint}")
    parameters = inspect.signature(MODELS[name]).parameters
    known = {key: type(p.default) for key, p in parameters.items() if key not in ("shape", "classes")}
    unknown = set(options) - set(known)
    if unknown:
        raise OptionError(f"{name} has no option {sorted(unknown)[0]!r}; it takes {', '.join(known)}")
    for key, value in options.items():
        kind = known[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise OptionError(f"{name}: {key} must be {KINDS[kind]}; got {value!r}")
    torch.manual_seed(seed)
    try:
        return MODELS[name](shape=shape, classes=classes, **options)
    except (ValueError, RuntimeError, MemoryError) as error:  # what torch thinks of an option
        raise OptionError(f"{name}: {str(error).splitlines()[0]}") from error
