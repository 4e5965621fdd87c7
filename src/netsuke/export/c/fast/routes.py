"""Which ops of a graph run on planes, pixels side by side, rather than on channels side by side.

An op does where what it reads and writes lies in planes too: from a convolution of the image to the global sum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from netsuke.graph import Graph, Op, Tensors, Type

PIXELS = CHANNELS = 16  # that a register of sums holds, of one or the other


@dataclass(frozen=True)
class Route:
    """Pixels from row to row of what lies in planes; `added` are convolutions that the sum behind them computes."""

    pitches: Mapping[str, int]
    added: frozenset[str]


def depthwise(op: Op, tensors: Tensors) -> bool:
    weight = tensors[op.tensor("weight")]
    return bool(op.attrs["groups"] == len(weight) > 1 and weight.shape[1] == 1)


def planned(
    graph: Graph, tensors: Tensors, types: Mapping[str, Type], users: Mapping[str, list[Op]],
    pooled: Collection[str],
) -> Route:  # fmt: skip
    """The ops that can run on planes, if that takes fewer products in all; none otherwise.

    `pooled` are convolutions that the max pool behind them computes.
    """
    makers = {op.name: op for op in graph.ops}
    pitches: dict[str, int] = {}
    added: dict[str, str] = {}  # the sum to the convolution before it
    for op in graph.ops:
        pitch = None
        if op.kind == "maxpool" and op.inputs[0] in pooled:
            pitch = _pooled(op, tensors, types, makers)
        elif op.kind == "qavgpool":
            pitch = _halved(op, types, pitches)
        elif op.kind == "qconv2d" and op.name not in pooled:
            pitch = _stem(op, tensors, types, makers) or _inner(op, tensors, types, pitches)
        elif op.kind == "qadd" and (maker := _added(op, tensors, types, users, makers, pitches)):
            pitch, added[op.name] = pitches[maker], maker
        if pitch:
            pitches[op.name] = pitch
    _pruned(graph, tensors, pitches, users, makers)
    added = {name: maker for name, maker in added.items() if name in pitches}
    if _products(graph, tensors, types, pitches, planes=True) > _products(
        graph, tensors, types, pitches, planes=False
    ):
        return Route({}, frozenset())
    return Route(pitches, frozenset(added.values()))


def _stem(op: Op, tensors: Tensors, types: Mapping[str, Type], makers: Mapping[str, Op]) -> int | None:
    """The pitch behind a convolution of the one channel of the image."""
    wide = types[op.name].shape[2]
    if wide < 8 or not _of_one_channel(op, tensors, types, makers):
        return None
    return next((pitch for pitch in (16, 32) if wide < pitch), None)


def _pooled(op: Op, tensors: Tensors, types: Mapping[str, Type], makers: Mapping[str, Op]) -> int | None:
    """The pitch behind such a convolution and a max pool of 2x2."""
    fits = op.attrs["kernel"] == [2, 2] and 4 <= types[op.name].shape[2] < PIXELS
    return PIXELS if fits and _of_one_channel(makers[op.inputs[0]], tensors, types, makers) else None


def _of_one_channel(op: Op, tensors: Tensors, types: Mapping[str, Type], makers: Mapping[str, Op]) -> bool:
    """Whether it is a convolution of the image's one channel whose windows a register can hold."""
    maker, stride = makers.get(op.inputs[0]), op.attrs["stride"]
    _, _, rows, columns = tensors[op.tensor("weight")].shape
    if maker is None or maker.kind != "halve" or types[maker.name].shape[0] != 1 or op.attrs["groups"] != 1:
        return False
    return bool(stride[0] == stride[1] <= 2 and 3 * stride[0] + columns <= 16 and 4 <= rows * columns <= 49)


def _inner(op: Op, tensors: Tensors, types: Mapping[str, Type], pitches: Mapping[str, int]) -> int | None:
    """The pitch behind a pointwise or 3x3 depthwise convolution."""
    pitch, kernel = pitches.get(op.inputs[0]), tensors[op.tensor("weight")].shape[2:]
    if pitch is None:
        return None
    stride, (top, left, *_), wide = tuple(op.attrs["stride"]), op.attrs["padding"], types[op.name].shape[2]
    if kernel == (1, 1) and stride == (1, 1) and not any(op.attrs["padding"]) and op.attrs["groups"] == 1:
        return pitch
    if kernel != (3, 3) or not depthwise(op, tensors) or (top, left) not in ((0, 0), (1, 1)):
        return None
    if stride == (1, 1):
        return pitch if wide < pitch else None
    return _half(pitch, wide) if stride == (2, 2) else None


def _half(pitch: int, wide: int) -> int | None:
    return pitch // 2 if pitch >= PIXELS and wide < pitch // 2 else None


def _halved(op: Op, types: Mapping[str, Type], pitches: Mapping[str, int]) -> int | None:
    """The pitch behind averages of 2x2 pixels."""
    pitch, attrs = pitches.get(op.inputs[0]), op.attrs
    whole = attrs["kernel"] == attrs["stride"] == [2, 2] and not any(attrs.get("padding", ()))
    return _half(pitch, types[op.name].shape[2]) if pitch and whole else None


def _added(
    op: Op, tensors: Tensors, types: Mapping[str, Type], users: Mapping[str, list[Op]],
    makers: Mapping[str, Op], pitches: Mapping[str, int],
) -> str | None:  # fmt: skip
    """The pointwise convolution behind which a plain sum of unsigned activations can be computed at once."""
    plain = list(op.attrs["multipliers"]) == [1, 1] and op.attrs["shift"] == 0
    if not plain or len(set(op.inputs)) < 2 or any(types[name].dtype == "s8" for name in op.inputs):
        return None
    if any(name not in pitches for name in op.inputs):
        return None
    for name in reversed(op.inputs):
        maker = makers[name]
        if (
            maker.kind == "qconv2d"
            and maker.inputs[0] in pitches
            and tensors[maker.tensor("weight")].shape[2:] == (1, 1)
            and len(users[name]) == 1
        ):
            return name
    return None


def _pruned(
    graph: Graph, tensors: Tensors, pitches: dict[str, int], users: Mapping[str, list[Op]],
    makers: Mapping[str, Op],
) -> None:  # fmt: skip
    """Take out what others read or write in another form, until nothing is left to take out."""

    def reads(op: Op) -> bool:
        dense = op.kind == "qconv2d" and op.attrs["groups"] == 1  # takes planes, whatever it makes of them
        return dense or op.kind == "sumpool" or op.name in pitches

    def made(name: str) -> bool:
        sources = makers[name].inputs
        return makers[name].kind == "maxpool" or all(
            source in pitches or makers[source].kind == "halve" for source in sources
        )

    while True:
        bad = [
            name for name in pitches
            if name == graph.output or not made(name) or not all(map(reads, users[name]))
        ]  # fmt: skip
        if not bad:
            return
        for name in bad:
            del pitches[name]


def _products(
    graph: Graph, tensors: Tensors, types: Mapping[str, Type], pitches: Mapping[str, int], *, planes: bool
) -> int:
    """Registers of products that the convolutions on planes take, in either form."""
    total = 0
    makers = {op.name: op for op in graph.ops}
    for name, pitch in pitches.items():
        op = makers[makers[name].inputs[0]] if makers[name].kind == "maxpool" else makers[name]
        if op.kind != "qconv2d" or depthwise(op, tensors):
            continue
        out, high, wide = types[op.name].shape
        _, inputs, rows, columns = tensors[op.tensor("weight")].shape
        if planes:
            pixels = -(-high * pitch * (2 if op.name != name else 1) // PIXELS)
            total += pixels * out * -(-inputs * rows * columns // 4)
        else:
            taps = -(-inputs // 4) * rows * columns if inputs > 1 else rows * -(-columns // 4)
            total += high * wide * -(-out // CHANNELS) * taps
    return total
