"""C for processors that have vectors: from any integer graph, exact, shaped for speed on a host.

`build` gives the C and, apart from it, the weights: networks of one shape share their code.
`kernels.py` is the definition that all variants meet, bit for bit. The C needs no libc.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from netsuke.errors import UnsupportedOp
from netsuke.export.c.fast import planes, planes_depthwise, planes_stem
from netsuke.export.c.fast.convolution import convolution, dense, pixelwise
from netsuke.export.c.fast.depthwise import depthwise
from netsuke.export.c.fast.layout import DENSE, Layout, Map, layout
from netsuke.export.c.fast.pointwise import EMIT, wide_dense
from netsuke.export.c.fast.program import Program, indented
from netsuke.export.c.fast.routes import depthwise as is_depthwise
from netsuke.export.c.fast.step import Step, typed
from netsuke.export.c.fast.step import each as for_each
from netsuke.export.c.fast.variants import VARIANTS, Variant
from netsuke.graph import Graph, Op, Tensors
from netsuke.measure.cost import macs

__all__ = ["VARIANTS", "Source", "Variant", "build"]

BLOCK = 24  # images whose dense layers run together

PRELUDE = """\
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline, unused))
/* gcc 12 looks across functions and then takes maps in one workspace for maps that never overlap. */
#if defined(__GNUC__) && !defined(__clang__)
#define LAYER static __attribute__((noipa)) void
#else
#define LAYER static __attribute__((noinline)) void
#endif
"""

SCALAR = """\

/* (acc * m + 2^(s-1)) / 2^s, rounded down and cut to low..127. */
INLINE int8_t rounded(int32_t acc, int32_t m, int32_t r, int32_t s, int32_t low)
{
    const int32_t v = (acc * m + r) >> s;
    return (int8_t)(v > 127 ? 127 : v < low ? low : v);
}

typedef uint64_t eight;
typedef uint64_t sixteen __attribute__((vector_size(16)));

/* As many pixels at once. */
#define HALVE(name) \
    INLINE void halve_##name(const uint8_t *image, int8_t *y) \
    { \
        name v; \
        __builtin_memcpy(&v, image, sizeof v); \
        v = v >> 1 & UINT64_C(0x7f7f7f7f7f7f7f7f); \
        __builtin_memcpy(y, &v, sizeof v); \
    }
HALVE(eight)
HALVE(sixteen)

#define requantize(acc, m, s, low) rounded(acc, m, ((int32_t)1 << (s)) >> 1, s, low)
"""


@dataclass(frozen=True)
class Source:
    """`body`, behind the `prelude` of its variant, defines

    `void run(const int8_t *w, const uint8_t *images, int32_t *logits, long n, int8_t *work)`.

    `weights` are what `w` points at, `work_bytes` the size of `work`, both aligned to 64 bytes; `work` must be zero
    before its first use and may then be used again and again, by one thread at a time.
    """

    prelude: str
    body: str
    weights: bytes
    work_bytes: int
    input_bytes: int
    shape: tuple[int, ...]  # of the logits of an image: (classes,), or (O, H, W) of a map
    macs: int

    @property
    def text(self) -> str:
        return f"{self.prelude}\n{self.body}"


def build(graph: Graph, tensors: Tensors, variant: Variant) -> Source:
    """C and weights of an integer graph. Raises UnsupportedOp for a float graph, GraphError for a bad one."""
    if not graph.integer:
        raise UnsupportedOp("the fast C kernels take integer graphs: quantise the model first")
    found = layout(
        graph, tensors, largest=(variant.registers - 1) // variant.per_block - 1, planes=variant.planes
    )
    program = Program(variant, found)
    types = graph.types(tensors)
    makers = {op.name: op for op in graph.ops}
    for op in graph.ops:
        if op.name in found.fused or (op.kind == "flatten" and found.maps[op.name].flat):
            continue
        _emit(program, op, makers, tensors)
    channels, high, wide = graph.input_shape
    shape = types[graph.output].shape
    prelude = "\n".join([PRELUDE, variant.header, SCALAR])
    body = _body(program, found, channels * high * wide, shape, graph.output)
    work = found.shared + BLOCK * found.each
    products = sum(macs(graph, tensors).values())
    return Source(prelude, body, bytes(program.weights), work, channels * high * wide, shape, products)


def _emit(program: Program, op: Op, makers: dict[str, Op], tensors: Tensors) -> None:
    maps = program.layout.maps
    y = maps[op.name]
    if op.kind == "maxpool" and op.inputs[0] in program.layout.fused:
        maker = makers[op.inputs[0]]
        if y.planes:
            planes_stem.stem(program, maker, maps[maker.inputs[0]], y, tensors, pooled=True)
            return
        convolution(program, maker, maps[maker.inputs[0]], y, tensors, tuple(op.attrs["kernel"]))
        return
    inputs = tuple(maps[name] for name in op.inputs if name in maps)
    if y.planes or (op.kind == "sumpool" and inputs[0].planes):
        _emit_planes(program, op, inputs, y, makers, tensors)
        return
    if op.kind == "qconv2d":
        (depthwise if is_depthwise(op, tensors) else convolution)(program, op, inputs[0], y, tensors)
    elif (
        op.kind == "qlogits" and op.name not in program.layout.late and not (inputs[0].wide or inputs[0].flat)
    ):
        pixelwise(program, op, inputs[0], y, tensors)
    elif op.kind in DENSE and not inputs[0].wide:
        dense(program, op, inputs[0], y, tensors)
    elif op.kind in DENSE:
        wide_dense(Step(program, op, inputs, y, tensors))
    elif op.kind in EMIT:
        EMIT[op.kind](Step(program, op, inputs, y, tensors))
    else:
        raise UnsupportedOp(
            f"the fast C kernels do not know {op.kind!r}; they know {', '.join(sorted(EMIT))}"
        )


def _emit_planes(
    program: Program, op: Op, inputs: tuple[Map, ...], y: Map, makers: dict[str, Op], tensors: Tensors
) -> None:
    x = inputs[0]
    if op.kind == "sumpool":
        planes.sumpool(program, x, y)
    elif op.kind == "qavgpool":
        planes_depthwise.average(program, op, x, y)
    elif op.kind == "qadd":
        maker = makers[next(name for name in op.inputs if name in program.layout.fused)]
        planes.pointwise(program, maker, program.layout.maps[maker.inputs[0]], y, tensors, beside=x)
    elif not x.planes:
        planes_stem.stem(program, op, x, y, tensors)
    else:
        (planes_depthwise.depthwise if is_depthwise(op, tensors) else planes.pointwise)(
            program, op, x, y, tensors
        )


def _body(program: Program, found: Layout, image: int, shape: tuple[int, ...], output: str) -> str:
    result, count = found.maps[output], prod(shape)
    if len(shape) == 3:  # written as soon as it is there, for the next image takes its memory
        name = program.function("planes", "const int32_t *x, int32_t *logits", _to_planes(result))
        program.call(f"{name}({typed(result)}, logits + (first + i) * {count});", late=False)
    functions = [f"LAYER {name}{text}" for text, name in program.functions.items()]
    lines = [
        "int8_t *const s = work;",
        f"int8_t *const tails = work + {found.shared};",
        f"for (long first = 0; first < n; first += {BLOCK}) {{",
        f"const long count = n - first < {BLOCK} ? n - first : {BLOCK};",
        "for (long i = 0; i < count; i++) {",
        f"const uint8_t *const image = images + (first + i) * {image};",
        f"int8_t *const t = tails + i * {found.each};",
        *program.head,
        "(void)image; (void)t; (void)s;",
        "}",
        *program.tail,
        *(_vectors(result, found.each, count) if len(shape) == 1 else []),
        "}",
        "(void)w;",
    ]
    run = "EXPORT void run(const int8_t *w, const uint8_t *images, int32_t *logits, long n, int8_t *work)"
    body = f"{run}\n{{\n{indented(lines)}}}\n"
    return "\n".join([*functions, body])


def _vectors(result: Map, each: int, count: int) -> list[str]:
    """Logits that lie among what each image has for itself, to the caller."""
    ctype = "int32_t" if result.wide else "int8_t"
    return [
        "for (long i = 0; i < count; i++) {",
        f"const int8_t *const t = tails + i * {each};",
        f"const {ctype} *const result = (const {ctype} *)(const void *)({result.at()});",
        f"for (long k = 0; k < {count}; k++) {{",
        f"logits[(first + i) * {count} + k] = result[k];",
        "}",
        "}",
    ]


def _to_planes(x: Map) -> list[str]:
    """A map of words, pixel by pixel, in the caller's order: plane after plane."""
    (channels, high, wide), row, step = x.shape, x.row // 4, x.step // 4
    return [
        for_each("i", high), for_each("c", channels), for_each("j", wide),
        f"logits[(c * {high} + i) * {wide} + j] = x[i * {row} + j * {step} + c];",
        "}", "}", "}",
    ]  # fmt: skip
