from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from graphs import float_graphs, integer_graphs
from netsuke.errors import GraphError, UnsupportedOp
from netsuke.graph import INT32_MAX, OPS, Graph, Op

HALVE = Op("halve", "h", ("input",))
SUM = Op("sumpool", "s", ("h",))
FLAT = Op("flatten", "f", ("h",))
CONV = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": 1, "bits": 8, "signed": False}


def refuses(match: str, *ops: Op, shape: tuple = (2, 6, 5), **tensors: np.ndarray) -> None:
    named = {name.replace("_", "."): array for name, array in tensors.items()}
    with pytest.raises(GraphError, match=match) as caught:
        Graph(shape, ops).types(named)
    assert "\n" not in str(caught.value)


def conv(weight: np.ndarray, *, bias: int = 0, m: int = 1, s: int = 0, **attrs: Any) -> dict[str, Any]:
    """Arguments of `refuses` for one convolution called q."""
    full = [np.full(len(weight), v, np.int32) for v in (bias, m, s)]
    return {"op": Op("qconv2d", "q", ("h",), CONV | attrs), "q_weight": weight, "q_bias": full[0],
            "q_multiplier": full[1], "q_shift": full[2]}  # fmt: skip


def refuses_conv(match: str, weight: np.ndarray, **given: Any) -> None:
    arguments = conv(weight, **given)
    refuses(match, HALVE, arguments.pop("op"), Op("flatten", "f", ("q",)), **arguments)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int8)


@given(pair=integer_graphs())
def test_integer_graphs_survive_json(pair: tuple) -> None:
    check_json(*pair, integer=True)


@given(pair=float_graphs())
def test_float_graphs_survive_json(pair: tuple) -> None:
    check_json(*pair, integer=False)


def check_json(graph: Graph, tensors: dict[str, np.ndarray], integer: bool) -> None:
    again = Graph.from_json(json.loads(json.dumps(graph.to_json())))
    assert again == graph
    assert again.integer is integer
    assert again.types(tensors) == graph.types(tensors)
    assert set(graph.roles()) == set(tensors)


def test_structure_errors() -> None:
    with pytest.raises(GraphError, match="at least one op"):
        Graph((1, 2, 2), ()).types({})
    refuses("unknown op 'swish'; netsuke knows add, avgpool", Op("swish", "x", ("input",)))
    refuses("flatten 'h': its name is taken", HALVE, Op("flatten", "h", ("h",)))
    refuses("takes 1 earlier outputs; got nowhere", Op("halve", "h", ("nowhere",)))
    refuses("takes 1 earlier outputs; got f", Op("flatten", "f", ("f",)))
    refuses("takes 2 earlier outputs; got h", HALVE, Op("add", "a", ("h",)))
    refuses("takes the attributes none; got bits", Op("halve", "h", ("input",), {"bits": 8}))
    refuses(
        "takes the attributes kernel, stride, padding; got kernel",
        HALVE,
        Op("maxpool", "m", ("h",), {"kernel": [2, 2]}),
    )
    refuses("nothing uses the output of 'f'", HALVE, FLAT, SUM)
    refuses("the last op must give one logit a class", HALVE)


@pytest.mark.parametrize(
    ("key", "value", "want"),
    [
        ("stride", [0, 1], "each at least 1"),
        ("stride", [1], "each at least 1"),
        ("padding", [0, 0, -1, 0], "none negative"),
        ("groups", 0, "a positive number"),
        ("groups", True, "a positive number"),
        ("bits", 9, "a weight width from 1 to 8"),
        ("bits", "8", "a weight width from 1 to 8"),
        ("signed", 1, "true or false"),
    ],
)
def test_attribute_errors(key: str, value: Any, want: str) -> None:
    refuses_conv(f"{key} must be .*{want}", ones(1, 2, 1, 1), **{key: value})


def test_type_errors() -> None:
    refuses(
        r"sumpool 's': needs a C, H, W map of u7 or s8; gets u8 \[2, 6, 5\]", Op("sumpool", "s", ("input",))
    )
    refuses(
        r"needs a C, H, W map of f32; gets u7",
        HALVE,
        Op("conv2d", "c", ("h",), {k: CONV[k] for k in ("stride", "padding", "groups")}),
    )
    refuses(
        r"needs a flat vector of f32; gets u7 \[60\]",
        HALVE,
        FLAT,
        Op("dense", "d", ("f",)),
        d_weight=np.ones((1, 60), np.float32),
    )
    refuses("is a float op; gets u7", HALVE, Op("relu", "r", ("h",)))
    refuses(
        "needs 2 scales and offsets", Op("normalize", "n", ("input",), {"scales": [1.0], "offsets": [0.0]})
    )
    both = {"multipliers": [1, 1], "shift": 0, "signed": False}
    refuses(
        r"needs two equal shapes of u7 or s8; gets i32 \[2\] and u7 \[60\]",
        HALVE,
        FLAT,
        SUM,
        Op("qadd", "a", ("s", "f"), both),
    )


def test_window_errors() -> None:
    refuses_conv("a 7x1 window does not fit the 6x5 map", ones(1, 2, 7, 1))
    refuses_conv("its padding must be smaller than its kernel", ones(1, 2, 2, 2), padding=[0, 2, 0, 0])
    refuses_conv("2 input and 3 output channels do not divide into 2 groups", ones(3, 1, 1, 1), groups=2)
    window = {"kernel": [2, 2], "stride": [1, 1], "padding": [2, 0, 0, 0]}
    refuses("its padding must be smaller than its window", HALVE, Op("maxpool", "m", ("h",), window))


def test_weight_errors() -> None:
    refuses_conv("its weight must have four axes", ones(2, 2))
    refuses_conv(r"weight must be int8 \[1, 2, 1, 1\], is int8 \[1, 1, 1, 1\]", ones(1, 1, 1, 1))
    refuses_conv(r"weight must be int8 .* is int32", ones(1, 2, 1, 1).astype(np.int32))
    refuses_conv("a weight exceeds ±7, the range of 4 bits", ones(1, 2, 1, 1) * 8, bits=4)
    refuses_conv("a weight exceeds ±1, the range of 1 bits", ones(1, 2, 1, 1) * 2, bits=1)
    refuses_conv("a weight is 0; one bit", ones(1, 2, 1, 1) * 0, bits=1)
    refuses_conv("a weight exceeds ±127", ones(1, 2, 1, 1) * -128)
    arguments = conv(ones(1, 2, 1, 1))
    op = arguments.pop("op")
    refuses(
        "its tensor 'q.bias' is missing", HALVE, op, Op("flatten", "f", ("q",)), q_weight=ones(1, 2, 1, 1)
    )
    floats = {"d_weight": np.full((1, 60), np.nan, np.float32), "d_bias": np.zeros(1, np.float32)}
    normal = Op("normalize", "n", ("input",), {"scales": [1, 1], "offsets": [0, 0]})
    refuses(
        "weight holds NaN or infinite", normal, Op("flatten", "f", ("n",)), Op("dense", "d", ("f",)), **floats
    )


def test_int32_bounds_are_exact() -> None:
    """One weight of 1 over 0..127: |sum| reaches 127 + bias; one more must not pass."""
    weight = ones(1, 2, 1, 1)
    weight[0, 1] = 0

    def types(**given: int) -> None:
        arguments = conv(weight, **given)
        op = arguments.pop("op")
        tensors = {name.replace("_", "."): array for name, array in arguments.items()}
        Graph((2, 6, 5), (HALVE, op, Op("flatten", "f", ("q",)))).types(tensors)

    types(bias=INT32_MAX - 127)
    refuses_conv("its sums can overflow int32", weight, bias=INT32_MAX - 126)
    widest = (INT32_MAX - (1 << 9)) // 127
    types(m=widest, s=10)
    refuses_conv("its requantisation can overflow int32", weight, m=widest + 1, s=10)
    refuses_conv("multipliers must not be negative", weight, m=-1)
    refuses_conv("shifts must be 0 to 30", weight, s=31)


def test_pool_and_add_bounds() -> None:
    widest = INT32_MAX // (127 * 4)
    pool = {"kernel": [2, 2], "stride": [1, 1], "multiplier": widest, "shift": 0}
    Graph((1, 4, 4), (HALVE, Op("qavgpool", "p", ("h",), pool), Op("flatten", "f", ("p",)))).types({})
    refuses("can overflow int32", HALVE, Op("qavgpool", "p", ("h",), pool | {"multiplier": widest + 1}))
    both = {"multipliers": [1, INT32_MAX // 127 - 1], "shift": 0, "signed": True}
    Graph((1, 4, 4), (HALVE, Op("qadd", "a", ("h", "h"), both), Op("flatten", "f", ("a",)))).types({})
    both["multipliers"] = [2, INT32_MAX // 127 - 1]
    refuses("can overflow int32", HALVE, Op("qadd", "a", ("h", "h"), both))


def test_an_output_over_the_limit() -> None:
    refuses("is over the limit of 16777216", HALVE, FLAT, shape=(1, 1 << 13, 1 << 12))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"input_shape": [1, 0, 4]}, "three sizes C, H, W"),
        ({"input_shape": [1, 4]}, "three sizes C, H, W"),
        ({"ops": []}, "a list of 1 to 4096 ops"),
        ({"ops": {}}, "a list of 1 to 4096 ops"),
        ({"ops": [{"kind": "halve"}]}, "an op is an object"),
        ({"ops": [{"kind": "eval", "name": "e", "inputs": [], "attrs": {}}]}, "unknown op 'eval'"),
        ({"ops": [{"kind": ["halve"], "name": "e", "inputs": [], "attrs": {}}]}, "unknown op"),
        ({"ops": [{"kind": "halve", "name": "input", "inputs": [], "attrs": {}}]}, "bad op name 'input'"),
        ({"ops": [{"kind": "halve", "name": "h", "inputs": [1], "attrs": {}}]}, "h: inputs must be"),
        ({"ops": [{"kind": "halve", "name": "h", "inputs": [], "attrs": []}]}, "h: attrs must be"),
        ({"extra": 1}, "an object with input_shape and ops"),
    ],
)
def test_json_errors(change: dict[str, Any], match: str) -> None:
    with pytest.raises(GraphError, match=match):
        Graph.from_json(Graph((1, 4, 4), (HALVE, SUM)).to_json() | change)


def test_every_op_has_a_kernel() -> None:
    from netsuke.kernels import KERNELS

    assert set(KERNELS) == set(OPS)
    with pytest.raises(UnsupportedOp):
        Graph.from_json(
            {"input_shape": [1, 4, 4], "ops": [{"kind": "x", "name": "x", "inputs": [], "attrs": {}}]}
        )
