"""An artifact whose weights are finished integers, as a module for the steps that only store it otherwise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.artifact import Artifact
from netsuke.graph import Graph
from netsuke.lab.modules import TORCH, FloatGraph
from netsuke.lab.teachers import Answers


class Finished(nn.Module):
    """It lowers to the very graph and weights of the artifact, and answers by its engine; nothing in it trains."""

    exact = True

    def __init__(self, artifact: Artifact):
        super().__init__()
        self.graph, self.tensors, self.classes = artifact.graph, dict(artifact.tensors), artifact.classes
        learnt = torch.tensor(list(bytes.fromhex(artifact.weight_hash)), dtype=torch.uint8)
        self.register_buffer("learnt", learnt)  # so that a hash of the weights tells models apart

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = Answers(Artifact(self.graph, self.tensors, {"classes": self.classes}))(x)
        return answer

    def to_graph(self) -> tuple[Graph, dict[str, np.ndarray]]:
        return self.graph, self.tensors


def trains(artifact: Artifact) -> bool:
    """Whether its weights are floats throughout, which `FloatGraph` takes."""
    return all(op.kind in TORCH for op in artifact.graph.ops)


def started(model: Artifact | nn.Module) -> nn.Module:
    """What the steps begin with: a module as it is, an artifact as one that trains if it can."""
    if not isinstance(model, Artifact):
        return model
    return FloatGraph(model.graph, model.tensors) if trains(model) else Finished(model)
