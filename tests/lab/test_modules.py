"""A float artifact comes back into the lab: the same logits, and trainable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import artifact_of, random_graph, random_images, small_artifact
from netsuke import kernels
from netsuke.errors import UnsupportedOp
from netsuke.graph import INTEGER, OPS, Graph, Op
from netsuke.graph.floats import DYNAMIC, WEIGHT_ONLY
from netsuke.lab.inference import logits
from netsuke.lab.lower import lower
from netsuke.lab.modules import TORCH, FloatGraph
from netsuke.lab.steps.distil import as_module


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 30))
def test_any_float_graph_agrees(seed: int) -> None:
    graph, tensors = random_graph(seed, integer=False, extended=True)
    images = random_images(graph, 4, seed=1)
    want = kernels.run(graph, tensors, images)
    module = FloatGraph(graph, tensors)
    if next(module.parameters(), None) is None:
        return
    np.testing.assert_allclose(logits(module, torch.from_numpy(images)).numpy(), want, rtol=1e-4, atol=1e-3)


def test_the_table_covers_every_float_op() -> None:
    assert set(TORCH) == set(OPS) - INTEGER - WEIGHT_ONLY - DYNAMIC  # finished: StoredGraph runs these


def test_there_and_back() -> None:
    artifact = small_artifact(integer=False)
    module = as_module(artifact)
    graph, tensors = lower(module, artifact.graph.input_shape)
    assert graph == artifact.graph
    assert tensors.keys() == artifact.tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, artifact.tensors[name])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert artifact.weight_hash == small_artifact(integer=False).weight_hash, "the module shares no memory"


def test_every_weight_gets_a_gradient() -> None:
    artifact = small_artifact(integer=False)
    module = FloatGraph(artifact.graph, artifact.tensors)
    module(torch.rand(5, *artifact.graph.input_shape)).square().sum().backward()
    named = dict(module.named_parameters())
    assert len(named) == len(artifact.tensors)
    for name, parameter in named.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_names_with_dots() -> None:
    ops = (
        Op("normalize", "in/scaled.0", ("input",), {"scales": [1 / 255], "offsets": [0.0]}),
        Op("flatten", "body.flat", ("in/scaled.0",)),
        Op("dense", "body.0.fc", ("body.flat",)),
    )
    tensors = {
        "body.0.fc.weight": np.ones((2, 6), np.float32),
        "body.0.fc.bias": np.zeros(2, np.float32),
    }
    artifact = artifact_of((Graph((1, 2, 3), ops), tensors))
    images = random_images(artifact.graph, 3)
    module = FloatGraph(artifact.graph, tensors)
    np.testing.assert_allclose(
        logits(module, torch.from_numpy(images)).numpy(), artifact.logits(images), atol=1e-5
    )


def test_integer_graphs_do_not_train() -> None:
    artifact = small_artifact(integer=True)
    with pytest.raises(UnsupportedOp, match="only float graphs train"):
        FloatGraph(artifact.graph, artifact.tensors)
