"""Random valid graphs: hypothesis strategies, and the same graphs from a plain seed.

@given(integer_graphs())  # extended=True: the ops that came after the first targets, too
def test_x(pair):
    graph, tensors = pair
    images = random_images(graph, 4, seed=0)

graph, tensors = random_graph(seed=3, integer=True)
artifact = small_artifact()
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from netsuke.artifact import Artifact
from netsuke.graph import INPUT, INT32_MAX, Graph, Op, Type

Pick = Callable[[int, int], int]  # an integer from low to high, both included
Pair = tuple[Graph, dict[str, np.ndarray]]


@st.composite
def integer_graphs(draw: st.DrawFn, extended: bool = False) -> Pair:
    """Graphs in the integer contract: 1 to 8 bits, weights and multipliers up to their limits.

    Ops that every target knows; with `extended` all there are.
    """
    return _integer(lambda low, high: draw(st.integers(low, high)), extended)


@st.composite
def float_graphs(draw: st.DrawFn, extended: bool = False) -> Pair:
    return _float(lambda low, high: draw(st.integers(low, high)), extended)


@st.composite
def rounded_graphs(draw: st.DrawFn, letter: str) -> Pair:
    """Float graphs whose layers have integer weights: weight-only ("w") or dynamic ("d").

    Those of "d" hold no op whose last bit is left to the runtime, for a dynamic layer may round it up to a step.
    """
    return _float(lambda low, high: draw(st.integers(low, high)), True, letter)


def random_graph(seed: int, *, integer: bool = True, extended: bool = False, letter: str = "") -> Pair:
    """The same graphs without hypothesis, for a fixed batch of them."""
    return _integer(_seeded(seed), extended) if integer else _float(_seeded(seed), extended, letter)


def random_images(graph: Graph, n: int, seed: int = 0) -> np.ndarray:
    """uint8 [n, C, H, W]: noise, the first image black and the second white."""
    images = np.random.default_rng(seed).integers(0, 256, (n, *graph.input_shape), np.uint8)
    images[:1], images[1:2] = 0, 255
    return images


def artifact_of(pair: Pair) -> Artifact:
    """A graph and its tensors as an artifact with the smallest manifest."""
    graph, tensors = pair
    count, *sides = graph.types(tensors)[graph.output].shape
    return Artifact(graph, tensors, {} if sides else {"classes": [str(i) for i in range(count)]})


def small_artifact(*, integer: bool = True, seed: int = 19) -> Artifact:
    """A fixed small network, 1x12x10 images to three classes; its logits differ from image to image."""
    build = _Build(_seeded(seed), (1, 12, 10), integer)
    convolve = build.qconv if integer else build.conv
    convolve(4, (3, 3), padding=(1, 1, 1, 1))
    if not integer:
        build.op("relu", {})
    build.op("maxpool", {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0]})
    convolve(4, (3, 3), padding=(1, 1, 1, 1), groups=4)
    convolve(6, (1, 1))
    if not integer:
        build.op("relu", {})
    build.op("flatten", {})
    (build.qlogits if integer else build.dense)(3)
    return artifact_of(build.done())


def map_artifact(*, integer: bool = True, seed: int = 23) -> Artifact:
    """A fixed small fully convolutional network, 1x12x10 to a map of 5x6x5."""
    build = _Build(_seeded(seed), (1, 12, 10), integer)
    convolve = build.qconv if integer else build.conv
    convolve(4, (3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    if not integer:
        build.op("relu", {})
    convolve(4, (3, 3), padding=(1, 1, 1, 1), groups=4)
    convolve(7, (1, 1))
    if integer:
        build.qlogits(5)
    else:
        build.op("relu", {})
        build.conv(5, (1, 1))
    return artifact_of(build.done())


def _seeded(seed: int) -> Pick:
    rng = np.random.default_rng(seed)
    return lambda low, high: int(rng.integers(low, high, endpoint=True))


class _Build:
    """A graph that grows op by op; `x` is the type of the newest output."""

    def __init__(self, pick: Pick, shape: tuple[int, int, int], integer: bool):
        self.pick, self.shape = pick, shape
        self.rng = np.random.default_rng(pick(0, 1 << 20))
        self.ops: list[Op] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.types: dict[str, Type] = {}
        self.extreme = False  # weights at their limits, multipliers as wide as int32 allows
        self.letter = ""  # before the kinds of float layers: "w" or "d" where their weights are integers
        if integer:
            self.op("halve", {})
        else:
            self.op("normalize", {"scales": [1 / 128] * shape[0], "offsets": [-0.5] * shape[0]})

    @property
    def x(self) -> Type:
        return self.types[self.ops[-1].name]

    def done(self) -> Pair:
        return Graph(self.shape, tuple(self.ops)), self.tensors

    def op(
        self, kind: str, attrs: dict[str, Any], *others: str, first: str | None = None, **tensors: np.ndarray
    ) -> None:
        """An op of the newest output, or of `first`, and of others."""
        name = f"{kind}{len(self.ops)}"
        first = first or (self.ops[-1].name if self.ops else INPUT)
        self.tensors |= {f"{name}.{role}": array for role, array in tensors.items()}
        self.ops.append(Op(kind, name, (first, *others), attrs))
        tail = [] if kind == "qlogits" else [Op("flatten", "\0end", (name,))]  # types() wants a flat end
        self.types = Graph(self.shape, (*self.ops, *tail)).types(self.tensors)

    # --- integer ---

    def integers(self, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """int8 weights and their bits; one bit means -1 or +1."""
        bits = self.pick(1, 8)
        limit = max(1, (1 << (bits - 1)) - 1)
        how = self.pick(0, 3) if self.extreme else 0
        weight = self.rng.integers(-limit, limit + 1, shape)
        signs = self.rng.choice([-1, 1], shape)
        if how >= 2:  # every weight at the same end
            signs = np.full(shape, 5 - 2 * how)
        if how or bits == 1:
            weight = signs * limit
        return weight.astype(np.int8), bits

    def bound(self, weight: np.ndarray) -> np.ndarray:
        """The largest |sum| without the bias, a channel."""
        flat = weight.reshape(len(weight), -1).astype(np.int64)
        top, bottom = np.maximum(flat, 0).sum(1), np.maximum(-flat, 0).sum(1)
        return np.maximum(top * self.x.hi - bottom * self.x.lo, bottom * self.x.hi - top * self.x.lo)

    def bias(self, bound: np.ndarray) -> np.ndarray:
        room = INT32_MAX - bound
        limit = room if self.extreme and self.pick(0, 3) == 0 else np.minimum(bound // 16 + 1, room)
        return self.rng.integers(-limit, limit + 1).astype(np.int32)

    def requantized(self, weight: np.ndarray, bits: int) -> dict[str, np.ndarray]:
        bound = self.bound(weight)
        bias = self.bias(bound)
        bound = np.maximum(bound + np.abs(bias.astype(np.int64)), 1)
        shift = np.full(len(weight), self.pick(0, 20))
        if self.pick(0, 1):  # shifts a channel
            shift = np.maximum(shift - self.rng.integers(0, 4, len(weight)), 0)
        widest = (INT32_MAX - ((1 << shift) >> 1)) // bound
        # Else so that the sums spread over 0..127, some of them clipped.
        spread = (127 << shift) * self.pick(1, 40) // bound
        m = widest if self.extreme and self.pick(0, 1) else np.minimum(widest, spread)
        return {
            "weight": weight,
            "bias": bias,
            "multiplier": m.astype(np.int32),
            "shift": shift.astype(np.int32),
        }

    def qconv(
        self,
        out: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, ...] = (0, 0, 0, 0),
        groups: int = 1,
        signed: bool = False,
    ) -> None:
        weight, bits = self.integers((out, self.x.shape[0] // groups, *kernel))
        attrs = {
            "stride": list(stride),
            "padding": list(padding),
            "groups": groups,
            "bits": bits,
            "signed": signed,
        }
        self.op("qconv2d", attrs, **self.requantized(weight, bits))

    def qdense(self, out: int, *, signed: bool) -> None:
        weight, bits = self.integers((out, self.x.shape[0]))
        self.op("qdense", {"bits": bits, "signed": signed}, **self.requantized(weight, bits))

    def qlogits(self, out: int) -> None:
        weight, bits = self.integers((out, self.x.shape[0]))
        self.op("qlogits", {"bits": bits, "scale": 0.01}, weight=weight, bias=self.bias(self.bound(weight)))

    # --- float ---

    def layer(self, kind: str, attrs: dict[str, Any], shape: tuple[int, ...]) -> None:
        """A float layer, its weights floats or integers."""
        if not self.letter:
            self.op(kind, attrs, **self.floats(shape))
            return
        weight, bits = self.integers(shape)
        limit = max(1, (1 << (bits - 1)) - 1)
        tensors = self.floats(shape)
        tensors["scale"] = self.rng.uniform(0, 2 * prod(shape[1:]) ** -0.5 / limit, shape[0]).astype(
            np.float32
        )
        self.op(self.letter + kind, {**attrs, "bits": bits}, **tensors | {"weight": weight})

    def floats(self, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        weight = self.rng.normal(0, prod(shape[1:]) ** -0.5, shape).astype(np.float32)
        return {"weight": weight, "bias": self.rng.normal(0, 0.5, shape[0]).astype(np.float32)}

    def conv(
        self,
        out: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, ...] = (0, 0, 0, 0),
        groups: int = 1,
    ) -> None:
        attrs = {"stride": list(stride), "padding": list(padding), "groups": groups}
        self.layer("conv2d", attrs, (out, self.x.shape[0] // groups, *kernel))

    def dense(self, out: int) -> None:
        self.layer("dense", {}, (out, self.x.shape[0]))

    # --- what both share: random windows ---

    def window(self, largest: int, *, padded: bool) -> dict[str, Any]:
        """A kernel that fits the newest map, strides, padding smaller than the kernel."""
        _, high, wide = self.x.shape
        kernel = (self.pick(1, min(largest, high + padded)), self.pick(1, min(largest, wide + padded)))
        sides = [kernel[0], kernel[1], kernel[0], kernel[1]]
        padding = tuple(self.pick(0, k - 1) if padded else 0 for k in sides)
        if kernel[0] > high:
            padding = (1, padding[1], padding[2], padding[3])
        if kernel[1] > wide:
            padding = (padding[0], 1, padding[2], padding[3])
        return {"kernel": kernel, "stride": (self.pick(1, 3), self.pick(1, 3)), "padding": padding}

    def pool(self, kind: str, *, padded: bool, **attrs: int) -> None:
        window = self.window(4, padded=padded)
        if not padded:
            del window["padding"]
        self.op(kind, {key: list(value) for key, value in window.items()} | attrs)

    def convolution(self) -> dict[str, Any]:
        """Arguments of a general, grouped, depthwise or pointwise convolution."""
        channels = self.x.shape[0]
        groups = self.pick_from([g for g in range(1, channels + 1) if channels % g == 0])
        out = groups * self.pick(1, max(1, 6 // groups))
        if self.pick(0, 4) == 0:
            return {"out": self.pick(1, 8), "kernel": (1, 1)}
        return {"out": out, "groups": groups, **self.window(5, padded=True)}

    def pick_from(self, values: list) -> Any:
        return values[self.pick(0, len(values) - 1)]

    def same(self) -> str:
        """An earlier output of the newest one's shape, or itself."""
        fits = [op.name for op in self.ops if self.types[op.name].shape == self.x.shape]
        return self.pick_from([name for name in fits if self.types[name].dtype != "i32"])

    def mates(self) -> list[str]:
        """Earlier outputs that can be concatenated with the newest, itself included."""
        dtypes = ("f32",) if self.x.dtype == "f32" else ("u7", "s8")
        types = {op.name: self.types[op.name] for op in self.ops}
        return [
            name
            for name, x in types.items()
            if x.dtype in dtypes and len(x.shape) == len(self.x.shape) and x.shape[1:] == self.x.shape[1:]
        ]

    # --- what joins, cuts and moves channels, on floats and integers ---

    def concat(self) -> None:
        mates = self.mates()
        self.op("concat", {}, *(self.pick_from(mates) for _ in range(self.pick(1, 2))))
        if self.x.shape[0] > 24:
            self.op("slice", {"start": self.pick(0, 3), "stop": 12})

    def cut(self) -> None:
        start = self.pick(0, self.x.shape[0] - 1)
        self.op("slice", {"start": start, "stop": self.pick(start + 1, self.x.shape[0])})

    def shuffle(self) -> None:
        channels = self.x.shape[0]
        groups = [g for g in range(2, channels) if channels % g == 0]  # 1 and all of them change nothing
        self.op("shuffle", {"groups": self.pick_from(groups or [1, channels])})

    def gate(self, kind: str, attrs: dict[str, Any]) -> None:
        """The newest map times itself or its like, its channels' peaks, or its pixels' peaks."""
        x, how = self.ops[-1].name, self.pick(0, 2)
        if how == 0 or len(self.x.shape) == 1:
            self.op(kind, attrs, self.same())
            return
        if how == 1:
            whole = list(self.x.shape[1:])
            self.op("maxpool", {"kernel": whole, "stride": whole, "padding": [0, 0, 0, 0]})
            self.op("flatten", {})
        else:
            self.op("channelmax", {})
        self.op(kind, attrs, self.ops[-1].name, first=x)

    def lookup(self) -> None:
        """A random table, one for all channels or one each."""
        signed, each = bool(self.pick(0, 1)), bool(self.pick(0, 1))
        rows = self.x.shape[:1] if each and self.x.shape[0] <= 64 else ()
        entries = 255 if self.x.dtype == "s8" else 128
        table = self.rng.integers(-127 if signed else 0, 128, (*rows, entries)).astype(np.int32)
        self.op("lookup", {"signed": signed}, table=table)

    def requantizer(self, reach: int, gain: float) -> dict[str, int]:
        """Multiplier and shift for sums up to `reach`, near `gain` or as large as int32 allows."""
        shift = self.pick(0, 24)
        widest = (INT32_MAX - ((1 << shift) >> 1)) // reach
        m = widest if self.extreme else max(1, min(widest, round((1 << shift) * gain)))
        return {"multiplier": m, "shift": shift}


def _shape(pick: Pick) -> tuple[int, int, int]:
    return pick(1, 4), pick(1, 20), pick(1, 20)


def _integer(pick: Pick, extended: bool = False) -> Pair:
    build = _Build(pick, _shape(pick), integer=True)
    for _ in range(pick(0, 5)):
        build.extreme = pick(0, 3) == 0
        if extended and pick(0, 1):
            _more_integer(build)
            continue
        what = pick(0, 6)
        if what <= 2:
            build.qconv(**build.convolution(), signed=bool(pick(0, 1)))
        elif what == 3:
            build.pool("maxpool", padded=True)
        elif what == 4:
            _qavgpool(build)
        else:
            _qadd(build)
    build.extreme = pick(0, 3) == 0
    if extended and pick(0, 9) == 0:  # sums that are the logits themselves
        build.op("sumpool", {"scale": 0.25})
        return build.done()
    if pick(0, 7) == 0:  # a map of logits
        build.qlogits(pick(1, 20))
        return build.done()
    build.op("sumpool" if pick(0, 2) == 0 else "flatten", {})
    if pick(0, 1):
        wide = pick(0, 3) == 0  # as wide as its input, so that the two can be added
        build.qdense(min(build.x.elements, 64) if wide else pick(1, 6), signed=bool(pick(0, 1)))
    if build.x.dtype != "i32" and pick(0, 1):
        _qadd(build)
    if extended and build.x.dtype != "i32" and pick(0, 1):
        _more_integer(build)
    if pick(0, 9):  # else the graph ends on what it has: wide sums, a map, a hidden layer
        build.qlogits(pick(1, 5))
    return build.done()


def _qavgpool(build: _Build) -> None:
    pick = build.pick
    window = build.window(4, padded=False)
    area, shift = prod(window["kernel"]), pick(0, 20)
    widest = (INT32_MAX - ((1 << shift) >> 1)) // (build.x.hi * area)
    m = widest if build.extreme else max(1, min(widest, round((1 << shift) / area)))
    attrs = {
        "kernel": list(window["kernel"]),
        "stride": list(window["stride"]),
        "multiplier": m,
        "shift": shift,
    }
    build.op("qavgpool", attrs)


def _more_integer(build: _Build) -> None:
    """One of the later ops, on a map or a vector."""
    pick, gain = build.pick, build.pick(1, 40) / 127
    shapes = ["lookup", "concat", "slice", "qmul"]
    what = build.pick_from(
        shapes if len(build.x.shape) == 1 else [*shapes, *MAPS, "qavgpool", "qchannelmean"]
    )
    if what == "qmul":
        build.gate("qmul", {**build.requantizer(127 * 127, gain / 10), "signed": bool(pick(0, 1))})
    elif what == "qchannelmean":
        channels = build.x.shape[0]
        build.op("qchannelmean", build.requantizer(127 * channels, 4 * gain / channels))
    elif what == "qavgpool":
        window = {key: list(value) for key, value in build.window(4, padded=True).items()}
        area = prod(window["kernel"])
        build.op("qavgpool", {**window, **build.requantizer(127 * area, 4 * gain / area)})
    elif what == "lookup":
        build.lookup()
    else:
        _moved(build, what)


MAPS = ("shuffle", "channelmax")


def _moved(build: _Build, what: str) -> None:
    if what == "concat":
        build.concat()
    elif what == "slice":
        build.cut()
    elif what == "shuffle":
        build.shuffle()
    else:
        build.op(what, {})


def _qadd(build: _Build) -> None:
    pick, shift = build.pick, build.pick(0, 22)
    widest = (INT32_MAX - ((1 << shift) >> 1)) // 127
    a = pick(1, widest - 1) if build.extreme else max(1, min(widest // 2, (1 << shift) * pick(1, 8) // 8))
    b = widest - a if build.extreme else max(1, min(widest // 2, (1 << shift) * pick(1, 8) // 8))
    attrs = {"multipliers": [a, b], "shift": shift, "signed": bool(pick(0, 1))}
    build.op("qadd", attrs, build.same())


def _more_float(build: _Build) -> None:
    """One of the later ops, on a map or a vector."""
    pointwise = ["leakyrelu", "prelu", "silu", "hardswish", "hardsigmoid"]
    shapes, maps = ["concat", "slice", "mul"], [*MAPS, "avgpool", "channelmean"]
    if build.letter == "d":
        pointwise, shapes, maps = pointwise[:2], shapes[:2], maps[:2]
    flat = len(build.x.shape) == 1
    what = build.pick_from(pointwise + shapes + ([] if flat else maps))
    if what == "leakyrelu":
        build.op("leakyrelu", {"slope": build.pick(-20, 20) / 16})
    elif what == "prelu":
        build.op("prelu", {}, slope=build.rng.normal(0, 0.5, build.x.shape[0]).astype(np.float32))
    elif what == "mul":
        build.op("hardsigmoid", {})  # so that products of products stay small
        build.gate("mul", {})
    elif what == "avgpool":
        build.pool("avgpool", padded=True)
    else:
        _moved(build, what)


def _float(pick: Pick, extended: bool = False, letter: str = "") -> Pair:
    build = _Build(pick, _shape(pick), integer=False)
    build.letter = letter
    exact = letter == "d"
    for _ in range(pick(0, 5)):
        if extended and pick(0, 1):
            _more_float(build)
            continue
        what = pick(0, 6)
        if what <= 2:
            build.conv(**build.convolution())
            build.op(
                build.pick_from(["relu", "relu6"] if exact else ["relu", "relu6", "sigmoid", "tanh"]), {}
            )
        elif what == 3 or (exact and what == 4):
            build.pool("maxpool", padded=True)
        elif what == 4:
            build.pool("avgpool", padded=False)
        else:
            build.op("add", {}, build.same())
    if pick(0, 7) == 0:  # a map of logits
        build.conv(**build.convolution())
        return build.done()
    build.op("globalavgpool" if pick(0, 2) == 0 and not exact else "flatten", {})
    if pick(0, 1):
        build.dense(pick(1, 6))
        build.op("relu", {})
    if extended and pick(0, 1):
        _more_float(build)
    build.dense(pick(1, 5))
    return build.done()


def random_squeezed(seed: int) -> Pair:
    """Convolutions with squeeze and excitation: the map times what two dense layers make of its sums or averages."""
    pick = _seeded(seed)
    build = _Build(pick, (pick(1, 3), pick(4, 14), pick(4, 14)), integer=True)
    for _ in range(pick(1, 2)):
        build.qconv(pick(2, 40), (3, 3), stride=(pick(1, 2),) * 2, padding=(1, 1, 1, 1))
        x, channels, whole = build.ops[-1].name, build.x.shape[0], list(build.x.shape[1:])
        if pick(0, 1):
            build.op("sumpool", {})
        else:
            pool = {"kernel": whole, "stride": whole, **build.requantizer(127 * prod(whole), 2 / prod(whole))}
            build.op("qavgpool", pool)
            build.op("flatten", {})
        build.qdense(pick(1, 20), signed=bool(pick(0, 1)))
        build.qdense(channels, signed=False)
        build.op("qmul", {**build.requantizer(127 * 127, 0.02), "signed": False}, build.ops[-1].name, first=x)
    build.op("sumpool", {})
    build.qlogits(pick(2, 12))
    return build.done()


def random_separable(seed: int) -> Pair:
    """A network of one channel as the fast kernels lay it out in planes: stem, pool, depthwise, pointwise, sums."""
    pick = _seeded(seed)
    side = pick(8, 34)
    build = _Build(pick, (1, side, pick(max(8, side - 3), side + 3)), integer=True)
    build.extreme = pick(0, 3) == 0
    kernel, stride = pick(2, 7), pick(1, 2)
    build.qconv(
        pick(2, 20), (kernel, kernel), stride=(stride, stride), padding=(pick(0, kernel - 1),) * 4,
        signed=pick(0, 3) == 0,
    )  # fmt: skip
    _pooled(build)
    for _ in range(pick(0, 2)):
        build.extreme = pick(0, 3) == 0
        channels, padding = build.x.shape[0], pick(0, 1) if min(build.x.shape[1:]) > 3 else 1
        before = build.ops[-1].name
        stride = pick(1, 2) if padding else 1
        build.qconv(
            channels, (3, 3), stride=(stride, stride), padding=(padding,) * 4, groups=channels,
            signed=bool(pick(0, 1)),
        )  # fmt: skip
        added = build.x.shape == build.types[before].shape and pick(0, 1) == 1
        wide = pick(2, 90 if pick(0, 9) == 0 else 20)
        build.qconv(channels if added else wide, (1, 1), signed=not added and pick(0, 3) == 0)
        if added and build.types[before].dtype == "u7":
            build.op("qadd", {"multipliers": [1, 1], "shift": 0, "signed": False}, before)
    if pick(0, 2) == 0:
        padding = pick(0, 1) if min(build.x.shape[1:]) > 2 else 1
        build.qconv(pick(2, 20), (3, 3), stride=(pick(1, 2),) * 2, padding=(padding,) * 4)
    build.op("sumpool", {})
    build.qlogits(pick(2, 12))
    return build.done()


def _pooled(build: _Build) -> None:
    how = build.pick(0, 2)
    if how and min(build.x.shape[1:]) > 3:
        kind, more = (
            ("maxpool", {"padding": [0] * 4}) if how == 1 else ("qavgpool", build.requantizer(127 * 4, 0.25))
        )
        build.op(kind, {"kernel": [2, 2], "stride": [2, 2], **more})
