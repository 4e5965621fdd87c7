"""Traps that a first user fell into: silent layers, clashing names, a function that drops, sources overwritten."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.sets import blobs
from netsuke.errors import UnsupportedLayer, UnsupportedOp
from netsuke.lab.inference import logits
from netsuke.lab.lower import lower
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.quantize import quantize

DATA = blobs((1, 8, 8), n=60)
RAW = torch.from_numpy(DATA.test.images)


def test_a_silent_layer_leaves_the_bias_of_the_logits() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4))
    nn.init.constant_(model[1].bias, -50.0)  # type: ignore[arg-type]
    want = logits(model, RAW).numpy()
    np.testing.assert_allclose(logits(quantize(model, DATA), RAW).numpy(), want, atol=1e-3)


class Named(nn.Module):
    """Layers called as ModuleDict's methods, and as the quantiser would call a mean of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.values, self.keys = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 1)
        self.pool, self.pool_mean = nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1)
        self.out = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.keys(torch.relu(self.values(x))))
        gate = torch.sigmoid(self.pool_mean(self.pool(x)))
        return self.out(torch.flatten(self.pool(x * gate), 1))


def test_names_do_not_clash() -> None:
    torch.manual_seed(0)
    model = Named()
    want = logits(model, RAW).numpy()
    graph, tensors = lower(model, DATA.image_shape)
    np.testing.assert_allclose(logits(FloatGraph(graph, tensors), RAW).numpy(), want, atol=1e-5)
    twin = quantize(model, DATA)
    assert np.corrcoef(logits(twin, RAW).numpy().ravel(), want.ravel())[0, 1] > 0.99


class Dropping(nn.Module):
    def __init__(self, told: bool) -> None:
        super().__init__()
        self.told, self.out = told, nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        return self.out(F.dropout(x, 0.5, self.training) if self.told else F.dropout(x, 0.5))


def test_a_function_that_drops_in_evaluation_is_refused() -> None:
    lower(Dropping(True), DATA.image_shape)
    with pytest.raises(UnsupportedLayer, match=r"training=self\.training"):
        lower(Dropping(False), DATA.image_shape)


def test_logits_must_come_from_a_layer_or_a_mean() -> None:
    with pytest.raises(UnsupportedOp, match="sigmoid"):
        quantize(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Sigmoid()), DATA)
