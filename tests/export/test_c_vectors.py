"""Vectors in the emitted C: those that come from maps lie in another order than those of dense layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.export import c
from netsuke.lab.lower import lower
from netsuke.lab.steps.quantize import quantize


class Net(nn.Module):
    """A flattened map and a dense vector of its size meet in `joint`."""

    def __init__(self, joint: str):
        super().__init__()
        self.joint = joint
        self.conv, self.vector, self.one = nn.Conv2d(1, 3, 3, 2), nn.Linear(108, 108), nn.Linear(108, 1)
        self.out = nn.Linear(108, 4)

    def forward(self, x: Tensor) -> Tensor:
        f = torch.flatten(torch.tanh(self.conv(x)), 1)
        other = {"one": self.one, "dense": self.vector, "dense sum": self.vector}.get(self.joint)
        g = torch.sigmoid(other(f)) if other else f
        return self.out(f + g if self.joint == "dense sum" else f * g)


@pytest.mark.parametrize("joint", ["one", "dense", "dense sum", "itself"])
def test_vectors_that_meet(joint: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = blobs((1, 13, 13), n=60)
    graph, tensors = lower(quantize(Net(joint), data), data.image_shape)
    artifact = Artifact(graph, tensors, {"classes": list(data.classes)})
    want = artifact.logits(data.test.images)
    assert want.std() > 0
    np.testing.assert_array_equal(c.run(c.write(artifact, tmp_path), data.test.images), want)
