"""Weight sharing: k-means, codebooks that train, zeros that stay, and files that get smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.errors import OptionError, UnsupportedOp
from netsuke.lab import forms
from netsuke.lab.carve import carve
from netsuke.lab.clusters import STARTS, kmeans, nearest
from netsuke.lab.inference import accuracy, logits
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.share import Share, clustered, share
from netsuke.lab.steps.train import Training, train

SHAPE = (1, 12, 12)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return blobs(SHAPE, n=320)


@pytest.fixture(scope="module")
def trained(data: Dataset) -> nn.Module:
    model = build("convnet", SHAPE, 4, width=0.5, dropout=0.0)
    return train(model, data, Training(epochs=3, batch=32))


def error(values: np.ndarray, centroids: np.ndarray) -> float:
    return float(((values - centroids[nearest(values, centroids)]) ** 2).sum())


def best_error(values: np.ndarray, count: int) -> float:
    """By trying every way to cut the sorted values into runs."""
    x = np.sort(values)
    cost = np.full((count + 1, len(x) + 1), np.inf)
    cost[0, 0] = 0
    for k in range(1, count + 1):
        for end in range(len(x) + 1):
            for cut in range(end + 1):
                run = x[cut:end]
                cost[k, end] = min(cost[k, end], cost[k - 1, cut] + (run.var() * len(run) if len(run) else 0))
    return float(cost[count, len(x)])


@given(
    values=st.lists(st.integers(-4000, 4000).map(lambda n: n / 1000), min_size=1, max_size=30),
    count=st.integers(1, 8),
    start=st.sampled_from(sorted(STARTS)),
)
def test_kmeans_settles(values: list[float], count: int, start: str) -> None:
    x = np.array(values)
    centroids = kmeans(x, count, start)
    assert 1 <= len(centroids) <= count
    assert (np.diff(centroids) > 0).all()
    index = nearest(x, centroids)
    assert set(index) == set(range(len(centroids)))  # none is empty
    distances = np.abs(x[:, None] - centroids)
    np.testing.assert_allclose(distances[np.arange(len(x)), index], distances.min(1), atol=1e-9)
    for k, centroid in enumerate(centroids):  # each is the mean of its own
        assert centroid == pytest.approx(x[index == k].mean(), abs=1e-6)
    assert error(x, centroids) <= error(x, np.array([x.mean()])) + 1e-9


def test_kmeans_is_near_the_best() -> None:
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=24)
        best = best_error(x, 4)
        assert best - 1e-9 <= min(error(x, kmeans(x, 4, start)) for start in STARTS) <= 1.3 * best


def test_few_values_are_kept_exactly() -> None:
    assert kmeans(np.array([3.0, -1.0, 3.0, 0.5]), 3).tolist() == [-1.0, 0.5, 3.0]


def test_zeros_have_a_value_of_their_own() -> None:
    weight = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    weight[weight < 0.3] = 0
    index, values = clustered(weight, 3)
    assert len(values) <= 8
    assert values[0] == 0
    np.testing.assert_array_equal(index.numpy() == 0, weight == 0)
    index, values = clustered(np.zeros((3, 4), np.float32), 1)
    assert (values.tolist(), index.max()) == ([0], 0)


def test_layers_get_their_bits_and_the_model_is_untouched(trained: nn.Module, data: Dataset) -> None:
    before = {name: p.clone() for name, p in trained.state_dict().items()}
    result = share(trained, data, conv=3, dense=2)
    graph, tensors = lower(result, SHAPE)
    for op in graph.ops:
        if op.kind in ("conv2d", "dense"):
            assert len(np.unique(tensors[f"{op.name}.weight"])) <= {"conv2d": 8, "dense": 4}[op.kind]
    assert all(torch.equal(before[name], p) for name, p in trained.state_dict().items())
    last = graph.ops[-1].name
    mixed = share(trained, data, conv=0, layers={last: 1})
    _, tensors = lower(mixed, SHAPE)
    assert len(np.unique(tensors[f"{last}.weight"])) == 2
    first = next(op.name for op in graph.ops if op.kind == "conv2d")
    assert len(np.unique(tensors[f"{first}.weight"])) == tensors[f"{first}.weight"].size


def test_shared_values_train_and_zeros_stay(trained: nn.Module, data: Dataset, tmp_path: Path) -> None:
    pruned = FloatGraph(*lower(trained, SHAPE))
    for layer in pruned.layers.values():
        weight = layer.weight
        forms.set_mask(layer, (weight.abs() > weight.abs().median()).float())
    rough = share(pruned, data, conv=2, dense=2)
    options = Training(epochs=3, batch=32, l2=1e-3, lr=1e-3)
    tuned = share(pruned, data, conv=2, dense=2, training=options, work=tmp_path)
    _, start = lower(rough, SHAPE)
    _, end = lower(tuned, SHAPE)
    for name in start:
        if name.endswith(".weight"):
            np.testing.assert_array_equal(start[name] == 0, end[name] == 0)
            assert len(np.unique(end[name])) <= 4
            assert not np.array_equal(start[name], end[name])
    assert accuracy(tuned, data.train)[1] < accuracy(rough, data.train)[1]
    again = share(pruned, data, conv=2, dense=2, training=options)
    _, same = lower(again, SHAPE)
    assert all(np.array_equal(end[name], same[name]) for name in end)


def test_the_file_is_smaller_and_gives_the_same_logits(
    trained: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    result = share(trained, data, conv=5, dense=4)
    carve(trained, data, recipe={}, seed=0).save(tmp_path / "a")
    artifact = carve(result, data, recipe={}, seed=0)
    artifact.save(tmp_path / "b")
    assert (tmp_path / "b").stat().st_size < 0.3 * (tmp_path / "a").stat().st_size
    images = data.test.images[:20]
    got = Artifact.load(tmp_path / "b")
    np.testing.assert_array_equal(got.logits(images), artifact.logits(images))
    np.testing.assert_allclose(
        got.logits(images), logits(result, torch.from_numpy(images)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"conv": 9}, "conv takes 1 to 8 bits"),
        ({"layers": {"a": -1}}, "a takes 1 to 8 bits"),
        ({"start": "middle"}, "no start 'middle'; there are linear, density, random"),
        ({"layers": {"nothing*": 3}}, "no layer matches 'nothing"),
    ],
)
def test_options_are_checked(changes: dict, says: str, trained: nn.Module, data: Dataset) -> None:
    with pytest.raises(OptionError, match=says):
        share(trained, data, **changes)


def test_integers_are_refused(trained: nn.Module, data: Dataset) -> None:
    with pytest.raises(UnsupportedOp, match="float model"):
        share(quantize(trained, data), data, Share())
