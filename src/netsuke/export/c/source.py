"""NAME.c: constant arrays, shared kernels, a function a stage, the flow of rows, the run itself and the self-test."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from netsuke import packing
from netsuke.artifact import Artifact
from netsuke.errors import UnsupportedOp
from netsuke.export.c import prelude
from netsuke.export.c.constants import literal, stored
from netsuke.export.c.convolutions import WEIGHTED
from netsuke.export.c.header import SELF_TEST_IMAGES, Style, comment, extras, identifier
from netsuke.export.c.ops import ROWS, Layer, View, at_row, each, indented
from netsuke.export.c.pointwise import POINTWISE, symbol
from netsuke.export.c.products import products, reading
from netsuke.graph import INPUT, Graph, Op, Type
from netsuke.memory import WORD, layout
from netsuke.memory.streams import STATE, counter_bytes, direct

EMIT = {**ROWS, **POINTWISE, **WEIGHTED}


def check_supported(graph: Graph) -> None:
    """Raise UnsupportedOp for a graph that is not in the integer contract."""
    known = ", ".join(sorted({*EMIT, "flatten"}))
    if not graph.integer:
        raise UnsupportedOp(
            "c takes integer graphs: quantise the model first, weights and activations (netsuke compress --bits 8)"
        )
    for op in graph.ops:
        if op.kind not in EMIT and op.kind != "flatten":
            raise UnsupportedOp(f"c cannot emit {op.kind!r}; it knows {known}")


def source(artifact: Artifact, name: str, style: Style) -> str:
    """The text of NAME.c. Raises UnsupportedOp for anything but a graph in the integer contract."""
    check_supported(artifact.graph)
    return _Source(artifact, name, style).text()


class _Source:
    """Everything that the parts of one file share."""

    def __init__(self, artifact: Artifact, name: str, style: Style):
        self.artifact, self.name, self.style = artifact, name, style
        self.graph, self.tensors = artifact.graph, artifact.tensors
        self.types = self.graph.types(self.tensors)
        self.layout = layout(self.graph, self.tensors)
        self.direct = direct(self.graph, self.types)
        self.number = {stage.output: i for i, stage in enumerate(self.layout.stages)}
        self.symbols = {op.name: f"op{i}_{identifier(op.name)}" for i, op in enumerate(self.graph.ops)}
        self.views = self._views()
        self.layers = [self._layer(i) for i in range(len(self.layout.stages))]

    def text(self) -> str:
        stages = "\n".join(self._function(layer) for layer in self.layers)
        shared = _unique(p.text() for layer in self.layers for p in products(layer))
        needs = _unique(text for layer in self.layers for p in products(layer) for text in p.needs())
        requantize = [
            t for k, t in prelude.REQUANTIZE.items() if f"requantize_{k}(" in stages and t not in needs
        ]
        called = "".join([*needs, *shared, stages])
        flow = self._flow()
        parts = [
            f'#include "{self.name}.h"\n',
            prelude.APART,
            prelude.FLASH,
            f"typedef {self._place()} place;\n",
            *([prelude.DSP] if "PAIRS" in called + "".join(requantize) else []),
            *self._constants(),
            *([prelude.COPY] if "copy(" in called else []),
            *([prelude.CLEAR] if "clear(" in called else []),
            *requantize,
            *needs,
            *shared,
            stages,
            flow,
            *(part.source(self.artifact, self.name) for part in extras(self.style)),
            _self_test(self.artifact, self.name, self.style),
        ]
        return "\n".join(parts)

    # --- what the stages are given ---

    def _views(self) -> dict[str, View]:
        views = {INPUT: View("uint8_t", self.types[INPUT].elements)}
        for op in self.graph.ops:
            x = self.types[op.name]
            if op.kind == "flatten":
                views[op.name] = views[op.inputs[0]]
            else:
                ctype = "int32_t" if x.dtype == "i32" else "int8_t"
                views[op.name] = View(ctype, x.elements, _side_by_side(op, x, [views[i] for i in op.inputs]))
        return views

    def _layer(self, i: int) -> Layer:
        stage, rings = self.layout.stages[i], self.layout.rings
        names = stage.first.inputs
        sources = [self.layout.owners.get(name) for name in stage.inputs]
        return Layer(
            stage,
            self.symbols,
            tuple(self.views[name] for name in names),
            tuple(self.types[name].shape for name in names),
            tuple(rings[owner] for owner in sources if owner),
            self.types,
            self.views[stage.output],
            rings[self.layout.owners[stage.output]],
            self.tensors,
            i in self.layout.reversed,
        )

    def _place(self) -> str:
        """The quickest integer that counts everything: on 8 and 16 bit machines a wide one costs."""
        largest = max(self.layout.size, *(x.elements for x in self.types.values()))
        weights = [  # those of 8 and 4 bits are found without counting bits
            self.tensors[op.tensor("weight")].size * (1 if op.attrs["bits"] in (8, 4) else op.attrs["bits"])
            for op in self.graph.ops
            if op.tensor("weight") in self.tensors
        ]
        largest = max([largest, *weights])
        return "int_fast16_t" if largest < 1 << 15 else "int_fast32_t"

    def _constants(self) -> list[str]:
        texts, total = [], 0
        for layer in self.layers:
            for op in layer.stage.ops:
                lines, size = stored(op, self.tensors, self.symbols[op.name], reading(layer, op))
                texts += lines
                total += size
        assert total == packing.size_bytes(self.graph, self.tensors), f"emits {total} bytes of constants"
        return texts

    # --- functions ---

    def _function(self, layer: Layer) -> str:
        stage = layer.stage
        parameters = [f"const {view.ctype} *{symbol(number)}" for number, view in enumerate(layer.inputs)]
        parameters.append(f"{layer.out.ctype} *out")
        parameters += ["place y"] * self._stepped(layer) + ["int8_t *scratch"] * bool(stage.scratch)
        kinds = " + ".join(op.kind for op in stage.ops)
        names = comment([op.name for op in stage.ops])
        if stage.op.kind in POINTWISE:
            body = self._rows(layer) + EMIT[stage.op.kind](layer.one_row())
        else:
            body = EMIT[stage.op.kind](layer)
        if self._stepped(layer) and not re.search(r"\by\b", " ".join(body)):
            body = ["(void)y;", *body]
        opening = f"APART void {layer.symbol}({', '.join(parameters)})"
        return indented([f"/* {kinds} {names} */", opening, "{", *body, "}"])

    def _stepped(self, layer: Layer) -> bool:
        """Whether a stage is told its step: dense layers and the like have only one."""
        return layer.op.kind in ("qconv2d", *ROWS) or len(layer.y.shape) == 3

    def _rows(self, layer: Layer) -> list[str]:
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

    def _call(self, i: int, step: str) -> str:
        layer, offsets = self.layers[i], self.layout.offsets
        arguments = []
        for name, view in zip(layer.stage.inputs, layer.inputs, strict=True):
            arguments.append(
                "row" if name == INPUT else self._memory(offsets[self.layout.owners[name]], view.ctype)
            )
        final = self.direct and layer.stage.output == self.graph.output
        owner = self.layout.owners[layer.stage.output]
        arguments.append("logits" if final else self._memory(offsets[owner], layer.out.ctype))
        arguments += [step] * self._stepped(layer)
        if layer.stage.scratch:
            arguments.append(self._memory(self.layout.scratch(i), "int8_t"))
        return f"{layer.symbol}({', '.join(arguments)});"

    @staticmethod
    def _memory(offset: int, ctype: str) -> str:
        if ctype == "int32_t":
            return f"w->words + {offset // WORD}"
        return f"(int8_t *)w->words + {offset}"

    # --- the flow of rows ---

    def _flow(self) -> str:
        name, high = self.name, self.graph.input_shape[1]
        counter = {1: "uint8_t", 2: "uint16_t"}[counter_bytes(self.layout.stages)]
        caller = self.style.workspace == "caller"
        steps = [
            f"{counter} *const done = ({counter} *)(void *)((int8_t *)w->words + {self.layout.offsets[STATE]});"
        ]
        lines = [
            *([] if caller else [f"static {name}_workspace workspace;", ""]),
            "/* done[0] rows have come, and stage i has made done[i + 1] of its own. */",
            f"static void begin({name}_workspace *w)",
            "{",
            *steps,
            each("i", self.layout.streamed + 1),
            "*(volatile " + counter + " *)(done + i) = 0;",
            "}",
            "}",
            "",
            "/* What has to wait for the whole image. */",
            f"static void finish({name}_workspace *w, int32_t *logits)",
            "{",
            *self._rest(),
            "}",
            "",
            "/* Always the last stage that can go on does, so that as few rows as can be wait in memory. */",
            f"static int push({name}_workspace *w, const uint8_t *row, int32_t *logits)",
            "{",
            *steps,
            "done[0]++;",
            "for (;;) {",
            *self._choices(),
            "}",
            f"if (done[0] < {high}) {{",
            "return 0;",
            "}",
            "finish(w, logits);",
            "begin(w);",
            "return 1;",
            "}",
            "",
            *self._public(),
        ]
        return indented(lines)

    def _choices(self) -> list[str]:
        """One test after another, the last stage first."""
        lines: list[str] = []
        for i in reversed(range(self.layout.streamed)):
            tests = " && ".join(self._ready(i))
            lines += [
                f"{'if' if not lines else '} else if'} ({tests}) {{",
                self._call(i, f"done[{i + 1}]"),
                f"done[{i + 1}]++;",
            ]
        return [*lines, "} else {", "break;", "}"]

    def _ready(self, i: int) -> list[str]:
        """When a stage can make its next step: the rows are there, and it is not yet done."""
        stage = self.layout.stages[i]
        tests, bounded = [], False
        for number, name in enumerate(stage.inputs):
            source = 0 if name == INPUT else self.number[name] + 1
            rows = self.graph.input_shape[1] if name == INPUT else self.layout.stages[source - 1].steps
            window = stage.windows[number]
            if window is None:
                tests.append(f"done[{source}] == {rows}")
                continue
            place = f"done[{i + 1}]" if window.stride == 1 else f"done[{i + 1}] * {window.stride}"
            reach = (
                f" + {window.stop}" if window.stop > 0 else f" - {-window.stop}" if window.stop < 0 else ""
            )
            test = f"done[{source}] >= {place}{reach}"
            last = (stage.steps - 1) * window.stride + window.stop
            bounded = bounded or last <= rows < last + window.stride
            tests.append(test if last <= rows else f"({test} || done[{source}] == {rows})")
        return list(dict.fromkeys(tests if bounded else [f"done[{i + 1}] < {stage.steps}", *tests]))

    def _rest(self) -> list[str]:
        """The segments after the first, stage by stage, and the copy of a result of bytes."""
        lines = []
        for i in range(self.layout.streamed, len(self.layers)):
            layer = self.layers[i]
            if self._stepped(layer) and layer.stage.steps > 1:
                loop = (
                    f"for (place y = {layer.stage.steps - 1}; y >= 0; y--) {{"
                    if layer.reversed
                    else each("y", layer.stage.steps)
                )
                lines += [loop, self._call(i, "y"), "}"]
            else:
                lines.append(self._call(i, "0"))
        if not self.direct:
            owner = self.layout.owners[self.layout.stages[-1].output]
            view = self.views[self.graph.output]
            lines += [
                f"const {view.ctype} *const result = {self._memory(self.layout.offsets[owner], view.ctype)};",
                each("k", view.elements),
                f"logits[k] = *(const volatile {view.ctype} *)(result + {view.at('k')});",
                "}",
            ]
        elif not lines:
            lines.append("(void)w;")
        return lines

    def _public(self) -> list[str]:
        name, (channels, high, wide) = self.name, self.graph.input_shape
        caller = self.style.workspace == "caller"
        first = f"{name}_workspace *w, " if caller else ""
        w = "w" if caller else "&workspace"
        lines = [
            f"void {name}_start({f'{name}_workspace *w' if caller else 'void'})",
            "{",
            f"begin({w});",
            "}",
            "",
            f"int {name}_push_row({first}const uint8_t *row, int32_t *logits)",
            "{",
            f"return push({w}, row, logits);",
            "}",
            "",
            f"void {name}_run({first}const uint8_t *image, int32_t *logits)",
            "{",
            f"begin({w});",
            each("y", high),
        ]
        if channels == 1:
            return [*lines, f"push({w}, image + y * {wide}, logits);", "}", "}"]
        return [
            *lines[:-2],
            f"uint8_t row[{channels * wide}];",
            *lines[-2:],
            each("c", channels),
            each("x", wide),
            f"row[c * {wide} + x] = *(const volatile uint8_t *)(image + (c * {high} + y) * {wide} + x);",
            "}",
            "}",
            f"push({w}, row, logits);",
            "}",
            "}",
        ]


def _side_by_side(op: Op, x: Type, inputs: list[View]) -> int:
    """The order in which an op writes: pixel by pixel, and a sum of vectors as its inputs lie."""
    if len(x.shape) == 3:
        return x.shape[0]
    if op.kind == "lookup":
        return inputs[0].channels
    orders = (
        {view.channels for view in inputs if view.channels > 1 and view.planes > 1}
        if op.kind == "qadd"
        else set()
    )
    return orders.pop() if len(orders) == 1 else 1


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
        f"int32_t logits[{logits.shape[1]}];",
        "int wrong = 0;",
        each("i", SELF_TEST_IMAGES),
        f"{name}_run({'w, ' if caller else ''}test_images[i], logits);",
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
