"""How sure a model is, in whole numbers: a table over the gap between the two largest logits.

Of two classes whose logits are `gap` apart, the larger has the softmax 1 / (1 + exp(-gap * scale)). It is the
confidence that the best class, and not the second, is right; the softmax over all classes is never higher. A
microcontroller need not take an exponential: the values stand in a table, between which is interpolated. Python, C
and WebAssembly give the same per mille, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, floor, log2

import numpy as np

from netsuke.errors import OptionError
from netsuke.graph import Graph

STEP = 0.25  # units of the softmax between two entries at most: per mille are then right to one
TOP = 8.0  # units from which it is 1000 per mille


@dataclass(frozen=True)
class Confidence:
    """Entry k of `table` is the per mille at a gap of k << `shift`; behind the last it stays as it is."""

    table: tuple[int, ...]
    shift: int

    def per_mille(self, logits: np.ndarray) -> np.ndarray:
        """500 to 1000 for integer logits [n, classes], int32 [n]; 1000 where there is one class only.

        Raises OptionError for a map: its planes are no classes to choose among.
        """
        if logits.ndim != 2:
            raise OptionError(f"confidence needs logits [n, classes]; got {list(logits.shape)}")
        if logits.shape[1] < 2:
            return np.full(len(logits), 1000, np.int32)
        best = np.sort(logits.astype(np.int64), axis=1)
        gap = best[:, -1] - best[:, -2]
        table = np.array(self.table, np.int64)
        place = np.minimum(gap >> self.shift, len(table) - 1)
        here, there = table[place], table[np.minimum(place + 1, len(table) - 1)]
        part = gap & ((1 << self.shift) - 1)
        return (here + ((there - here) * part + (1 << self.shift >> 1) >> self.shift)).astype(np.int32)


def confidence(graph: Graph) -> Confidence:
    """The table for the integer logits of a graph. Raises OptionError where it does not tell their scale."""
    last = graph.ops[-1]
    if last.kind != "qlogits":
        raise OptionError(
            f"confidence needs logits with a scale; the last op is {last.kind!r}, not 'qlogits'"
        )
    scale = float(last.attrs["scale"])
    shift = min(max(floor(log2(STEP / scale)), 0), 20)
    count = min(int(TOP / (scale * 2**shift)) + 2, 4096)
    table = tuple(round(1000 / (1 + exp(-min(k * scale * 2**shift, 700)))) for k in range(count))
    return Confidence(table, shift)
