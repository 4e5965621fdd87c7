from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given

from graphs import float_graphs, integer_graphs, rounded_graphs
from netsuke.graph import Graph, Op
from netsuke.memory import VIEWS, layout, plan, ram_bytes
from netsuke.memory.streams import _Net

WINDOW = {"kernel": [2, 2], "stride": [2, 2]}


def maps(*ops: Op) -> Graph:
    """16x16 in one plane, then `ops`, then a sum."""
    return Graph((1, 16, 16), (Op("halve", "h", ("input",)), *ops, Op("sumpool", "s", (ops[-1].name,))))


def conv(name: str, x: str, **attrs: Any) -> Op:
    whole = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": 1, "bits": 8, "signed": False}
    return Op("qconv2d", name, (x,), {**whole, **attrs})


def weights(*names: str, outputs: int = 1, inputs: int = 1) -> dict[str, np.ndarray]:
    one = np.ones(outputs, np.int32)
    tensors = {f"{name}.{role}": one for name in names for role in ("bias", "multiplier", "shift")}
    return tensors | {f"{name}.weight": np.ones((outputs, inputs, 3, 3), np.int8) for name in names}


def pool(name: str, x: str, **attrs: Any) -> Op:
    return Op("maxpool", name, (x,), {"padding": [0, 0, 0, 0], **WINDOW, **attrs})


def test_a_row_and_the_counters_are_all_that_a_sum_needs() -> None:
    graph = Graph((1, 4, 4), (Op("halve", "h", ("input",)), Op("sumpool", "s", ("h",))))
    found = layout(graph, {})
    assert found.rings["h"].rows == 1
    assert found.size == 4 + 4 + 4  # a row, the sum, three counters and a byte to fill a word


def test_a_window_keeps_its_rows() -> None:
    found = layout(maps(conv("a", "h"), conv("b", "a")), weights("a", "b"))
    assert [found.rings[name].rows for name in ("h", "a")] == [3, 3]
    padded = layout(maps(conv("a", "h", padding=[1, 1, 1, 1]), conv("b", "a")), weights("a", "b"))
    assert [padded.rings[name].rows for name in ("h", "a")] == [3, 3]


def test_pool_and_sum_are_computed_with_the_convolution_before_them() -> None:
    graph = maps(conv("a", "h"), pool("b", "a"), conv("c", "b"))
    found = layout(graph, weights("a", "c"))
    assert [stage.output for stage in found.stages] == ["h", "b", "s"]
    assert found.rings["h"].rows == 4  # of 3x3 windows, two above each other
    assert "a" not in found.rings
    assert "c" not in found.rings


def test_a_residual_waits_for_its_branch() -> None:
    same = {"padding": [1, 1, 1, 1]}
    add = Op("qadd", "d", ("c", "a"), {"multipliers": [1, 1], "shift": 1, "signed": False})
    graph = maps(pool("a", "h"), conv("b", "a", **same), conv("c", "b", **same), add)
    found = layout(graph, weights("b", "c"))
    # Row y of the sum takes row y + 1 of b, that takes row y + 2 of a: rows y to y + 2 of a are alive, with y the sum.
    assert found.rings["a"].rows == 3
    assert found.rings["b"].rows == 3
    assert found.owners["d"] == "c"  # in place


def test_a_residual_around_one_convolution_is_computed_with_it() -> None:
    add = Op("qadd", "d", ("a", "b"), {"multipliers": [1, 1], "shift": 1, "signed": False})
    found = layout(maps(pool("a", "h"), conv("b", "a", padding=[1, 1, 1, 1]), add), weights("b"))
    assert [stage.output for stage in found.stages] == ["h", "a", "d", "s"]


def test_a_gate_that_needs_the_whole_map_keeps_it() -> None:
    ratio = {"multiplier": 1, "shift": 7, "signed": False}
    whole = {"kernel": [8, 8], "stride": [8, 8]}
    graph = maps(
        pool("a", "h"),
        pool("g", "a", **whole),
        Op("flatten", "f", ("g",)),
        Op("qmul", "m", ("a", "f"), ratio),
    )
    assert layout(graph, {}).rings["a"].rows == 8


def test_whole_maps_lie_over_each_other_shifted() -> None:
    """Three 3x3 layers on an 8x8 map of 32 channels, far apart from the image: each is written a row and a pixel
    beside the one it reads.
    """
    same = {"padding": [1, 1, 1, 1]}
    ops = [
        conv("a", "h", stride=[2, 2], padding=[1, 1, 0, 0]),
        *(conv(n, m, **same) for n, m in ("ba", "cb", "dc")),
    ]
    tensors = weights("a", outputs=32) | weights("b", "c", "d", outputs=32, inputs=32)
    sizes = ram_bytes(maps(*ops), tensors)
    assert sizes < 2 * 8 * 8 * 32


def test_bits_do_not_change_the_memory() -> None:
    """Packed weights are decoded as they are multiplied."""
    graphs = [maps(conv("q", "h", bits=bits)) for bits in (8, 4, 3)]
    assert len({ram_bytes(graph, weights("q")) for graph in graphs}) == 1


@given(pair=integer_graphs(extended=True))
def test_layouts_hold_what_is_alive(pair: tuple) -> None:
    graph, tensors = pair
    found = layout(graph, tensors)
    types = graph.types(tensors)
    for name, ring in found.rings.items():
        assert 1 <= ring.rows <= ring.of
        if name in found.offsets:
            assert found.offsets[name] + ring.size <= found.size
            assert found.offsets[name] % types[name].itemsize == 0
    assert found.size % 4 == 0
    assert found.size == min(_Net(graph, tensors).layout(n).size for n in _Net(graph, tensors).choices())


def peak(graph: Graph, tensors: dict[str, np.ndarray]) -> tuple[int, int]:
    """The largest and the summed size of everything in memory."""
    sizes = [
        x.elements * x.itemsize for n, x in graph.types(tensors).items() if n in plan(graph, tensors).offsets
    ]
    return max(sizes, default=0), sum(sizes)


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
