"""A C file in the making: functions that layers of one shape share, the block of weights, the calls in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsuke.export.c.fast.layout import ALIGN, Layout, up
from netsuke.export.c.fast.variants import Variant


class Program:
    """`head` holds the calls for one image, `tail` those for a block of images."""

    def __init__(self, variant: Variant, layout: Layout):
        self.variant, self.layout = variant, layout
        self.head: list[str] = []
        self.tail: list[str] = []
        self.functions: dict[str, str] = {}  # text without the name to the name
        self.weights = bytearray()

    def constant(self, array: np.ndarray) -> str:
        """C for the address of an array among the weights."""
        offset = up(len(self.weights), ALIGN)
        self.weights += bytes(offset - len(self.weights)) + np.ascontiguousarray(array).tobytes()
        return f"w + {offset}"

    def function(self, kind: str, parameters: str, lines: Sequence[str]) -> str:
        """The name of a function with this body; one that is there already is used again."""
        text = f"({parameters})\n{{\n{indented(lines)}}}\n"
        return self.functions.setdefault(text, f"{kind}_{len(self.functions)}")

    def call(self, line: str, *, late: bool, block: bool = False) -> None:
        """A call for each image of the block, or one for all of them."""
        if not late:
            self.head.append(line)
        elif block:
            self.tail.append(line)
        else:
            self.tail += ["for (long i = 0; i < count; i++) {", f"int8_t *const t = tails + i * {self.layout.each};",
                          line, "}"]  # fmt: skip


def indented(lines: Sequence[str], depth: int = 1) -> str:
    """Four spaces for every open brace."""
    out = []
    for line in lines:
        depth -= line.startswith("}")
        out.append("    " * depth + line)
        depth += line.count("{") - line.count("}") + line.startswith("}")
    return "\n".join(out) + "\n"
