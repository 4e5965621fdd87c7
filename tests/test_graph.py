from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from graphs import float_graphs, integer_graphs, rounded_graphs
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


@given(pair=integer_graphs(extended=True))
def test_integer_graphs_survive_json(pair: tuple) -> None:
    check_json(*pair, integer=True)


@given(pair=float_graphs(extended=True))
def test_float_graphs_survive_json(pair: tuple) -> None:
    check_json(*pair, integer=False)


@given(pair=rounded_graphs("w") | rounded_graphs("d"))
def test_graphs_of_integer_weights_survive_json(pair: tuple) -> None:
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
    refuses("the last op must give one logit a class, or be one of conv2d", HALVE)


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


def test_errors_of_what_joins_and_cuts() -> None:
    refuses(
        r"concat 'c': needs inputs that differ only in their channels; gets u7 \[2, 6, 5\], u7 \[60\]",
        HALVE,
        FLAT,
        Op("concat", "c", ("h", "f")),
    )
    refuses("concat 'c': takes two or more earlier outputs; got h", HALVE, Op("concat", "c", ("h",)))
    normal = Op("normalize", "n", ("input",), {"scales": [1, 1], "offsets": [0, 0]})
    refuses("differ only in their channels; gets u7 .*, f32", HALVE, normal, Op("concat", "c", ("h", "n")))
    refuses(
        r"channels 1 to 3 are not within u7 \[2, 6, 5\]",
        HALVE,
        Op("slice", "s", ("h",), {"start": 1, "stop": 3}),
    )
    refuses("channels 1 to 1 are not within", HALVE, Op("slice", "s", ("h",), {"start": 1, "stop": 1}))
    refuses("are not within u8", Op("slice", "s", ("input",), {"start": 0, "stop": 1}))
    refuses("2 channels do not divide into 3 groups", HALVE, Op("shuffle", "s", ("h",), {"groups": 3}))
    refuses("needs a C, H, W map of f32 or u7 or s8; gets u7", HALVE, FLAT, Op("channelmax", "m", ("f",)))
    refuses("needs a C, H, W map of f32; gets u7", HALVE, Op("channelmean", "m", ("h",)))


def test_errors_of_gates() -> None:
    ratio = {"multiplier": 1, "shift": 14, "signed": False}
    refuses(
        r"qmul 'g': needs a map and a gate of its shape, of its channels or of its pixels; "
        r"gets u7 \[2, 6, 5\] and u7 \[60\]",
        HALVE,
        FLAT,
        Op("qmul", "g", ("h", "f"), ratio),
    )
    refuses(r"and i32 \[2\]", HALVE, SUM, Op("qmul", "g", ("h", "s"), ratio))
    widest = (INT32_MAX - (1 << 13)) // 127**2
    gate = Op("qmul", "g", ("h", "h"), ratio | {"multiplier": widest})
    Graph((2, 6, 5), (HALVE, gate, Op("flatten", "f", ("g",)))).types({})
    refuses("can overflow int32", HALVE, Op("qmul", "g", ("h", "h"), ratio | {"multiplier": widest + 1}))
    mean = {"multiplier": INT32_MAX // 254, "shift": 0}
    Graph((2, 6, 5), (HALVE, Op("qchannelmean", "m", ("h",), mean), Op("flatten", "f", ("m",)))).types({})
    mean["multiplier"] += 1
    refuses("can overflow int32", HALVE, Op("qchannelmean", "m", ("h",), mean))


def table(*shape: int, low: int = 0, high: int = 127) -> np.ndarray:
    return np.resize(np.array([low, high], np.int32), shape)


def test_errors_of_tables() -> None:
    def refuses_table(match: str, array: np.ndarray, signed: bool = False) -> None:
        refuses(match, HALVE, Op("lookup", "t", ("h",), {"signed": signed}), t_table=array)

    refuses_table(r"table must be int32 \[128\], is int32 \[255\]", table(255))
    refuses_table(r"table must be int32 \[2, 128\], is int32 \[3, 128\]", table(3, 128))
    refuses_table(r"table must be int32 \[128\], is int8 \[128\]", table(128).astype(np.int8))
    refuses_table("its table must hold 0 to 127", table(128, low=-1))
    refuses_table("its table must hold -127 to 127", table(2, 128, low=-128), signed=True)
    refuses("its tensor 't.table' is missing", HALVE, Op("lookup", "t", ("h",), {"signed": False}))
    refuses(r"needs u7 or s8; gets i32 \[2\]", HALVE, SUM, Op("lookup", "t", ("s",), {"signed": False}))


def test_what_the_later_ops_give() -> None:
    ops = (
        HALVE,
        Op("lookup", "t", ("h",), {"signed": True}),
        Op("lookup", "back", ("t",), {"signed": False}),
        Op("concat", "both", ("h", "t", "back")),
        Op("shuffle", "mixed", ("both",), {"groups": 3}),
        Op("slice", "part", ("mixed",), {"start": 1, "stop": 5}),
        Op("qchannelmean", "mean", ("part",), {"multiplier": 1, "shift": 2}),
        Op("channelmax", "peak", ("h",)),
        Op("qmul", "gated", ("part", "mean"), {"multiplier": 1, "shift": 7, "signed": True}),
        Op("qmul", "seen", ("gated", "peak"), {"multiplier": 1, "shift": 7, "signed": False}),
        Op("qavgpool", "pool", ("seen",), {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1, 1, 1],
                                           "multiplier": 7, "shift": 6}),
        Op("sumpool", "out", ("pool",), {"scale": 0.5}),
    )  # fmt: skip
    types = Graph((2, 6, 5), ops).types({"t.table": table(128, low=-127), "back.table": table(2, 255)})
    shapes = {name: (x.dtype, x.shape) for name, x in types.items()}
    assert shapes["both"] == ("s8", (6, 6, 5))  # unsigned beside signed
    assert shapes["part"] == ("s8", (4, 6, 5))
    assert shapes["mean"] == ("s8", (1, 6, 5))
    assert shapes["peak"] == ("u7", (1, 6, 5))
    assert shapes["gated"] == ("s8", (4, 6, 5))
    assert shapes["pool"] == ("u7", (4, 3, 3))
    assert (types["out"].lo, types["out"].hi) == (0, 9 * 127)


def test_errors_of_float_activations() -> None:
    normal = Op("normalize", "n", ("input",), {"scales": [1, 1], "offsets": [0, 0]})
    slopes = {"p_slope": np.zeros(3, np.float32)}
    refuses(r"slope must be float32 \[2\], is float32 \[3\]", normal, Op("prelu", "p", ("n",)), **slopes)
    leaky = Op("leakyrelu", "l", ("n",), {"slope": float("inf")})
    refuses("leakyrelu 'l': slope must be a finite number; got inf", normal, leaky)
    refuses("is a float op; gets u7", HALVE, Op("silu", "s", ("h",)))
    pool = Op("avgpool", "a", ("n",), {"kernel": [2, 2]})
    refuses("takes the attributes kernel, stride and may take padding; got kernel", normal, pool)
    wide = {"kernel": [2, 2], "stride": [1, 1], "padding": [0, 0, 2, 0]}
    refuses("its padding must be smaller than its window", normal, Op("avgpool", "a", ("n",), wide))


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


@pytest.mark.parametrize("letter", ["w", "d"])
def test_errors_of_integer_weights_in_float_ops(letter: str) -> None:
    normal = Op("normalize", "n", ("input",), {"scales": [1, 1], "offsets": [0, 0]})
    flat = Op("flatten", "f", ("n",))

    def refuses_dense(match: str, *before: Op, bits: int = 8, **given: np.ndarray) -> None:
        fits = {"d_weight": ones(3, 60), "d_scale": np.ones(3, np.float32), "d_bias": np.zeros(3, np.float32)}
        dense = Op(f"{letter}dense", "d", ((before or (flat,))[-1].name,), {"bits": bits})
        refuses(match, *(before or (normal, flat)), dense, **fits | given)

    refuses_dense("a weight exceeds ±7, the range of 4 bits", bits=4, d_weight=ones(3, 60) * 8)
    refuses_dense("a weight exceeds ±127", d_weight=ones(3, 60) * -128)
    refuses_dense("a weight is 0; one bit", bits=1, d_weight=ones(3, 60) * 0)
    refuses_dense("bits must be a weight width from 1 to 8; got 9", bits=9)
    refuses_dense(r"weight must be int8 .* is float32", d_weight=np.ones((3, 60), np.float32))
    refuses_dense(r"scale must be float32 \[3\], is float32 \[4\]", d_scale=np.ones(4, np.float32))
    refuses_dense("scale holds NaN or infinite", d_scale=np.full(3, np.nan, np.float32))
    refuses_dense(
        "its scale times its weights is too large",
        d_scale=np.full(3, 3e38, np.float32),
        d_weight=ones(3, 60) * 2,
    )
    refuses_dense(r"bias must be float32 \[3\], is int32", d_bias=np.zeros(3, np.int32))
    refuses_dense("needs a flat vector of f32; gets u7", HALVE, FLAT)
    attrs = {k: CONV[k] for k in ("stride", "padding", "groups")}
    refuses(
        "takes the attributes stride, padding, groups, bits; got",
        normal,
        Op(f"{letter}conv2d", "c", ("n",), attrs),
    )
    refuses(
        "its weight must have four axes",
        normal,
        Op(f"{letter}conv2d", "c", ("n",), attrs | {"bits": 8}),
        c_weight=ones(2, 2),
    )


def test_dynamic_sums_stay_within_int32() -> None:
    """127 times the sum of |weights|: 133 144 weights of 127 reach 2**31 - 1 nearly; one more weight passes it."""
    normal = Op("normalize", "n", ("input",), {"scales": [1], "offsets": [0]})
    most = INT32_MAX // (127 * 127)
    weight = np.zeros((1, 3 * 65536), np.int8)
    weight[0, :most] = 127

    def types(kind: str) -> None:
        ops = (normal, Op("flatten", "f", ("n",)), Op(kind, "d", ("f",), {"bits": 8}))
        tensors = {"d.weight": weight, "d.scale": np.ones(1, np.float32), "d.bias": np.zeros(1, np.float32)}
        Graph((1, 3, 65536), ops).types(tensors)

    types("ddense")
    weight[0, most] = 127
    types("wdense")  # which sums in float
    with pytest.raises(GraphError, match="its sums can overflow int32"):
        types("ddense")


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


def test_a_map_of_logits_is_the_end() -> None:
    logits = Op("qlogits", "q", ("h",), {"bits": 8, "scale": 0.5})
    tensors = {"q.weight": np.array([[-3, 4]] * 3, np.int8), "q.bias": np.array([0, 9, -8], np.int32)}
    shape = (2, 4, 5)
    found = Graph(shape, (HALVE, logits)).types(tensors)["q"]
    assert (found.shape, found.dtype, found.lo, found.hi) == ((3, 4, 5), "i32", -517, 517)
    for op in (Op("flatten", "f", ("q",)), Op("sumpool", "f", ("q",)), Op("channelmax", "f", ("q",))):
        with pytest.raises(GraphError, match=r"nothing follows a map of sums|gets i32"):
            Graph(shape, (HALVE, logits, op)).types(tensors)
    tensors["q.bias"] = np.array([0, INT32_MAX - 500, 0], np.int32)
    with pytest.raises(GraphError, match="its sums can overflow int32"):
        Graph(shape, (HALVE, logits)).types(tensors)
