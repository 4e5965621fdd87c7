"""Where each activation lives in one block of RAM.

Integer graphs run row by row: `stages` says which ops are computed together, `streams` which maps are kept whole
and which as a ring of rows, `fit` where they lie. Float graphs, which no C is emitted for, keep whole maps (`arena`).
"""

from __future__ import annotations

from netsuke.graph import Graph, Tensors
from netsuke.memory.arena import IN_PLACE, VIEWS, Plan, plan, roots
from netsuke.memory.fit import WORD
from netsuke.memory.stages import Stage
from netsuke.memory.streams import Layout, Ring, layout

__all__ = [
    "IN_PLACE",
    "VIEWS",
    "WORD",
    "Layout",
    "Plan",
    "Ring",
    "Stage",
    "layout",
    "plan",
    "ram_bytes",
    "roots",
]


def ram_bytes(graph: Graph, tensors: Tensors) -> int:
    """Bytes of working memory to run the model; of an integer graph, what the emitted C declares. Raises GraphError."""
    return layout(graph, tensors).size if graph.integer else plan(graph, tensors).size
