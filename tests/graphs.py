"""Random valid graphs: hypothesis strategies, and the same graphs from a plain seed.

@given(integer_graphs())
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
def integer_graphs(draw: st.DrawFn) -> Pair:
    """Graphs in the integer contract: every op, 1 to 8 bits, weights and multipliers up to their limits."""
    return _integer(lambda low, high: draw(st.integers(low, high)))


@st.composite
def float_graphs(draw: st.DrawFn) -> Pair:
    return _float(lambda low, high: draw(st.integers(low, high)))


def random_graph(seed: int, *, integer: bool = True) -> Pair:
    """The same graphs without hypothesis, for a fixed batch of them."""
    rng = np.random.default_rng(seed)
    return (_integer if integer else _float)(lambda low, high: int(rng.integers(low, high, endpoint=True)))


def random_images(graph: Graph, n: int, seed: int = 0) -> np.ndarray:
    """uint8 [n, C, H, W]: noise, the first image black and the second white."""
    images = np.random.default_rng(seed).integers(0, 256, (n, *graph.input_shape), np.uint8)
    images[:1], images[1:2] = 0, 255
    return images


def artifact_of(pair: Pair) -> Artifact:
    """A graph and its tensors as an artifact with the smallest manifest."""
    graph, tensors = pair
    classes = graph.types(tensors)[graph.output].shape[0]
    return Artifact(graph, tensors, {"classes": [str(i) for i in range(classes)]})


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
        if integer:
            self.op("halve", {})
        else:
            self.op("normalize", {"scales": [1 / 128] * shape[0], "offsets": [-0.5] * shape[0]})

    @property
    def x(self) -> Type:
        return self.types[self.ops[-1].name]

    def done(self) -> Pair:
        return Graph(self.shape, tuple(self.ops)), self.tensors

    def op(self, kind: str, attrs: dict[str, Any], second: str | None = None, **tensors: np.ndarray) -> None:
        name = f"{kind}{len(self.ops)}"
        first = self.ops[-1].name if self.ops else INPUT
        self.tensors |= {f"{name}.{role}": array for role, array in tensors.items()}
        self.ops.append(Op(kind, name, (first,) if second is None else (first, second), attrs))
        tail = Op("flatten", "\0end", (name,))  # types() wants a flat end
        self.types = Graph(self.shape, (*self.ops, tail)).types(self.tensors)

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
        self.op("conv2d", attrs, **self.floats((out, self.x.shape[0] // groups, *kernel)))

    def dense(self, out: int) -> None:
        self.op("dense", {}, **self.floats((out, self.x.shape[0])))

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


def _shape(pick: Pick) -> tuple[int, int, int]:
    return pick(1, 4), pick(1, 20), pick(1, 20)


def _integer(pick: Pick) -> Pair:
    build = _Build(pick, _shape(pick), integer=True)
    for _ in range(pick(0, 5)):
        build.extreme = pick(0, 3) == 0
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
    build.op("sumpool" if pick(0, 2) == 0 else "flatten", {})
    if pick(0, 1):
        wide = pick(0, 3) == 0  # as wide as its input, so that the two can be added
        build.qdense(min(build.x.elements, 64) if wide else pick(1, 6), signed=bool(pick(0, 1)))
    if build.x.dtype != "i32" and pick(0, 1):
        _qadd(build)
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


def _qadd(build: _Build) -> None:
    pick, shift = build.pick, build.pick(0, 22)
    widest = (INT32_MAX - ((1 << shift) >> 1)) // 127
    a = pick(1, widest - 1) if build.extreme else max(1, min(widest // 2, (1 << shift) * pick(1, 8) // 8))
    b = widest - a if build.extreme else max(1, min(widest // 2, (1 << shift) * pick(1, 8) // 8))
    attrs = {"multipliers": [a, b], "shift": shift, "signed": bool(pick(0, 1))}
    build.op("qadd", attrs, build.same())


def _float(pick: Pick) -> Pair:
    build = _Build(pick, _shape(pick), integer=False)
    for _ in range(pick(0, 5)):
        what = pick(0, 6)
        if what <= 2:
            build.conv(**build.convolution())
            build.op(build.pick_from(["relu", "relu6", "sigmoid", "tanh"]), {})
        elif what == 3:
            build.pool("maxpool", padded=True)
        elif what == 4:
            build.pool("avgpool", padded=False)
        else:
            build.op("add", {}, build.same())
    build.op("globalavgpool" if pick(0, 2) == 0 else "flatten", {})
    if pick(0, 1):
        build.dense(pick(1, 6))
        build.op("relu", {})
    build.dense(pick(1, 5))
    return build.done()
