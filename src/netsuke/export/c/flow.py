"""The flow of rows through NAME.c, and its public functions."""

from __future__ import annotations

from netsuke.export.c.net import Net
from netsuke.export.c.ops import each, indented
from netsuke.graph import INPUT
from netsuke.memory.streams import STATE, counter_bytes


def flow(net: Net) -> str:
    name, high = net.name, net.graph.input_shape[1]
    counter = {1: "uint8_t", 2: "uint16_t"}[counter_bytes(net.layout.stages)]
    caller = net.style.workspace == "caller"
    loads = net.coded is not None and net.coded.ram_bytes > 0
    steps = [
        f"{counter} *const done = ({counter} *)(void *)((int8_t *)w->words + {net.layout.offsets[STATE]});"
    ]
    lines = [
        *([] if caller else [f"static {name}_workspace workspace;", ""]),
        *([*loading(net), ""] if loads else []),
        "/* done[0] rows have come, and stage i has made done[i + 1] of its own. */",
        f"static void begin({name}_workspace *w)",
        "{",
        *steps,
        each("i", net.layout.streamed + 1),
        "*(volatile " + counter + " *)(done + i) = 0;",
        "}",
        "}",
        "",
        "/* What has to wait for the whole image. */",
        f"static void finish({name}_workspace *w, int32_t *logits)",
        "{",
        *_rest(net),
        "}",
        "",
        "/* Always the last stage that can go on does, so that as few rows as can be wait in memory. */",
        f"static int push({name}_workspace *w, const uint8_t *row, int32_t *logits)",
        "{",
        *steps,
        *(["if (loaded == 0) {", f"{name}_load();", "}"] if loads else []),
        "done[0]++;",
        "for (;;) {",
        *_choices(net),
        "}",
        f"if (done[0] < {high}) {{",
        "return 0;",
        "}",
        "finish(w, logits);",
        "begin(w);",
        "return 1;",
        "}",
        "",
        *_public(net),
    ]
    return indented(lines)


def loading(net: Net) -> list[str]:
    """The function that decodes the weights of convolutions, and the note that it was called."""
    coded = net.coded
    assert coded is not None
    lines = ["static uint8_t loaded;", "", f"void {net.name}_load(void)", "{", "coded s;"]
    for number, unit in enumerate(coded.units):
        for ops in (ops for ops in unit.streams if ops[0] in coded.ram):
            lines.append(f"begin_coded(&s, coded_weights + {coded.at[ops]});")
            count, start = 0, coded.ram[ops[0]]
            for op in ops:  # one call for all that end with a byte
                count += net.tensors[f"{op}.weight"].size
                if count * unit.bits % 8 or op == ops[-1]:
                    lines.append(f"decode{number}(&s, weights + {start}, {count});")
                    count, start = 0, coded.ram[op] + coded.packed[op]
    return [*lines, "loaded = 1;", "}"]


def _choices(net: Net) -> list[str]:
    """One test after another, the last stage first."""
    lines: list[str] = []
    for i in reversed(range(net.layout.streamed)):
        tests = " && ".join(_ready(net, i))
        lines += [
            f"{'if' if not lines else '} else if'} ({tests}) {{",
            net.call(i, f"done[{i + 1}]"),
            f"done[{i + 1}]++;",
        ]
    return [*lines, "} else {", "break;", "}"]


def _ready(net: Net, i: int) -> list[str]:
    """When a stage can make its next step: the rows are there, and it is not yet done."""
    stage = net.layout.stages[i]
    tests, bounded = [], False
    for number, name in enumerate(stage.inputs):
        source = 0 if name == INPUT else net.number[name] + 1
        rows = net.graph.input_shape[1] if name == INPUT else net.layout.stages[source - 1].steps
        window = stage.windows[number]
        if window is None:
            tests.append(f"done[{source}] == {rows}")
            continue
        place = f"done[{i + 1}]" if window.stride == 1 else f"done[{i + 1}] * {window.stride}"
        reach = f" + {window.stop}" if window.stop > 0 else f" - {-window.stop}" if window.stop < 0 else ""
        test = f"done[{source}] >= {place}{reach}"
        last = (stage.steps - 1) * window.stride + window.stop
        bounded = bounded or last <= rows < last + window.stride
        tests.append(test if last <= rows else f"({test} || done[{source}] == {rows})")
    return list(dict.fromkeys(tests if bounded else [f"done[{i + 1}] < {stage.steps}", *tests]))


def _rest(net: Net) -> list[str]:
    """The segments after the first, stage by stage, and the copy of a result of bytes."""
    lines = []
    for i in range(net.layout.streamed, len(net.layers)):
        layer = net.layers[i]
        if net.stepped(layer) and layer.stage.steps > 1:
            loop = (
                f"for (place y = {layer.stage.steps - 1}; y >= 0; y--) {{"
                if layer.reversed
                else each("y", layer.stage.steps)
            )
            lines += [loop, net.call(i, "y"), "}"]
        else:
            lines.append(net.call(i, "0"))
    if not net.direct:
        owner = net.layout.owners[net.layout.stages[-1].output]
        view = net.views[net.graph.output]
        lines += [
            f"const {view.ctype} *const result = {net.memory(net.layout.offsets[owner], view.ctype)};",
            each("k", view.elements),
            f"logits[k] = *(const volatile {view.ctype} *)(result + {view.at('k')});",
            "}",
        ]
    elif not lines:
        lines += ["(void)w;", "(void)logits;"]
    return lines


def _public(net: Net) -> list[str]:
    name, (channels, high, wide) = net.name, net.graph.input_shape
    caller = net.style.workspace == "caller"
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
