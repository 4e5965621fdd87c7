from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given

from graphs import float_graphs, integer_graphs, rounded_graphs
from netsuke.graph import Graph, Op
from netsuke.memory import VIEWS, plan, ram_bytes

WINDOW = {"kernel": [2, 2], "stride": [2, 2]}


def maps(*ops: Op) -> Graph:
    """16x16 in one plane, then `ops`, then a sum."""
    return Graph((1, 16, 16), (Op("halve", "h", ("input",)), *ops, Op("sumpool", "s", (ops[-1].name,))))


def pool(name: str, x: str, **attrs: Any) -> Op:
    return Op("maxpool", name, (x,), {"padding": [0, 0, 0, 0], **WINDOW, **attrs})


def test_views_and_logits_take_nothing() -> None:
    graph = Graph((1, 4, 4), (Op("halve", "h", ("input",)), Op("sumpool", "s", ("h",))))
    assert ram_bytes(graph, {}) == 0


def test_two_maps_share_memory_and_pools_work_in_place() -> None:
    assert ram_bytes(maps(pool("a", "h")), {}) == 64
    assert ram_bytes(maps(pool("a", "h"), pool("b", "a")), {}) == 64
    padded = {"padding": [1, 1, 0, 0]}  # 16 -> 8 -> 4: a padded pool must not write over what it reads
    assert ram_bytes(maps(pool("a", "h"), pool("b", "a", **padded)), {}) == 64 + 16


def test_a_residual_outlives_the_branch() -> None:
    same = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1]}
    add = Op("qadd", "d", ("c", "a"), {"multipliers": [1, 1], "shift": 1, "signed": False})
    # a, b and c of 64 bytes: a lives through both; the sum lies over one of its inputs.
    assert ram_bytes(maps(pool("a", "h"), pool("b", "a", **same), pool("c", "b", **same), add), {}) == 3 * 64


def test_a_gate_lies_over_its_map_only_where_the_shapes_agree() -> None:
    ratio = {"multiplier": 1, "shift": 7, "signed": False}
    squared = maps(pool("a", "h"), Op("qmul", "m", ("a", "a"), ratio))
    assert ram_bytes(squared, {}) == 64
    by_pixel = maps(pool("a", "h"), Op("channelmax", "g", ("a",)), Op("qmul", "m", ("a", "g"), ratio))
    assert ram_bytes(by_pixel, {}) <= 3 * 64
    table = {"t.table": np.zeros(128, np.int32)}
    assert ram_bytes(maps(pool("a", "h"), Op("lookup", "t", ("a",), {"signed": False})), table) == 64


def test_parts_are_copies() -> None:
    """A concatenation reads all its parts after all of them are written."""
    both = maps(pool("a", "h"), pool("b", "h"), Op("concat", "c", ("a", "b")))
    assert ram_bytes(both, {}) == 64 + 64 + 128
    cut = maps(
        pool("a", "h"), Op("concat", "c", ("a", "a")), Op("slice", "p", ("c",), {"start": 1, "stop": 2})
    )
    assert ram_bytes(cut, {}) == 128 + 64


def test_decoded_filters_are_counted() -> None:
    attrs = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": 1, "signed": False}
    one = np.ones(1, np.int32)
    for bits, scratch in ((8, 0), (4, 12)):
        graph = maps(Op("qconv2d", "q", ("h",), {**attrs, "bits": bits}))
        tensors = {
            "q.weight": np.ones((1, 1, 3, 3), np.int8),
            "q.bias": one,
            "q.multiplier": one,
            "q.shift": one,
        }
        assert ram_bytes(graph, tensors) == 14 * 14 + scratch  # 9 bytes, rounded up to a word


def peak(graph: Graph, tensors: dict[str, np.ndarray]) -> tuple[int, int]:
    """The largest and the summed size of everything in memory."""
    sizes = [
        x.elements * x.itemsize for n, x in graph.types(tensors).items() if n in plan(graph, tensors).offsets
    ]
    return max(sizes, default=0), sum(sizes)


@given(pair=integer_graphs(extended=True))
def test_integer_plans_lie_between_their_bounds(pair: tuple) -> None:
    check_bounds(*pair)


@given(pair=float_graphs(extended=True) | rounded_graphs("w") | rounded_graphs("d"))
def test_float_plans_lie_between_their_bounds(pair: tuple) -> None:
    check_bounds(*pair)


def check_bounds(graph: Graph, tensors: dict[str, np.ndarray]) -> None:
    found = plan(graph, tensors)
    largest, total = peak(graph, tensors)
    types = graph.types(tensors)
    slack = 4 * len(graph.ops) + sum(
        tensors[op.tensor("weight")][0].size + types[op.inputs[0]].elements
        for op in graph.ops
        if op.name in found.scratch
    )
    assert largest <= found.size <= total + slack
    assert found.size % 4 == 0
    assert all(at % types[name].itemsize == 0 for name, at in found.offsets.items())
    assert not any(op.kind in VIEWS and op.name in found.offsets for op in graph.ops)
