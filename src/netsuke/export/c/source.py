"""NAME.c: constant arrays, shared kernels, a function a stage, the flow of rows, the run itself and the self-test."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import UnsupportedOp
from netsuke.export.c import decoder, prelude, shifts
from netsuke.export.c.constants import literal, stored
from netsuke.export.c.convolutions import WEIGHTED
from netsuke.export.c.flow import flow
from netsuke.export.c.header import SELF_TEST_IMAGES, Style, comment, extras, flash_bytes
from netsuke.export.c.net import Net
from netsuke.export.c.ops import ROWS, Layer, at_row, each, indented
from netsuke.export.c.pointwise import POINTWISE, symbol
from netsuke.export.c.products import products, reading
from netsuke.graph import Graph

EMIT = {**ROWS, **POINTWISE, **WEIGHTED}


def check_supported(graph: Graph, target: str = "c") -> None:
    """Raise UnsupportedOp for a graph that is not in the integer contract."""
    known = ", ".join(sorted({*EMIT, "flatten"}))
    if not graph.integer:
        raise UnsupportedOp(
            f"{target} takes integer graphs: quantise the model first, weights and activations"
            " (netsuke compress --bits 8)"
        )
    for op in graph.ops:
        if op.kind not in EMIT and op.kind != "flatten":
            raise UnsupportedOp(f"{target} cannot emit {op.kind!r}; it knows {known}")


def source(net: Net) -> str:
    """The text of NAME.c."""
    stages = "\n".join(_function(net, layer) for layer in net.layers)
    shared = _unique(p.text() for layer in net.layers for p in products(layer))
    needs = _unique(text for layer in net.layers for p in products(layer) for text in p.needs())
    stages = shifts.placed(stages) if net.style.adds else stages
    common = shifts if net.style.adds else prelude
    requantize = [t for k, t in common.REQUANTIZE.items() if f"requantize_{k}(" in stages and t not in needs]
    if net.coded:
        needs = [decoder.read_plainly(text) for text in needs]
    called = "".join([*requantize, *needs, *shared, stages])
    parts = [
        f'#include "{net.name}.h"\n',
        prelude.APART,
        prelude.FLASH,
        f"typedef {net.place()} place;\n",
        *([prelude.DSP] if "PAIRS" in called else []),
        *_constants(net),
        *([decoder.text(net.coded)] if net.coded else []),
        *([prelude.COPY] if "copy(" in called else []),
        *([prelude.CLEAR] if "clear(" in called else []),
        *(text for name, text in shifts.HELPERS.items() if f"{name}(" in called),
        *requantize,
        *needs,
        *shared,
        stages,
        flow(net),
        *(part.source(net.artifact, net.name) for part in extras(net.style)),
        _self_test(net.artifact, net.name, net.style),
    ]
    return "\n".join(parts)


def _constants(net: Net) -> list[str]:
    texts, total = [], 0
    for layer in net.layers:
        for op in layer.stage.ops:
            coded = net.coded is not None and net.coded.unit(op.name) is not None
            weight = None if coded else reading(layer, op)
            lines, size = stored(op, net.tensors, net.symbols[op.name], weight)
            texts += [
                line.replace(" FLASH", "", 1) if net.coded and "_weight[" in line else line for line in lines
            ]
            total += size
    total += net.coded.size if net.coded else 0
    assert total == flash_bytes(net.graph, net.tensors, net.coded), f"emits {total} bytes of constants"
    return texts


def _function(net: Net, layer: Layer) -> str:
    stage = layer.stage
    parameters = [f"const {view.ctype} *{symbol(number)}" for number, view in enumerate(layer.inputs)]
    parameters.append(f"{layer.out.ctype} *out")
    parameters += ["place y"] * net.stepped(layer) + ["int8_t *scratch"] * bool(stage.scratch)
    kinds = " + ".join(op.kind for op in stage.ops)
    names = comment([op.name for op in stage.ops])
    if stage.op.kind in POINTWISE:
        body = _rows(layer) + EMIT[stage.op.kind](layer.one_row())
    else:
        body = EMIT[stage.op.kind](layer)
    if net.stepped(layer) and not re.search(r"\by\b", " ".join(body)):
        body = ["(void)y;", *body]
    opening = f"APART void {layer.symbol}({', '.join(parameters)})"
    return indented([f"/* {kinds} {names} */", opening, "{", *body, "}"])


def _rows(layer: Layer) -> list[str]:
    """Move the pointers of an op that looks at one row to that row."""
    if len(layer.y.shape) != 3:
        return []
    lines = [
        f"{symbol(k)} = {at_row(symbol(k), ring, 'y')};"
        for k, (ring, shape) in enumerate(zip(layer.rings, layer.shapes, strict=True))
        if len(shape) == 3 and ring.rows > 1
    ]
    lines += [f"out = {at_row('out', layer.ring, 'y')};"] if layer.ring.rows > 1 else []
    return lines


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _self_test(artifact: Artifact, name: str, style: Style) -> str:
    """Noise at three strengths with the reference's logits, and the function that compares."""
    upper, shape = name.upper(), artifact.graph.input_shape
    images = np.random.default_rng(0).integers(0, 256, (SELF_TEST_IMAGES, *shape), np.uint8)
    images[1] //= 4
    images[2] *= images[2] > 200  # sparse, as strokes are
    logits = artifact.logits(images)
    caller = style.workspace == "caller"
    lines = [
        f"int {name}_self_test({f'{name}_workspace *w' if caller else 'void'})",
        "{",
        f"{'static ' * (logits.ndim > 2)}int32_t logits[{logits[0].size}];",  # a map is much for a stack
        "int wrong = 0;",
        each("i", SELF_TEST_IMAGES),
        f"{name}_run({'w, ' if caller else ''}test_images[i], logits);",
        each("k", logits[0].size),
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
