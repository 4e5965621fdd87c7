"""Channels that go in blocks: what stays is a multiple, and computes what it did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphs import random_images
from lab.test_channels import assert_removes
from lab.test_models import NARROW
from lab.test_structured import DATA, floats, module
from netsuke.errors import OptionError
from netsuke.lab.channels import Channels
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.prune import Prune, prune, structured
from netsuke.lab.steps.prune.greedy import Selection, figure, savings

NETS: list[tuple[str, dict[str, Any]]] = [
    ("convnet", {"width": 0.4}),  # 13 and 26 channels
    ("resnet_small", {"width": 0.5, "depth": 1}),
    ("mobilenet_v2", NARROW),
    ("shufflenet_v1", {"width": 0.25, "depth": 0.5, "groups": 2}),
    ("shufflenet_v2", {"width": 0.5, "depth": 0.3}),
    ("squeezenet", {"width": 0.25}),
    ("ghostnet", {**NARROW, "attention": "cbam"}),
]


def counts(channels: Channels) -> np.ndarray:
    return np.array([len(channels.at[op.name]) for op in channels.layers])


def macs(channels: Channels) -> float:
    return figure(channels, "macs")(channels.uses.sum(1))


def assert_multiples(before: FloatGraph, after: FloatGraph, multiple: int) -> None:
    old, new = (counts(Channels(*network.to_graph())) for network in (before, after))
    changed = old != new
    assert changed.any()
    assert not (new[changed] % multiple).any()
    assert (new[changed] >= multiple).all()


@pytest.mark.parametrize(("name", "options"), NETS, ids=str)
def test_counts_are_multiples_and_logits_stay(name: str, options: dict[str, Any]) -> None:
    channels = Channels(*floats(module(name, options)).to_graph())
    price = np.random.default_rng(1).random(channels.count)
    selection, goal = Selection(channels, price, multiple=4), 0.7 * macs(channels)
    selection.take(range(channels.count), lambda kept: figure(channels, "macs")(kept) <= goal)
    smaller = assert_removes(channels, selection, random_images(channels.graph, 3))
    assert_multiples(FloatGraph(channels.graph, channels.tensors), FloatGraph(*smaller), 4)
    assert macs(Channels(*smaller)) <= goal


def test_the_weakest_blocks_go() -> None:
    """Of 13 first the 5 over a multiple; the others where a block's sum is least."""
    channels = Channels(*floats(module("convnet", {"width": 0.4})).to_graph())
    assert [len(group.units) for group in channels.groups][:2] == [13, 26]
    price = np.full(channels.count, 100.0)
    first, second = (group.units for group in channels.groups[:2])
    price[first], price[second] = np.arange(13), 50 + np.arange(26)
    selection = Selection(channels, price, multiple=8)
    for gone in ([*first[:5]], [*first[:5], *second[:2]], [*first[:5], *second[:10]]):
        before = selection.gone.sum()
        selection.take(range(channels.count), lambda kept, b=before: selection.gone.sum() > b)  # type: ignore
        assert np.flatnonzero(selection.gone).tolist() == sorted(gone)


def test_rounds_count_from_the_start() -> None:
    """What each round takes too much does not add up."""
    model = floats(module("resnet_small", {"width": 0.5, "depth": 1}))
    smaller = prune(
        model, DATA, structure="channels", target="macs", amount=0.3, importance="l2", multiple=4, rounds=3
    )
    assert isinstance(smaller, FloatGraph)
    assert_multiples(model, smaller, 4)
    channels = Channels(*model.to_graph())
    goal, block = 0.7 * macs(channels), 4 * savings(channels, "macs").max()
    assert goal - block < macs(Channels(*smaller.to_graph())) <= goal
    assert structured.cut(smaller, DATA, amount=0.3, target="macs", of=model).graph == smaller.graph


def test_shares_of_single_layers_take_whole_blocks() -> None:
    model = floats(module("convnet", {"width": 0.5}))
    name = Channels(*model.to_graph()).groups[1].layers[0]
    ratios = {name: 0.3}
    smaller = structured.cut(
        model, DATA, amount=0.0, importance="l1", multiple=8, ratios=ratios, compensate=False
    )
    assert len(Channels(*smaller.to_graph()).at[name]) == 16  # of 32; 22 would have done


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"multiple": 0, "structure": "channels"}, "1 to 1024"),
        ({"multiple": 8}, "structure 'channels'"),
        ({"multiple": 8, "structure": "layers"}, "got structure 'layers'"),
        ({"multiple": 8, "structure": "channels", "soft": True}, "got soft"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Prune(**options)


def test_blocks_too_large_are_refused() -> None:
    model = floats(module("convnet", {"width": 0.25}))
    with pytest.raises(OptionError, match=r"is the most here.*multiple 16 keeps blocks whole"):
        structured.cut(model, DATA, amount=0.9, importance="l1", multiple=16)
    with pytest.raises(OptionError, match="at least 1"):
        structured.cut(model, DATA, amount=0.5, multiple=0)


def test_a_large_last_block_gives_smaller_ones_back() -> None:
    """The second layer's block goes first, and comes back when the first layer's saves enough alone."""
    channels = Channels(*floats(module("convnet", {"width": 0.5})).to_graph())
    first, second = (group.units for group in channels.groups[:2])
    price = np.full(channels.count, 100.0)
    price[second[:8]], price[first] = 1.0, 50.0
    cost = figure(channels, "macs")
    goal = cost(channels.uses.sum(1) - channels.uses[:, first[:8]].sum(1))
    selection = Selection(channels, price, multiple=8)
    selection.take(range(channels.count), lambda kept: cost(kept) <= goal)
    assert selection.gone.sum() == selection.gone[first].sum() == 8
    np.testing.assert_array_equal(selection.kept, channels.uses[:, ~selection.gone].sum(1))
