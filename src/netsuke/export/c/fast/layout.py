"""Where every activation lies: pixel by pixel, channels in blocks of 16 bytes, zeros around what is padded.

Each has memory of its own, so that its border stays zero from one image to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from netsuke.export.c.fast.routes import PIXELS, Route, depthwise, planned
from netsuke.export.c.fast.variants import BYTES
from netsuke.graph import INPUT, Graph, Op, Tensors, Type

ALIGN = 64
DENSE = frozenset({"qdense", "qlogits"})
PADDED = frozenset({"qconv2d", "maxpool", "qavgpool"})


@dataclass(frozen=True)
class Map:
    """An activation [C, H, W], a vector as [C, 1, 1]: `step` bytes from pixel to pixel, `row` from row to row.

    `base` is what C adds its first pixel's place to: the memory that the head of a network uses again for each
    image (`s`), or that which each image of a block has for itself (`t`).
    """

    shape: tuple[int, int, int]
    dtype: str
    step: int
    border: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    spare: int = 0  # bytes behind the last row that may be read
    base: str = "s"
    offset: int = 0
    flat: bool = False  # a vector that lies as the map it was
    planes: int = 0  # of four channels each, pixels side by side; none where channels are (planes.py)

    @property
    def pitch(self) -> int:
        """Pixels from row to row."""
        return self.row // self.step

    @property
    def plane(self) -> int:
        """Bytes from plane to plane."""
        lines = -(-(self.border[0] + self.shape[1] + self.border[2]) * self.row // ALIGN)
        return (lines + (lines % 2 == 0)) * ALIGN

    @property
    def row(self) -> int:
        return (self.border[1] + self.shape[2] + self.border[3]) * self.step

    @property
    def size(self) -> int:
        if self.planes:
            return self.planes * self.plane + self.spare
        return (self.border[0] + self.shape[1] + self.border[2]) * self.row + self.spare

    @property
    def signed(self) -> bool:
        return self.dtype == "s8"

    @property
    def wide(self) -> bool:
        return self.dtype == "i32"

    @property
    def dense(self) -> bool:
        """Whether pixels follow each other without a border."""
        return not (self.border[1] or self.border[3])

    def at(self, row: int = 0, column: int = 0) -> str:
        """C for the address of a pixel."""
        place = self.offset + (self.border[0] + row) * self.row + (self.border[1] + column) * self.step
        return f"{self.base} + {place}"

    def pixel(self, row: str, column: str, name: str) -> str:
        """C for the address of a pixel from `name`, the address of the first one."""
        return f"{name} + {row} * {self.row} + {column} * {self.step}"


@dataclass(frozen=True)
class Layout:
    """Maps by the name of their op; `fused` are convolutions that the pool behind them computes."""

    maps: Mapping[str, Map]
    fused: frozenset[str]
    late: frozenset[str]  # the last ops, on vectors: they run for a block of images at once
    shared: int  # bytes of memory that images take turns on
    each: int  # bytes of memory of each image


def up(value: int, to: int) -> int:
    return -(-value // to) * to


def _users(graph: Graph) -> dict[str, list[Op]]:
    """Who reads each activation; a flattened one is read by those who read the vector."""
    users: dict[str, list[Op]] = {INPUT: [], **{op.name: [] for op in graph.ops}}
    for op in graph.ops:
        for name in op.inputs:
            users[name].append(op)
    return users


def fusable(graph: Graph, tensors: Tensors, largest: int) -> frozenset[str]:
    """Convolutions read by nothing but a max pool whose windows neither overlap nor reach into padding."""
    users, producers = _users(graph), {op.name: op for op in graph.ops}
    found = set()
    for op in graph.ops:
        if op.kind != "maxpool" or any(op.attrs["padding"]) or op.attrs["kernel"] != op.attrs["stride"]:
            continue
        maker = producers.get(op.inputs[0])
        area = op.attrs["kernel"][0] * op.attrs["kernel"][1]
        if (
            maker is not None
            and maker.kind == "qconv2d"
            and maker.attrs["groups"] == 1
            and len(users[maker.name]) == 1
            and area <= largest
        ):
            found.add(maker.name)
    return frozenset(found)


@dataclass
class _Needs:
    """What the readers of one activation ask of its border and of the bytes behind it."""

    border: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    stride: int = 1

    def window(self, shape: Sequence[int], op: Op, kernel: Sequence[int], out: Sequence[int]) -> None:
        top, left, *_ = op.attrs.get("padding") or (0, 0, 0, 0)
        sy, sx = op.attrs["stride"]
        bottom = (out[1] - 1) * sy + kernel[0] - top - shape[1]
        right = (out[2] - 1) * sx + kernel[1] - left - shape[2]
        self.border = [max(a, b) for a, b in zip(self.border, (top, left, bottom, right), strict=True)]
        self.stride = max(self.stride, sx)


def layout(graph: Graph, tensors: Tensors, largest: int, planes: bool = False) -> Layout:
    """Places for all activations; convolutions are fused with pools of up to `largest` pixels a window.

    Where `planes` are allowed, they are taken for the ops that can and gain (routes.py).
    """
    types, users = graph.types(tensors), _users(graph)
    fused, tail = fusable(graph, tensors, largest), _tail(graph, types)
    route = planned(graph, tensors, types, users, fused) if planes else Route({}, frozenset())
    fused |= route.added
    last = frozenset(op.name for op in graph.ops[tail:])
    late = {name for op in graph.ops[tail:] for name in op.inputs} | last
    if len(types[graph.output].shape) == 1:
        late.add(graph.output)
    views = {
        op.name
        for op in graph.ops
        if op.kind == "flatten" and op.name != graph.output
        and (len(types[op.inputs[0]].shape) == 1 or all(user.kind in DENSE for user in users[op.name]))
    }  # fmt: skip
    for op in reversed(graph.ops):
        if op.name in views and op.name in late:
            late.add(op.inputs[0])
    maps: dict[str, Map] = {}
    ends = {"s": 0, "t": 0}
    for op in graph.ops:
        if op.name in fused:
            continue
        if op.name in views:
            maps[op.name] = replace(maps[op.inputs[0]], flat=True)
            continue
        base = "t" if op.name in late else "s"
        if op.name in route.pitches:
            made = _planes(op, route.pitches[op.name], types, users, tensors)
            ends["s"] += ALIGN  # the pixels in front of the first row
        else:
            made = _map(op, types, users, tensors)
        maps[op.name] = replace(made, base=base, offset=ends[base])
        ends[base] = up(ends[base] + made.size, ALIGN)
    # An odd number of cache lines, so that neighbours in a block of images do not fall on the same sets.
    each = ends["t"] + ALIGN * (ends["t"] // ALIGN % 2 == 0)
    return Layout(maps, fused, last, ends["s"], each)


def _tail(graph: Graph, types: Mapping[str, Type]) -> int:
    """The number of the first of the last ops that turn vectors into vectors."""
    first = len(graph.ops)
    while first and all(len(types[name].shape) == 1 for name in graph.ops[first - 1].inputs):
        first -= 1
    return first


def _needs(op: Op, types: Mapping[str, Type], users: Mapping[str, list[Op]], tensors: Tensors) -> _Needs:
    need, x = _Needs(), types[op.name]
    for user in users[op.name]:
        if user.kind not in PADDED:
            continue
        if user.kind == "maxpool" and x.dtype == "s8":
            continue  # a border of zeros would win there
        kernel = user.attrs["kernel"] if user.kind != "qconv2d" else tensors[user.tensor("weight")].shape[2:]
        need.window(x.shape, user, kernel, types[user.name].shape)
    return need


def _map(op: Op, types: Mapping[str, Type], users: Mapping[str, list[Op]], tensors: Tensors) -> Map:
    x = types[op.name]
    shape = (x.shape[0], x.shape[1], x.shape[2]) if len(x.shape) == 3 else (x.shape[0], 1, 1)
    need = _needs(op, types, users, tensors)
    size = 4 if x.dtype == "i32" else 1
    step = up(shape[0], BYTES) * size
    whole = all(user.kind == "qconv2d" and not depthwise(user, tensors) for user in users[op.name])
    if op.kind == "halve" and whole and all(user.attrs["groups"] == 1 for user in users[op.name]):
        step = 1 if shape[0] == 1 else up(shape[0], 4)
    top, left, bottom, right = need.border
    return Map(shape, x.dtype, step, (top, left, bottom, right), 256 + 4 * need.stride * step)


def _planes(
    op: Op, pitch: int, types: Mapping[str, Type], users: Mapping[str, list[Op]], tensors: Tensors
) -> Map:
    """Rows start at whole registers, below one of zeros at least; one border stands between two rows."""
    channels, high, wide = types[op.name].shape
    top, _, bottom, _ = _needs(op, types, users, tensors).border
    rows = max(1, PIXELS // pitch)
    border = (up(max(top, 1), rows), 0, max(bottom, 1), pitch - wide)
    return Map((channels, high, wide), types[op.name].dtype, 4, border, 4 * ALIGN + 4 * pitch,
               planes=up(channels, 4) // 4)  # fmt: skip
