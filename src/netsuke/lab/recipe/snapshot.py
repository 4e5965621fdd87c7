"""A module between two steps as plain data on disk: structure, weights, masks, codebooks; nothing is pickled.

A graph of ours is taken apart, attribute by attribute, and put together again from classes of netsuke and torch.nn.
Any other module keeps its structure over a training, so its weights alone are stored, for a copy of the start.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netsuke.errors import OptionError

CLASSES = ("netsuke.", "torch.nn.")
PLAIN = (str, int, float, bool, type(None), Tensor)
OWN = frozenset(nn.Module().__dict__) - {"training"}  # what every module has; the rest is the class's own


def state(module: nn.Module) -> dict[str, Any]:
    """A module as plain data for a checkpoint."""
    ours = hasattr(module, "to_graph")  # it describes itself, so its parts are ours as well
    if ours:
        return {"graph": _module(module)}
    return {"state": module.state_dict(), "coding": getattr(module, "coding", "")}  # the mark of `encode`


def module(kept: Mapping[str, Any], start: nn.Module) -> nn.Module:
    """The module of a `state`; `start` gives the structure where only weights were kept."""
    if "graph" in kept:
        built = _built(kept["graph"])
        assert isinstance(built, nn.Module)
        return built
    twin = copy.deepcopy(start)
    twin.load_state_dict(kept["state"])
    if kept["coding"]:
        twin.coding = kept["coding"]
    return twin


# --- apart ------------------------------------------------------------------------------------------


def _module(part: nn.Module) -> dict[str, Any]:
    formed = parametrize.is_parametrized(part)
    kind = parametrize.type_before_parametrizations(part)
    children = {n: m for n, m in part._modules.items() if not (formed and n == "parametrizations")}
    return {
        "module": _name(kind),
        "values": {k: _plain(v) for k, v in part.__dict__.items() if k not in OWN},
        "parameters": {k: None if p is None else _parameter(p) for k, p in part._parameters.items()},
        "buffers": {
            k: None if b is None else [b, k not in part._non_persistent_buffers_set]
            for k, b in part._buffers.items()
        },
        "children": {n: None if m is None else _module(m) for n, m in children.items()},
        "forms": {role: _form(part, role) for role in _forms(part)} if formed else {},
    }


def _parameter(p: nn.Parameter) -> list[Any]:
    return [p.detach(), p.requires_grad]


def _forms(part: nn.Module) -> Any:
    return part.parametrizations


def _form(part: nn.Module, role: str) -> dict[str, Any]:
    """What stands behind a parametrised weight: the value it has, the original, and the forms in their order."""
    forms = _forms(part)[role]
    with torch.no_grad():
        now = getattr(part, role).detach()
    return {
        "value": now,
        "original": _parameter(forms.original),
        "chain": [_module(form) for form in forms],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, PLAIN) and type(value) is not nn.Parameter:
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, list | tuple | set | frozenset):
        return {type(value).__name__: [_plain(v) for v in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(k), _plain(v)] for k, v in value.items()]}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "data": _name(type(value)),
            "fields": {f.name: _plain(getattr(value, f.name)) for f in fields(value)},
        }
    raise OptionError(f"cannot keep a {type(value).__name__} between steps")


def _name(kind: type) -> list[str]:
    if not kind.__module__.startswith(CLASSES):
        raise OptionError(f"cannot keep a {kind.__qualname__} between steps; it is not of netsuke")
    return [kind.__module__, kind.__qualname__]


# --- together ---------------------------------------------------------------------------------------


def _class(name: list[str]) -> type:
    source, qualified = name
    if not source.startswith(CLASSES):
        raise OptionError(f"a snapshot names {qualified} of {source}")
    found: Any = import_module(source)
    for word in qualified.split("."):
        found = getattr(found, word)
    if not (isinstance(found, type) and (issubclass(found, nn.Module) or is_dataclass(found))):
        raise OptionError(f"a snapshot names {qualified} of {source}, which is no module")
    return found


def _built(kept: dict[str, Any]) -> nn.Module:
    part: nn.Module = object.__new__(_class(kept["module"]))
    nn.Module.__init__(part)
    for name, value in kept["values"].items():
        part.__dict__[name] = _whole(value)
    for name, entry in kept["parameters"].items():
        part.register_parameter(name, None if entry is None else nn.Parameter(*entry))
    for name, entry in kept["buffers"].items():
        part.register_buffer(name, *((None,) if entry is None else entry))
    for name, child in kept["children"].items():
        part.add_module(name, None if child is None else _built(child))
    for role, form in kept["forms"].items():
        part.register_parameter(role, nn.Parameter(form["value"]))
        for link in form["chain"]:
            parametrize.register_parametrization(part, role, _built(link), unsafe=True)
        original, learns = form["original"]
        behind = _forms(part)[role].original
        behind.data, behind.requires_grad = original, learns
    return part


def _whole(kept: Any) -> Any:
    if not isinstance(kept, dict):
        return kept
    if "data" in kept:
        return _class(kept["data"])(**{name: _whole(value) for name, value in kept["fields"].items()})
    (kind, value), *_ = kept.items()
    if kind == "array":
        return value.numpy()
    if kind == "dict":
        return {_whole(k): _whole(v) for k, v in value}
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](_whole(v) for v in value)
