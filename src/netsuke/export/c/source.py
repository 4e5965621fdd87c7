"""NAME.c: constant arrays, a function a layer, the run itself and the self-test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netsuke import packing
from netsuke.artifact import Artifact
from netsuke.errors import UnsupportedOp
from netsuke.export.c import ops
from netsuke.export.c.header import SELF_TEST_IMAGES, comment, identifier
from netsuke.export.c.ops import Layer, View, each, indented
from netsuke.export.c.pointwise import POINTWISE, symbol
from netsuke.graph import INPUT, Graph, Op, Tensors, Type
from netsuke.memory import VIEWS, WORD, Plan, in_logits, plan, roots

EMIT = {**ops.EMIT, **POINTWISE}

REQUANTIZE = {
    "u7": """\
/* (acc * m + 2^(s-1)) / 2^s, rounded down and cut to 0..127; nothing overflows for any image. */
static int8_t requantize_u7(int32_t acc, int32_t multiplier, int shift)
{
    int32_t v;
    if (acc <= 0) {
        return 0;
    }
    v = (acc * multiplier + (((int32_t)1 << shift) >> 1)) >> shift;
    return (int8_t)(v > 127 ? 127 : v);
}
""",
    "s8": """\
/* (acc * m + 2^(s-1)) / 2^s, rounded down and cut to -127..127; nothing overflows for any image.
   C leaves the right shift of a negative number to the compiler, so -1 - v is shifted instead. */
static int8_t requantize_s8(int32_t acc, int32_t multiplier, int shift)
{
    int32_t v = acc * multiplier + (((int32_t)1 << shift) >> 1);
    v = v < 0 ? -1 - ((-1 - v) >> shift) : v >> shift;
    return (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
}
""",
}

# gcc 12 at -O2 looks across functions: it merges those of two layers of one shape, or fixes their places in the arena
# and then vectorises as if nothing overlapped. Both gave wrong logits from C that is right at -O0, -O1 and by clang
# (compare gcc's bug 113907). `noipa` makes it take each function by itself.
APART = """\
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8
#define LAYER static __attribute__((noipa)) void
#elif defined(__GNUC__) && !defined(__clang__)
#define LAYER static __attribute__((noinline, noclone)) void
#else
#define LAYER static void
#endif
"""

# Weights are a stream of bits without gaps, least significant first; the last byte is never passed.
READ_WEIGHT = """\
static int8_t weight_{bits}(const uint8_t *stream, place number)
{{
    const place bit = number * {bits};
    const int low = (int)(bit & 7);
    int v = stream[bit >> 3] >> low;
{carry}    v &= {mask};
    return (int8_t)({value});
}}
"""
CARRY = """\
    if (low > {room}) {{
        v |= stream[(bit >> 3) + 1] << (8 - low);
    }}
"""


def source(artifact: Artifact, name: str) -> str:
    """The text of NAME.c. Raises UnsupportedOp for anything but a graph in the integer contract."""
    graph, tensors = artifact.graph, artifact.tensors
    check_supported(graph)
    memory = plan(graph, tensors)
    views = _views(graph, graph.types(tensors), memory)
    layers = _layers(graph, tensors, views)
    arrays = [array for layer in layers for array in _arrays(layer)]
    constants = sum(stored for _, stored in arrays)
    assert constants == packing.size_bytes(graph, tensors), f"emits {constants} bytes of constants"
    functions = [_function(layer) for layer in layers]
    calls = [_call(layer, memory) for layer in layers] + _copy(views[graph.output])
    body = "\n".join(functions)
    parts = [
        f'#include "{name}.h"\n',
        f"typedef {_place(graph, tensors)} place;\n",
        APART,
        *([f"static int32_t arena[{memory.size // WORD}];\n"] if memory.size else []),
        "\n".join(text for text, _ in arrays),
        *(text for kind, text in REQUANTIZE.items() if f"requantize_{kind}(" in body),
        *(_reader(bits) for bits in range(1, 8) if f"weight_{bits}(" in body),
        body,
        indented([f"void {name}_run(const uint8_t *image, int32_t *logits)", "{", *calls, "}"]),
        _self_test(artifact, name),
    ]
    return "\n".join(parts)


def check_supported(graph: Graph) -> None:
    """Raise UnsupportedOp for a graph that is not in the integer contract."""
    known = ", ".join(sorted({*EMIT, *VIEWS}))
    for op in graph.ops:
        if op.kind not in EMIT and op.kind not in VIEWS:
            raise UnsupportedOp(f"c cannot emit {op.kind!r}: quantise the model first; it knows {known}")
    if not graph.integer:
        raise UnsupportedOp(f"c needs a graph of integer ops: quantise the model first; it knows {known}")


def _views(graph: Graph, types: Mapping[str, Type], memory: Plan) -> dict[str, View]:
    result = roots(graph)[graph.output]
    views = {INPUT: View("image", "uint8_t", types[INPUT].elements)}
    for op in graph.ops:
        x, before = types[op.name], views[op.inputs[0]]
        if op.kind == "halve":
            views[op.name] = View(before.pointer, before.ctype, before.elements, halved=True)
        elif op.kind == "flatten":
            views[op.name] = before
        elif op.name == result and in_logits(x):
            views[op.name] = View("logits", "int32_t", x.elements)
        elif x.dtype == "i32":
            views[op.name] = View(f"arena + {memory.offsets[op.name] // WORD}", "int32_t", x.elements)
        else:
            channels = _side_by_side(op, x, [views[name] for name in op.inputs])
            views[op.name] = View(
                f"(int8_t *)arena + {memory.offsets[op.name]}", "int8_t", x.elements, channels
            )
    return views


def _side_by_side(op: Op, x: Type, inputs: list[View]) -> int:
    """The order in which an op writes: pixel by pixel, and a sum of vectors as its inputs lie."""
    if len(x.shape) == 3:
        return x.shape[0] if x.elements > x.shape[0] else 1
    if op.kind == "lookup":
        return inputs[0].channels
    orders = {view.channels for view in inputs if view.channels > 1} if op.kind == "qadd" else set()
    return orders.pop() if len(orders) == 1 else 1


def _layers(graph: Graph, tensors: Tensors, views: Mapping[str, View]) -> list[Layer]:
    types = graph.types(tensors)
    return [
        Layer(
            op,
            f"op{i}_{identifier(op.name)}",
            tuple(views[name] for name in op.inputs),
            tuple(types[name].shape for name in op.inputs),
            types[op.name],
            views[op.name],
            tensors,
        )
        for i, op in enumerate(graph.ops)
        if op.kind not in VIEWS
    ]


def _place(graph: Graph, tensors: Tensors) -> str:
    """The quickest integer that counts everything: on 8 and 16 bit machines a wide one costs."""
    largest = max(x.elements for x in graph.types(tensors).values())
    bits = max((8 * array.size for name, array in tensors.items() if name.endswith(".weight")), default=0)
    return "int_fast16_t" if max(largest, bits) < 1 << 15 else "int_fast32_t"


# --- arrays -----------------------------------------------------------------------------------------


def _arrays(layer: Layer) -> list[tuple[str, int]]:
    """The constants of one layer and the bytes of each, as `packing.stored` counts them."""
    out = []
    for role in ("weight", "bias", "multiplier", "shift", "table"):
        tensor = layer.tensors.get(layer.op.tensor(role))
        if tensor is None:
            continue
        if role == "weight":
            tensor = _as_read(layer, tensor)
            bits = layer.op.attrs["bits"]
            array = tensor if bits == 8 else packing.pack(tensor, bits)
        elif role == "bias":
            array, exponent = packing.shortened(tensor)
            if exponent:
                out.append((f"static const uint8_t {layer.array('exponent')} = {exponent};\n", 1))
        else:
            array = tensor.astype(packing.storage_dtype(tensor))
        ctype, symbol = f"{array.dtype.name}_t", layer.array(role)
        if role == "shift" and (array == array.flat[0]).all():
            out.append((f"static const {ctype} {symbol} = {array.flat[0]};\n", array.itemsize))
        else:
            out.append((f"static const {ctype} {symbol}[{array.size}] = {literal(array)};\n", array.nbytes))
    return out


def _as_read(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """Weights in the order in which the code meets them: O, rows, columns, I; dense ones as `x` lies."""
    if weight.ndim == 4:
        return weight.transpose(0, 2, 3, 1)
    return weight[:, layer.x.order()]


def literal(array: np.ndarray) -> str:
    """A C initialiser; lines of 20 values."""
    values = list(map(str, array.reshape(-1).tolist()))
    rows = (", ".join(values[i : i + 20]) for i in range(0, len(values), 20))
    return "{\n    " + ",\n    ".join(rows) + "\n}"


def _reader(bits: int) -> str:
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    value = "v * 2 - 1" if bits == 1 else f"(v ^ {sign}) - {sign}"
    carry = "" if 8 % bits == 0 else CARRY.format(room=8 - bits)
    return READ_WEIGHT.format(bits=bits, carry=carry, mask=mask, value=value)


# --- functions --------------------------------------------------------------------------------------


def _decoded(layer: Layer) -> bool:
    """Whether the layer decodes a filter into memory of its own."""
    return layer.op.kind == "qconv2d" and layer.op.attrs["bits"] < 8


def _function(layer: Layer) -> str:
    parameters = [f"const {view.ctype} *{symbol(number)}" for number, view in enumerate(layer.inputs)]
    parameters.append(f"{layer.out.ctype} *out")
    if _decoded(layer):
        parameters.append("int8_t *filter")
    opening = f"LAYER {layer.symbol}({', '.join(parameters)})"
    lines = [
        f"/* {layer.op.kind} {comment([layer.op.name])} */",
        opening,
        "{",
        *EMIT[layer.op.kind](layer),
        "}",
    ]
    return indented(lines)


def _call(layer: Layer, memory: Plan) -> str:
    arguments = [view.pointer for view in layer.inputs] + [layer.out.pointer]
    if _decoded(layer):
        arguments.append(f"(int8_t *)arena + {memory.scratch[layer.op.name]}")
    return f"{layer.symbol}({', '.join(arguments)});"


def _copy(result: View) -> list[str]:
    """Widen a last layer of bytes to the caller's logits; wide sums are there already."""
    if result.pointer == "logits":
        return []
    value = result.load(result.at("k"), "result")
    return [
        f"const {result.ctype} *const result = {result.pointer};",
        each("k", result.elements),
        f"logits[k] = {value};",
        "}",
    ]


def _self_test(artifact: Artifact, name: str) -> str:
    """Noise at three strengths with the reference's logits, and the function that compares."""
    upper, shape = name.upper(), artifact.graph.input_shape
    images = np.random.default_rng(0).integers(0, 256, (SELF_TEST_IMAGES, *shape), np.uint8)
    images[1] //= 4
    images[2] *= images[2] > 200  # sparse, as strokes are
    logits = artifact.logits(images)
    lines = [
        f"int {name}_self_test(void)",
        "{",
        f"int32_t logits[{logits.shape[1]}];",
        "int wrong = 0;",
        each("i", SELF_TEST_IMAGES),
        f"{name}_run(test_images[i], logits);",
        each("k", logits.shape[1]),
        "wrong += logits[k] != test_logits[i][k];",
        "}",
        "}",
        "return wrong;",
        "}",
    ]
    arrays = "".join(
        f"static const {ctype} {symbol}[{len(array)}][{array[0].size}] = {{{', '.join(map(literal, array))}}};\n\n"
        for ctype, symbol, array in (("uint8_t", "test_images", images), ("int32_t", "test_logits", logits))
    )
    return f"#ifdef {upper}_SELF_TEST\n\n{arrays}{indented(lines)}\n#endif\n"
