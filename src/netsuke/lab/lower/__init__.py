"""nn.Module -> Graph: the only door out of torch.

`walk` follows the traced module, `layers` and `functions` say what each of its nodes becomes in the graph that
`builder` holds.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from netsuke.graph import Graph
from netsuke.lab.lower.walk import Walk

__all__ = ["lower"]


def lower(model: nn.Module, shape: tuple[int, int, int]) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph and weights of a trained network for raw uint8 images [C, H, W].

    The model maps images in 0..1 to logits, one a class or, where it ends in a convolution, a map of them; the graph
    starts from 0..255 by a `normalize`. Batch norms are folded into the layer before them. Modules made by `quantize`
    come out as integer graphs.
    Raises UnsupportedLayer naming the layer that has no op, and what is known.
    """
    own = getattr(model, "to_graph", None)
    graph, tensors = own() if own else Walk(model, shape).go()
    graph.types(tensors)
    return graph, tensors
