"""NAME.h: what the model takes, gives and costs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType

from netsuke import packing
from netsuke.artifact import Artifact
from netsuke.export.c import confidence, normaliser
from netsuke.export.c.coded import Coded
from netsuke.graph import Graph, Tensors
from netsuke.measure.cost import macs
from netsuke.memory import WORD, Layout

SELF_TEST_IMAGES = 3


@dataclass(frozen=True)
class Style:
    """Choices of whoever exports."""

    workspace: str = "static"  # or "caller": every function takes a pointer to it, so that it is re-entrant
    weights: str = "packed"  # or entropy coded: "coded", or "coded-dense" for those of dense layers only
    multiply: str = "instruction"  # or "shifts": products by adding, where a chip has no multiplier
    confidence: bool = False  # NAME_confidence: per mille, by whole numbers
    normaliser: bool = False  # NAME_normalise: a grey image of any size to the model's input

    @property
    def adds(self) -> bool:
        return self.multiply == "shifts"


def identifier(name: str) -> str:
    """A C identifier out of any name: ASCII letters, digits and underscores, a letter first."""
    clean = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")[:40].strip("_")
    return clean if clean[:1].isalpha() else f"model_{clean}".strip("_")


def header(artifact: Artifact, name: str, style: Style, found: Layout, coded: Coded | None) -> str:
    """The text of NAME.h."""
    graph, tensors = artifact.graph, artifact.tensors
    upper, (channels, high, wide) = name.upper(), graph.input_shape
    caller, decoded = style.workspace == "caller", coded.ram_bytes if coded else 0
    first = f"{name}_workspace *w, " if caller else ""
    area = artifact.shape[1:]
    if area:
        about = "   It gives a map of integers: planes x rows x columns, plane after plane, row by row."
        logits = f"{upper}_LOGITS integers, plane after plane, row by row."
    else:
        about = f"   Classes: {comment(artifact.classes)}"
        logits = f"{upper}_CLASSES integers, the largest one at the most likely class."
    figures = {
        "FLASH_BYTES": (flash_bytes(graph, tensors, coded), "constant data; the code comes on top"),
        "RAM_BYTES": (
            found.size,
            "working memory; the image, or a row of it, and the logits are the caller's",
        ),
        **({"WEIGHT_RAM_BYTES": (decoded, "decoded weights, beside it")} if decoded else {}),
        "MACS": (sum(macs(graph, tensors).values()), "multiply-accumulates for one image"),
        **_result(artifact.shape),
        "INPUT_CHANNELS": (channels, "planes of the image"),
        "INPUT_HEIGHT": (high, "rows of a plane"),
        "INPUT_WIDTH": (wide, "bytes of a row"),
        "INPUT_BYTES": (channels * high * wide, "the whole image"),
    }
    more = [part.header(artifact, name) for part in extras(style)]
    lines = [f"#define {upper}_{key} {value} /* {text} */" for key, (value, text) in figures.items()]
    who = (
        "Re-entrant: one workspace a call at a time."
        if caller
        else "Not re-entrant: all calls share one static workspace."
    )
    return f"""\
/* {name}: a {"network" if area else "classifier"} written by netsuke. Do not edit.

{about}

{layer_table(graph, tensors, coded)}
{coding_note(name, coded) if coded else ""}
   Working memory, {found.size} bytes. Maps between whole ones flow through it row by row.
{memory_table(found)}
*/
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

{chr(10).join(lines)}

#ifdef __cplusplus
extern "C" {{
#endif

/* What a run needs to remember. {who} */
typedef struct {{
    int32_t words[{upper}_RAM_BYTES / {WORD}];
}} {name}_workspace;

/* image: {channels} x {high} x {wide} bytes, plane after plane, row by row; bright ink on dark ground, 0 to 255.
   logits: {logits} */
void {name}_run({first}const uint8_t *image, int32_t *logits);

/* The same without the whole image in memory: call it with each of the {high} rows, from the top,
   {channels} x {wide} bytes{", and with the same `logits`: their rows are written as they come" if area else ""}.
   Returns 1 once the logits are there, else 0; the next row begins the next image. */
int {name}_push_row({first}const uint8_t *row, int32_t *logits);

/* Forget the rows so far{"; call it once before the first row" if caller else ""}. */
void {name}_start({f"{name}_workspace *w" if caller else "void"});

{LOAD.format(name=name, size=decoded) if decoded else ""}{chr(10).join(more)}
#ifdef {upper}_SELF_TEST
/* Runs {SELF_TEST_IMAGES} built-in images; how many logits differ from the reference (0 = all is well). */
int {name}_self_test({f"{name}_workspace *w" if caller else "void"});
#endif

#ifdef __cplusplus
}}
#endif

#endif
"""


LOAD = """\
/* Decode the weights of the convolutions into their {size} bytes of RAM. The first row does so by itself; call it where
   that would take too long, before two tasks begin at once, or where RAM was lost. */
void {name}_load(void);

"""


def coding_note(name: str, coded: Coded) -> str:
    """What is coded, and what it saves and costs."""
    packed = sum(coded.packed.values())
    lines = [
        f"Weights entropy coded: {coded.size} bytes of streams and tables in place of {packed} packed ones."
    ]
    if coded.ram_bytes:
        lines.append(
            f"{name}_load() decodes those of the convolutions into {coded.ram_bytes} bytes of RAM, once."
        )
    if coded.scratch:
        most = max(coded.scratch.values())
        lines.append(f"Those of dense layers are decoded for every image, up to {most} bytes at a time.")
    return "\n" + "\n".join(f"   {line}" for line in lines) + "\n"


def flash_bytes(graph: Graph, tensors: Tensors, coded: Coded | None) -> int:
    """Bytes of constant data."""
    size = packing.size_bytes(graph, tensors)
    return size + coded.size - sum(coded.packed.values()) if coded else size


def extras(style: Style) -> list[ModuleType]:
    """The modules of the functions that were asked for; each has `header` and `source`."""
    asked = {confidence: style.confidence, normaliser: style.normaliser}
    return [module for module, wanted in asked.items() if wanted]


def comment(names: Iterable[str]) -> str:
    """Names as ASCII text that cannot end a comment or open another; lines of about 100 characters."""
    text = ", ".join(json.dumps(name) for name in names).replace("*/", "* /").replace("/*", "/ *")
    return "\n   ".join(re.findall(r".{1,100}(?:\s|$)|.{1,100}", text)) or "none"


def _result(shape: tuple[int, ...]) -> dict[str, tuple[int, str]]:
    """What says how many logits there are: classes, or the sides of a map."""
    if len(shape) == 1:
        return {"CLASSES": (shape[0], "logits")}
    sides = zip(
        ("CHANNELS", "HEIGHT", "WIDTH"),
        shape,
        ("planes of the map", "rows of a plane", "its columns"),
        strict=True,
    )
    return {
        "LOGITS": (prod(shape), "integers of the map"),
        **{f"OUTPUT_{key}": (size, text) for key, size, text in sides},
    }


def layer_table(graph: Graph, tensors: Tensors, coded: Coded | None) -> str:
    """Op, output shape, weights, bits, MACs and stored bytes, a line a layer and a last one for the sum."""
    types, products = graph.types(tensors), macs(graph, tensors)
    owner = {tensor: op for tensor, (op, _) in graph.roles().items()}
    sizes: dict[str, int] = {}
    for row in packing.stored(graph, tensors):
        sizes[owner[row.tensor]] = sizes.get(owner[row.tensor], 0) + row.size_bytes
    for name, size in coded.packed.items() if coded else ():
        sizes[name] -= size
    rows = [("op", "output", "weights", "bits", "MACs", "bytes")]
    for op in graph.ops:
        weight = tensors.get(op.tensor("weight"))
        shape = "x".join(map(str, types[op.name].shape))
        bits = str(op.attrs.get("bits", "-"))
        count = "-" if weight is None else str(weight.size)
        rows.append((op.kind, shape, count, bits, str(products.get(op.name, 0)), str(sizes.get(op.name, 0))))
    if coded:
        sizes["coded"] = coded.size
        rows.append(("coded weights", "", "-", "-", "0", str(coded.size)))
    weights = sum(array.size for tensor, array in tensors.items() if tensor.endswith(".weight"))
    rows.append(("total", "", str(weights), "", str(sum(products.values())), str(sum(sizes.values()))))
    return aligned(rows)


def memory_table(found: Layout) -> str:
    """What each stage keeps of its output and where: a ring of rows, a whole map, or nothing of its own."""
    rows = [("computed together", "", "rows kept", "bytes", "at")]
    for i, stage in enumerate(found.stages):
        owner = found.owners[stage.output]
        ring, at = found.rings[owner], found.offsets.get(owner)
        kept = "in logits" if at is None else f"{ring.rows} of {ring.of}"
        if owner != stage.output:
            kept = "in place"
        size = str(ring.size) if owner == stage.output and at is not None else "-"
        where = "streamed" if i < found.streamed else "then"
        rows.append(
            (" + ".join(op.kind for op in stage.ops), where, kept, size, "-" if at is None else str(at))
        )
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = -widths[0]
    cells = [
        [f"{c:{'<' if w < 0 else '>'}{abs(w)}}" for c, w in zip(row, widths, strict=True)] for row in rows
    ]
    return "\n".join("   " + "  ".join(row).rstrip() for row in cells)
