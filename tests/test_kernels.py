"""Integer kernels against loops over Python integers; float kernels against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from graphs import float_graphs, integer_graphs, map_artifact, random_graph, random_images, rounded_graphs
from netsuke import kernels
from netsuke.errors import GraphError
from netsuke.graph import INPUT, INT32_MAX, OPS, Graph, Op
from netsuke.graph.floats import BOTH, FLOATS
from netsuke.graph.integers import INTEGERS

Tensors = dict[str, np.ndarray]
Nested = Any  # lists of Python integers: exact, and nothing of NumPy's rules


# --- the slow reference: one image, one op at a time -------------------------------------------------


def checked(value: int) -> int:
    """Every intermediate value must fit int32: that is what the graph's bounds promise."""
    assert -INT32_MAX - 1 <= value <= INT32_MAX
    return value


def requantized(acc: int, m: int, s: int, signed: bool) -> int:
    half = 2 ** (s - 1) if s else 0
    value = checked(checked(acc * m) + half) // 2**s  # // floors, as an arithmetic shift does
    return max(-127 if signed else 0, min(127, value))


def windows(
    x: Nested, attrs: dict, kernel: tuple[int, int]
) -> Iterator[tuple[int, int, list[tuple[int, int, int, int]]]]:
    """Output row and column with the (kernel row, kernel column, row, column) that lie inside the map."""
    high, wide = len(x[0]), len(x[0][0])
    top, left, bottom, right = attrs.get("padding", (0, 0, 0, 0))
    for row, r0 in enumerate(range(-top, high + bottom - kernel[0] + 1, attrs["stride"][0])):
        for column, c0 in enumerate(range(-left, wide + right - kernel[1] + 1, attrs["stride"][1])):
            taps = [(i, j, r0 + i, c0 + j) for i in range(kernel[0]) for j in range(kernel[1])]
            yield row, column, [t for t in taps if 0 <= t[2] < high and 0 <= t[3] < wide]


def grid(cells: list[tuple[int, int, int]]) -> Nested:
    rows = max(row for row, _, _ in cells) + 1
    return [[value for r, _, value in cells if r == row] for row in range(rows)]


def qconv2d(a: dict, x: Nested, w: dict) -> Nested:
    depth, kernel = len(w["weight"][0]), (len(w["weight"][0][0]), len(w["weight"][0][0][0]))
    maps = []
    for o, filter_ in enumerate(w["weight"]):
        first = o // (len(w["weight"]) // a["groups"]) * depth
        cells = []
        for row, column, taps in windows(x, a, kernel):
            acc = w["bias"][o]
            for d in range(depth):
                for i, j, r, c in taps:
                    acc = checked(acc + filter_[d][i][j] * x[first + d][r][c])
            cells.append((row, column, requantized(acc, w["multiplier"][o], w["shift"][o], a["signed"])))
        maps.append(grid(cells))
    return maps


def pooled(a: dict, x: Nested, reduce: Callable[[list[int]], int]) -> Nested:
    return [
        grid([(row, column, reduce([plane[r][c] for _, _, r, c in taps]))
              for row, column, taps in windows([plane], a, a["kernel"])])
        for plane in x
    ]  # fmt: skip


def sums(x: Nested, w: dict) -> list[int]:
    out = []
    for row, bias in zip(w["weight"], w["bias"], strict=True):
        acc = bias
        for weight, value in zip(row, x, strict=True):
            acc = checked(acc + weight * value)
        out.append(acc)
    return out


def qlogits(x: Nested, w: dict) -> Nested:
    """Of a vector, or of each pixel of a map."""
    if not isinstance(x[0], list):
        return sums(x, w)
    pixels = [[sums(pixel, w) for pixel in zip(*row, strict=True)] for row in zip(*x, strict=True)]
    return [[[pixel[o] for pixel in row] for row in pixels] for o in range(len(w["weight"]))]


def qdense(a: dict, x: Nested, w: dict) -> Nested:
    rows = zip(sums(x, w), w["multiplier"], w["shift"], strict=True)
    return [requantized(acc, m, s, a["signed"]) for acc, m, s in rows]


def qadd(a: dict, x: Nested, y: Nested) -> Nested:
    if isinstance(x, list):
        return [qadd(a, i, j) for i, j in zip(x, y, strict=True)]
    ma, mb = a["multipliers"]
    return requantized(checked(checked(x * ma) + checked(y * mb)), 1, a["shift"], a["signed"])


def deep(x: Nested, f: Callable[[int], int]) -> Nested:
    return [deep(i, f) for i in x] if isinstance(x, list) else f(x)


def qmul(a: dict, x: Nested, gate: Nested) -> Nested:
    """A gate that has fewer axes, or one plane for all, serves several values."""
    if isinstance(x, list) and isinstance(gate, list):
        gates = gate * len(x) if len(gate) == 1 else gate
        return [qmul(a, i, g) for i, g in zip(x, gates, strict=True)]
    if isinstance(x, list):
        return [qmul(a, i, gate) for i in x]
    return requantized(checked(x * gate), a["multiplier"], a["shift"], a["signed"])


def qchannelmean(a: dict, x: Nested) -> Nested:
    total = [[sum(column) for column in zip(*rows, strict=True)] for rows in zip(*x, strict=True)]
    return [deep(total, lambda v: requantized(checked(v), a["multiplier"], a["shift"], signed=True))]


def lookup(x: Nested, table: Nested) -> Nested:
    """One table, or one for each channel; the middle of 255 entries is for 0."""
    if isinstance(table[0], list):
        return [lookup(channel, own) for channel, own in zip(x, table, strict=True)]
    return deep(x, lambda v: table[v + (127 if len(table) == 255 else 0)])


def shuffle(a: dict, x: Nested) -> Nested:
    size = len(x) // a["groups"]
    return [x[group * size + k] for k in range(size) for group in range(a["groups"])]


def flat(x: Nested) -> list[int]:
    return [v for i in x for v in flat(i)] if isinstance(x, list) else [x]


SLOW: dict[str, Callable[[dict, list[Nested], dict], Nested]] = {
    "halve": lambda a, x, w: deep(x[0], lambda v: v // 2),
    "qconv2d": lambda a, x, w: qconv2d(a, x[0], w),
    "qdense": lambda a, x, w: qdense(a, x[0], w),
    "qlogits": lambda a, x, w: qlogits(x[0], w),
    "qavgpool": lambda a, x, w: pooled(
        a, x[0], lambda v: requantized(sum(v), a["multiplier"], a["shift"], signed=True)
    ),
    "maxpool": lambda a, x, w: pooled(a, x[0], max),
    "sumpool": lambda a, x, w: [sum(flat(plane)) for plane in x[0]],
    "qadd": lambda a, x, w: qadd(a, x[0], x[1]),
    "qmul": lambda a, x, w: qmul(a, x[0], x[1]),
    "qchannelmean": lambda a, x, w: qchannelmean(a, x[0]),
    "lookup": lambda a, x, w: lookup(x[0], w["table"]),
    "concat": lambda a, x, w: [channel for part in x for channel in part],
    "slice": lambda a, x, w: x[0][a["start"] : a["stop"]],
    "shuffle": lambda a, x, w: shuffle(a, x[0]),
    "channelmax": lambda a, x, w: [
        [[max(column) for column in zip(*rows, strict=True)] for rows in zip(*x[0], strict=True)]
    ],
    "flatten": lambda a, x, w: flat(x[0]),
}


def slow(graph: Graph, tensors: Tensors, image: np.ndarray) -> dict[str, Nested]:
    values: dict[str, Nested] = {INPUT: image.tolist()}
    for op in graph.ops:
        own = {
            name[len(op.name) + 1 :]: a.tolist()
            for name, a in tensors.items()
            if name.startswith(f"{op.name}.")
        }
        values[op.name] = SLOW[op.kind](dict(op.attrs), [values[i] for i in op.inputs], own)
    return values


@settings(max_examples=120)
@given(pair=integer_graphs(extended=True))
def test_integer_kernels_equal_the_loops(pair: tuple) -> None:
    graph, tensors = pair
    images = random_images(graph, 3)[1:]
    got = kernels.activations(graph, tensors, images)
    types = graph.types(tensors)
    for n, image in enumerate(images):
        for name, value in slow(graph, tensors, image).items():
            assert got[name][n].tolist() == value, name
            x = types[name]
            assert x.lo <= min(flat(value)) <= max(flat(value)) <= x.hi, name


@pytest.mark.parametrize(
    ("acc", "m", "s", "signed", "want"),
    [
        (3, 1, 1, False, 2),  # 1.5 rounds up
        (-3, 1, 1, True, -1),  # -1.5 rounds up too
        (-5, 1, 2, True, -1),
        (-1, 1, 0, True, -1),
        (5, 0, 7, True, 0),
        (-5, 1, 0, False, 0),
        (1000, 1, 0, True, 127),
        (-1000, 1, 0, True, -127),
        (INT32_MAX - (1 << 29), 1, 30, False, 1),
    ],
)
def test_requantize(acc: int, m: int, s: int, signed: bool, want: int) -> None:
    got = kernels.requantize(np.int64([acc]), np.int64([m]), np.int64([s]), signed=signed)
    assert got.tolist() == [want] == [requantized(acc, m, s, signed)]


# --- float -------------------------------------------------------------------------------------------


def torch_run(graph: Graph, tensors: Tensors, images: np.ndarray) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from torch.nn import functional as F

    def padded(x: Any, a: dict, value: float = 0.0) -> Any:
        top, left, bottom, right = a.get("padding", (0, 0, 0, 0))
        return F.pad(x, (left, right, top, bottom), value=value)

    def channels(values: list[float]) -> Any:
        return torch.tensor(values, dtype=torch.float32)[:, None, None]

    run: dict[str, Callable] = {
        "normalize": lambda a, x, w: x * channels(a["scales"]) + channels(a["offsets"]),
        "conv2d": lambda a, x, w: F.conv2d(padded(x, a), **w, stride=a["stride"], groups=a["groups"]),
        "dense": lambda a, x, w: F.linear(x, **w),
        "relu": lambda a, x, w: F.relu(x),
        "relu6": lambda a, x, w: F.relu6(x),
        "sigmoid": lambda a, x, w: torch.sigmoid(x),
        "tanh": lambda a, x, w: torch.tanh(x),
        "leakyrelu": lambda a, x, w: F.leaky_relu(x, a["slope"]),
        "prelu": lambda a, x, w: F.prelu(x, w["slope"]),
        "silu": lambda a, x, w: F.silu(x),
        "hardswish": lambda a, x, w: F.hardswish(x),
        "hardsigmoid": lambda a, x, w: F.hardsigmoid(x),
        "avgpool": lambda a, x, w: F.avg_pool2d(padded(x, a), a["kernel"], a["stride"]),
        "channelmean": lambda a, x, w: x.mean(1, keepdim=True),
        "channelmax": lambda a, x, w: x.max(1, keepdim=True).values,
        "mul": lambda a, x, w, y: x * (y if y.ndim == x.ndim else y[:, :, None, None]),
        "concat": lambda a, x, w, *more: torch.cat([x, *more], 1),
        "slice": lambda a, x, w: x.narrow(1, a["start"], a["stop"] - a["start"]),
        "shuffle": lambda a, x, w: F.channel_shuffle(x, a["groups"]),
        "globalavgpool": lambda a, x, w: x.mean((2, 3)),
        "add": lambda a, x, w, y: x + y,
        "maxpool": lambda a, x, w: F.max_pool2d(padded(x, a, float("-inf")), a["kernel"], a["stride"]),
        "flatten": lambda a, x, w: x.flatten(1),
    }
    values = {INPUT: torch.from_numpy(images).float()}
    for op in graph.ops:
        own = {
            n[len(op.name) + 1 :]: torch.from_numpy(t)
            for n, t in tensors.items()
            if n.startswith(f"{op.name}.")
        }
        first, *rest = (values[i] for i in op.inputs)
        values[op.name] = run[op.kind](dict(op.attrs), first, own, *rest)
    return {name: value.numpy() for name, value in values.items()}


@settings(max_examples=120)
@given(pair=float_graphs(extended=True))
def test_float_kernels_agree_with_torch(pair: tuple) -> None:
    graph, tensors = pair
    images = random_images(graph, 3)
    want = torch_run(graph, tensors, images)
    got = kernels.activations(graph, tensors, images)
    for op in graph.ops:
        assert got[op.name].dtype == np.float32, op.kind
        np.testing.assert_allclose(got[op.name], want[op.name], rtol=1e-4, atol=1e-4, err_msg=op.kind)


# --- integer weights in float ops -------------------------------------------------------------------


@settings(max_examples=60)
@given(pair=rounded_graphs("w"))
def test_weight_only_kernels_are_float_kernels_on_the_real_weights(pair: tuple) -> None:
    graph, tensors = pair
    ops, real = [], {name: array for name, array in tensors.items() if not name.endswith(".scale")}
    for op in graph.ops:
        if op.kind in ("wconv2d", "wdense"):
            weight, scale = (tensors[op.tensor(role)] for role in ("weight", "scale"))
            real[op.tensor("weight")] = np.stack(
                [w * s for w, s in zip(weight.astype(np.float32), scale, strict=True)]
            )
            attrs = {key: value for key, value in op.attrs.items() if key != "bits"}
            op = Op(op.kind[1:], op.name, op.inputs, attrs)
        ops.append(op)
    images = random_images(graph, 3)
    got, want = (
        kernels.run(graph, tensors, images),
        kernels.run(Graph(graph.input_shape, tuple(ops)), real, images),
    )
    np.testing.assert_array_equal(got, want)


def rounded_image(x: np.ndarray) -> tuple[list[int], float]:
    """One image as whole numbers, and the real value of one; Python's round() too goes half to even."""
    step = np.float32(max(np.abs(x).max(), np.float32(1e-30)) / np.float32(127))
    return [round(float(np.float32(v / step))) for v in x.flatten()], float(step)


@settings(max_examples=60)
@given(pair=rounded_graphs("d"))
def test_dynamic_kernels_round_each_image_by_its_own_peak(pair: tuple) -> None:
    """Every dynamic op against loops over Python integers, on what the ops before it give."""
    graph, tensors = pair
    got = kernels.activations(graph, tensors, random_images(graph, 3))
    for op in graph.ops:
        if op.kind not in ("dconv2d", "ddense"):
            continue
        weight, scale, bias = (tensors[op.tensor(role)] for role in ("weight", "scale", "bias"))
        for image, out in zip(got[op.inputs[0]], got[op.name], strict=True):
            whole, step = rounded_image(image)
            assert all(-127 <= v <= 127 for v in whole)
            if op.kind == "ddense":
                total = np.array(sums(whole, {"weight": weight.tolist(), "bias": [0] * len(weight)}))
            else:
                x = np.array(whole).reshape(image.shape).tolist()
                total = np.array(plain_sums(dict(op.attrs), x, weight.tolist()))
            axes = (-1, *[1] * (total.ndim - 1))
            want = total * step * scale.reshape(axes).astype(float) + bias.reshape(axes)
            np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def plain_sums(a: dict, x: Nested, weight: Nested) -> Nested:
    """A convolution's sums, as they are."""
    depth, kernel = len(weight[0]), (len(weight[0][0]), len(weight[0][0][0]))
    maps = []
    for o, filter_ in enumerate(weight):
        first = o // (len(weight) // a["groups"]) * depth
        cells = [
            (
                row,
                column,
                sum(filter_[d][i][j] * x[first + d][r][c] for d in range(depth) for i, j, r, c in taps),
            )
            for row, column, taps in windows(x, a, kernel)
        ]
        maps.append(grid(cells))
    return maps


def test_dynamic_answers_do_not_depend_on_the_batch() -> None:
    graph, tensors = random_graph(4, integer=False, letter="d")
    images = random_images(graph, 6)
    images[2] //= 50  # a faint image beside a bright one
    alone = np.concatenate([kernels.run(graph, tensors, image[None]) for image in images])
    np.testing.assert_array_equal(kernels.run(graph, tensors, images), alone)


def test_dynamic_ops_take_images_of_nothing_but_zeros() -> None:
    w = {
        "d.weight": np.ones((2, 3), np.int8),
        "d.scale": np.ones(2, np.float32),
        "d.bias": np.array([1, -2], np.float32),
    }
    with np.errstate(all="raise"):
        got = kernels.KERNELS["ddense"](
            Op("ddense", "d", ("x",), {"bits": 8}), [np.zeros((1, 3), np.float32)], w
        )
    assert got.tolist() == [[1, -2]]


def test_sigmoid_of_large_values() -> None:
    op = Op("sigmoid", "s", ("x",))
    with np.errstate(all="raise", under="ignore"):
        got = kernels.KERNELS["sigmoid"](op, [np.array([-1e4, 0, 1e4], np.float32)], {})
    np.testing.assert_allclose(got, [0, 0.5, 1], atol=1e-30)


# --- run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("integer", [True, False])
def test_random_graphs_hold_every_op(integer: bool) -> None:
    graphs = [random_graph(seed, integer=integer, extended=True)[0] for seed in range(150)]
    for letter in "" if integer else "wd":
        graphs += [random_graph(seed, integer=False, letter=letter)[0] for seed in range(10)]
    assert {op.kind for graph in graphs for op in graph.ops} == {
        kind
        for kind, spec in OPS.items()
        if spec in ([*BOTH.values(), *(INTEGERS if integer else FLOATS).values()])
    }


def test_a_shuffle_deals_the_groups_out_in_turn() -> None:
    x = np.arange(12).reshape(1, 12, 1, 1)
    got = kernels.KERNELS["shuffle"](Op("shuffle", "s", ("x",), {"groups": 3}), [x], {})
    assert got.flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


@pytest.mark.parametrize("integer", [True, False])
def test_a_gate_of_one_value_serves_a_vector(integer: bool) -> None:
    x, gate = np.array([[3, -4, 5]], np.int64), np.array([[2]], np.int64)
    attrs = {"multiplier": 1, "shift": 1, "signed": True}
    op = Op("qmul", "g", ("x", "y"), attrs) if integer else Op("mul", "g", ("x", "y"))
    got = kernels.KERNELS[op.kind](op, [x, gate], {})
    assert got.tolist() == ([[3, -4, 5]] if integer else [[6, -8, 10]])


@pytest.mark.parametrize("integer", [True, False])
def test_run_is_the_same_in_any_batch(integer: bool) -> None:
    graph, tensors = random_graph(11, integer=integer)
    images = random_images(graph, 7)
    whole = kernels.run(graph, tensors, images)
    assert whole.dtype == (np.int32 if integer else np.float32)
    np.testing.assert_allclose(kernels.run(graph, tensors, images, batch=2), whole, rtol=1e-5, atol=1e-5)
    empty = kernels.run(graph, tensors, images[:0])
    assert (empty.shape, empty.dtype) == ((0, whole.shape[1]), whole.dtype)


def test_run_names_images_it_cannot_take() -> None:
    graph = Graph((1, 4, 3), (Op("halve", "h", ("input",)), Op("flatten", "f", ("h",))))
    with pytest.raises(GraphError, match=r"needs uint8 images \[n, 1, 4, 3\]; got float32 \[2, 1, 4, 3\]"):
        kernels.run(graph, {}, np.zeros((2, 1, 4, 3), np.float32))
    with pytest.raises(GraphError, match=r"got uint8 \[2, 1, 3, 4\]"):
        kernels.run(graph, {}, np.zeros((2, 1, 3, 4), np.uint8))


@pytest.mark.parametrize("integer", [True, False])
def test_a_map_is_the_logits_of_each_pixel(integer: bool) -> None:
    artifact = map_artifact(integer=integer)
    images = random_images(artifact.graph, 3)
    got = artifact.logits(images)
    assert got.shape == (3, *artifact.shape) == (3, 5, 6, 5)
    assert got.flags.c_contiguous
    before, last = artifact.graph.ops[-2].name, artifact.graph.ops[-1]
    pixels = kernels.activations(artifact.graph, artifact.tensors, images)[before].transpose(0, 2, 3, 1)
    weight, bias = (artifact.tensors[last.tensor(role)] for role in ("weight", "bias"))
    want = pixels @ weight.reshape(len(weight), -1).T.astype(pixels.dtype) + bias
    np.testing.assert_allclose(got.transpose(0, 2, 3, 1), want, atol=0 if integer else 1e-5)
    assert artifact.logits(images[:0]).shape == (0, 5, 6, 5)


def test_large_maps_go_through_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = map_artifact()
    images, seen = random_images(artifact.graph, 9), []
    want, once = artifact.logits(images), kernels.activations
    monkeypatch.setattr(kernels, "LARGEST", 4 * 210)  # of 7x6x5, the largest map
    monkeypatch.setattr(kernels, "activations", lambda g, t, x: seen.append(len(x)) or once(g, t, x))
    np.testing.assert_array_equal(artifact.logits(images), want)
    assert seen == [4, 4, 1]
