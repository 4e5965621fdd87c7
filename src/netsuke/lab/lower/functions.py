"""What each function, operator and method of a tensor becomes, and the joints that take or give several tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from netsuke.errors import UnsupportedLayer
from netsuke.lab.lower.builder import Builder
from netsuke.lab.lower.layers import Rule, adaptive, flatten, plain


def dropout(b: Builder, x: str, node: fx.Node) -> str:
    """Nothing, if it is off: unlike the layer, the function drops unless it is told not to."""
    if argument(node, 2, "training", True) and argument(node, 1, "p", 0.5):
        raise UnsupportedLayer(
            f"cannot lower {node.name!r}: F.dropout drops in evaluation too; give it training=self.training"
        )
    return x


def argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _add(b: Builder, x: str, node: fx.Node) -> str:
    if node.kwargs.get("alpha", 1) != 1:
        raise b.refuse("a sum takes no alpha")
    return b.emit("add", (x, b.value(1)))


def _mul(b: Builder, x: str, node: fx.Node) -> str:
    """A gate; the larger of the two is what it opens and shuts."""
    gate = b.value(1)
    size = {name: (b.types[name].elements, len(b.types[name].shape)) for name in (x, gate)}
    if size[gate] > size[x]:
        x, gate = gate, x
    return b.emit("mul", (x, gate))


def _mean(b: Builder, x: str, node: fx.Node) -> str:
    axes, keep = _reduced(node)
    if axes == [1] and keep:
        return b.emit("channelmean", (x,))
    if axes != [2, 3]:
        raise b.refuse("a mean is over both image axes, or over the channels with keepdim")
    return b.emit("globalavgpool", (x,))


def _amax(b: Builder, x: str, node: fx.Node) -> str:
    if _reduced(node) != ([1], True):
        raise b.refuse("amax only over the channels, with keepdim")
    return b.emit("channelmax", (x,))


def _reduced(node: fx.Node) -> tuple[list[int], bool]:
    """The axes that a reduction is over, and whether it keeps them."""
    axes = argument(node, 1, "dim", None)
    axes = [axes] if isinstance(axes, int) else axes
    keep = bool(argument(node, 2, "keepdim", False))
    return (sorted(int(a) % 4 for a in axes) if isinstance(axes, list | tuple) else []), keep


def _flatten(b: Builder, x: str, node: fx.Node) -> str:
    return flatten(b, x, argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1))


# --- joints -----------------------------------------------------------------------------------------


def _chunk(b: Builder, node: fx.Node) -> list[str]:
    """Equal parts of the channels; those that nothing reads are left out."""
    x, count = b.value(0), argument(node, 1, "chunks", 1)
    channels = b.types[x].shape[0]
    if argument(node, 2, "dim", 0) not in (1, -3) or channels % count:
        raise b.refuse("chunks are equal parts of the channels (dim=1)")
    places = [user.args[1] if user.target is operator.getitem else None for user in node.users]
    if not all(isinstance(place, int) for place in places):
        raise b.refuse("take its parts one by one")
    size = channels // count
    return [_part(b, x, i * size, (i + 1) * size) if {i, i - count} & {*places} else "" for i in range(count)]


def _part(b: Builder, x: str, start: int, stop: int) -> str:
    return b.emit("slice", (x,), {"start": start, "stop": stop})


def _item(b: Builder, node: fx.Node) -> str:
    """One part of a chunk, or x[:, start:stop]."""
    source, index = node.args[0], node.args[1]
    parts = b.values.get(source) if isinstance(source, fx.Node) else None
    if isinstance(parts, list) and isinstance(index, int):
        return parts[index]
    whole = slice(None)
    axes: tuple[Any, ...] = index if isinstance(index, tuple) and len(index) > 1 else (None, None)
    cut = axes[1]
    if (
        not isinstance(cut, slice)
        or cut.step not in (None, 1)
        or any(i != whole for i in (axes[0], *axes[2:]))
    ):
        raise b.refuse("of an index only x[:, start:stop] is known")
    x = b.value(0)
    start, stop, _ = cut.indices(b.types[x].shape[0])
    return _part(b, x, start, stop)


def _concat(b: Builder, node: fx.Node) -> str:
    parts = argument(node, 0, "tensors", None)
    if argument(node, 1, "dim", 0) not in (1, -3) or not isinstance(parts, list | tuple):
        raise b.refuse("concatenates a list along the channels (dim=1)")
    return b.emit("concat", tuple(b.one(part) for part in parts))


FUNCTIONS: dict[Any, Rule] = {
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    torch.flatten: _flatten,
    "flatten": _flatten,
    torch.relu: plain("relu"),
    F.relu: plain("relu"),
    "relu": plain("relu"),
    F.relu6: plain("relu6"),
    F.silu: plain("silu"),
    F.hardswish: plain("hardswish"),
    F.hardsigmoid: plain("hardsigmoid"),
    operator.mul: _mul,
    torch.mul: _mul,
    torch.sigmoid: plain("sigmoid"),
    torch.tanh: plain("tanh"),
    F.dropout: dropout,
    torch.mean: _mean,
    "mean": _mean,
    torch.amax: _amax,
    "amax": _amax,
    F.adaptive_avg_pool2d: lambda b, x, node: adaptive(b, x, argument(node, 1, "output_size", 1)),
}

# What takes or gives several tensors.
JOINTS: dict[Any, Callable[[Builder, fx.Node], str | list[str]]] = {
    torch.cat: _concat,
    torch.chunk: _chunk,
    "chunk": _chunk,
    operator.getitem: _item,
}

HANDING = (F.dropout, torch.flatten, "flatten")  # give on the very values they get
SWITCHED = (F.relu, F.relu6, F.silu, F.hardswish, F.hardsigmoid)  # overwrite their input if `inplace` says so


def overwrites(node: fx.Node) -> bool:
    """Whether a call works in place."""
    return node.target is operator.iadd or (
        node.target in SWITCHED and bool(argument(node, 1, "inplace", False))
    )
