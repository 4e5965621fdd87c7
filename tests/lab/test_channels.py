"""Channels go, and the rest computes what it did with them at zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import Pair, float_graphs, random_images
from lab.test_models import CASES, NARROW, VARIANTS, stirred
from netsuke import kernels
from netsuke.errors import GraphError
from netsuke.graph import INPUT, Graph, Op
from netsuke.lab.channels import Channels, groups
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.removal import remove
from netsuke.lab.steps.prune.greedy import Selection, figure
from netsuke.measure.cost import macs, parameters

SHUFFLES: list[tuple[str, dict[str, Any]]] = [
    *(("shufflenet_v1", {"width": 0.25, "depth": 0.5, "groups": g}) for g in (1, 2, 4, 8)),
    *(("shufflenet_v2", {"width": w, "depth": 0.5}) for w in (0.3, 0.5)),  # halves of odd and even size
    ("shufflenet_v2", {"width": 0.5, "depth": 0.3, "attention": "se"}),
    ("ghostnet", {**NARROW, "attention": "cbam"}),
]


def zeroed(channels: Channels, gone: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Logits of the original, every removed channel put to zero, and left out of means and peaks over channels."""
    values: dict[str, np.ndarray] = {INPUT: images}
    for op in channels.graph.ops:
        inputs = [values[name] for name in op.inputs]
        if op.kind in ("channelmean", "channelmax"):
            inputs = [inputs[0][:, ~gone[channels.at[op.inputs[0]]]]]
        value = np.array(kernels.KERNELS[op.kind](op, inputs, channels.tensors))
        value[:, gone[channels.at[op.name]]] = 0
        values[op.name] = value
    return values[channels.graph.output]


def assert_removes(channels: Channels, selection: Selection, images: np.ndarray) -> Pair:
    """The smaller graph gives the logits of the zeroed one, and costs what the selection counted."""
    gone = selection.gone
    smaller, tensors = remove(channels.graph, channels.tensors, np.flatnonzero(gone), channels)
    want = zeroed(channels, gone, images)
    got = kernels.run(smaller, tensors, images)
    assert np.abs(got - want).max() <= 1e-4 * max(1.0, np.abs(want).max())
    assert parameters(smaller, tensors) == figure(channels, "parameters")(selection.kept)
    assert sum(macs(smaller, tensors).values()) == figure(channels, "macs")(selection.kept)
    return smaller, tensors


def random_selection(channels: Channels, seed: int, share: float, target: str = "channels") -> Selection:
    """Units at random until that share of the target has gone, or nothing more can."""
    cost = figure(channels, target)
    selection = Selection(channels, np.random.default_rng(seed).random(channels.count))
    goal = (1 - share) * cost(selection.kept)
    selection.take(range(channels.count), lambda kept: cost(kept) <= goal)
    return selection


@pytest.mark.parametrize(("name", "options"), [*CASES, *VARIANTS, *SHUFFLES], ids=str)
def test_the_rest_computes_what_it_did(name: str, options: dict[str, Any]) -> None:
    shape = (3, 20, 22) if name != "lenet5" else (1, 28, 28)
    channels = Channels(*lower(stirred(build(name, shape, 5, seed=3, **options)), shape))
    images = random_images(channels.graph, 4)
    for seed, (share, target) in enumerate([(0.3, "channels"), (0.6, "macs")]):
        selection = random_selection(channels, seed, share, target)
        assert selection.gone.any()
        smaller, tensors = assert_removes(channels, selection, images)
        again = Channels(smaller, tensors)  # what is left can be pruned in turn
        assert_removes(again, random_selection(again, seed, 0.2), images)


@pytest.mark.parametrize(("name", "options"), [*CASES, *SHUFFLES], ids=str)
def test_as_much_as_can_go(name: str, options: dict[str, Any]) -> None:
    """Every output keeps a channel, however much is asked for."""
    shape = (3, 20, 22) if name != "lenet5" else (1, 28, 28)
    channels = Channels(*lower(stirred(build(name, shape, 5, seed=3, **options)), shape))
    selection = random_selection(channels, 0, 1.0)
    assert selection.kept.min() >= 1
    assert_removes(channels, selection, random_images(channels.graph, 2))


@settings(max_examples=300, deadline=None)
@given(float_graphs(extended=True), st.integers(0, 99), st.sampled_from([0.2, 0.5, 1.0]))
def test_random_graphs(pair: Pair, seed: int, share: float) -> None:
    channels = Channels(*pair)
    assert_removes(channels, random_selection(channels, seed, share), random_images(channels.graph, 3))


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 1, shape).astype(np.float32)


def chain(*ops: Op, shape: tuple[int, int, int] = (4, 5, 6), **sizes: tuple[int, ...]) -> Channels:
    """A graph of these ops behind the pixels, with random weights of these shapes."""
    rng = np.random.default_rng(0)
    pixels = Op(
        "normalize", "pixels", (INPUT,), {"scales": [1 / 255] * shape[0], "offsets": [0.0] * shape[0]}
    )
    tensors: dict[str, np.ndarray] = {}
    for name, size in sizes.items():
        tensors |= {f"{name}.weight": weights(rng, *size), f"{name}.bias": weights(rng, size[0])}
    return Channels(Graph(shape, (pixels, *ops)), tensors)


def conv(name: str, source: str, groups: int = 1) -> Op:
    return Op("conv2d", name, (source,), {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": groups})


TAIL = (Op("globalavgpool", "mean", ("last",)), Op("dense", "logits", ("mean",)))


def test_a_sum_ties_its_inputs_and_a_depthwise_layer_its_own() -> None:
    channels = chain(
        conv("a", "pixels"), conv("deep", "a", 6), conv("last", "deep"), Op("add", "sum", ("last", "a")),
        Op("globalavgpool", "mean", ("sum",)), Op("dense", "logits", ("mean",)),
        a=(6, 4, 1, 1), deep=(6, 1, 1, 1), last=(6, 6, 1, 1), logits=(3, 6),
    )  # fmt: skip
    assert [list(group.layers) for group in channels.groups] == [["a", "deep", "last"]]
    found = [(name, axis, list(index)) for name, axis, index in channels.members(channels.at["sum"][2])]
    assert found == [
        ("a.weight", 0, [2]), ("a.bias", 0, [2]), ("deep.weight", 0, [2]), ("deep.bias", 0, [2]),
        ("last.weight", 0, [2]), ("last.bias", 0, [2]), ("last.weight", 1, [2]), ("logits.weight", 1, [2]),
    ]  # fmt: skip


def test_a_map_takes_its_columns_of_the_dense_layer_behind_it() -> None:
    channels = chain(
        conv("last", "pixels"), Op("flatten", "flat", ("last",)), Op("dense", "logits", ("flat",)),
        last=(2, 4, 1, 1), logits=(3, 60),
    )  # fmt: skip
    smaller, tensors = remove(channels.graph, channels.tensors, [channels.at["last"][0]])
    np.testing.assert_array_equal(tensors["logits.weight"], channels.tensors["logits.weight"][:, 30:])
    assert smaller.types(tensors)["flat"].shape == (30,)


def test_an_add_behind_a_shuffle_keeps_its_pairs() -> None:
    """x + shuffle(x): channels go in the cycles of the shuffle, for all ranks of a group together."""
    channels = chain(
        conv("a", "pixels"), Op("shuffle", "dealt", ("a",), {"groups": 2}), Op("add", "last", ("a", "dealt")), *TAIL,
        a=(6, 4, 1, 1), logits=(3, 6),
    )  # fmt: skip
    for seed in range(5):
        assert_removes(channels, random_selection(channels, seed, 0.5), random_images(channels.graph, 2))


def test_a_sum_of_a_shuffled_and_a_plain_map() -> None:
    """Both must keep one order, so a rank goes from all groups of the shuffle together."""
    channels = chain(
        conv("a", "pixels"), Op("shuffle", "dealt", ("a",), {"groups": 2}), conv("b", "pixels"),
        Op("add", "last", ("dealt", "b")), *TAIL,
        a=(12, 4, 1, 1), b=(12, 4, 1, 1), logits=(3, 12),
    )  # fmt: skip
    assert channels.at["a"][1] == channels.at["a"][7]
    for seed in range(5):
        assert_removes(channels, random_selection(channels, seed, 0.5), random_images(channels.graph, 2))


def test_groups_stay_equal() -> None:
    channels = chain(
        conv("a", "pixels", 2), Op("shuffle", "dealt", ("a",), {"groups": 2}), conv("last", "dealt", 2), *TAIL,
        a=(12, 2, 1, 1), last=(8, 6, 1, 1), logits=(3, 8),
    )  # fmt: skip
    for seed in range(5):
        selection = random_selection(channels, seed, 0.4)
        smaller, _ = assert_removes(channels, selection, random_images(channels.graph, 2))
        assert all(op.attrs["groups"] == 2 for op in smaller.ops if op.kind == "conv2d")
    with pytest.raises(GraphError, match="'a': 4 inputs and 11 outputs would not divide"):
        remove(channels.graph, channels.tensors, [channels.at["a"][0]])
    with pytest.raises(GraphError, match="different numbers of channels"):
        remove(channels.graph, channels.tensors, channels.at["a"][:2])


def test_an_odd_slice_behind_a_shuffle() -> None:
    """The first five of two groups of five: three of one, two of the other; rank 2 goes whole or stays."""
    channels = chain(
        conv("a", "pixels"), Op("shuffle", "dealt", ("a",), {"groups": 2}),
        Op("slice", "left", ("dealt",), {"start": 0, "stop": 5}),
        Op("slice", "right", ("dealt",), {"start": 5, "stop": 10}),
        conv("b", "left"), Op("concat", "last", ("b", "right")), *TAIL,
        a=(10, 4, 1, 1), b=(5, 5, 1, 1), logits=(3, 10),
    )  # fmt: skip
    for seed in range(5):
        selection = random_selection(channels, seed, 0.3)
        smaller, _ = assert_removes(channels, selection, random_images(channels.graph, 2))
        cut = {op.name: (op.attrs["start"], op.attrs["stop"]) for op in smaller.ops if op.kind == "slice"}
        assert cut["left"][0] == 0
        assert cut["left"][1] == cut["right"][0]


def test_what_may_not_go() -> None:
    channels = chain(conv("last", "pixels"), *TAIL, last=(2, 4, 1, 1), logits=(3, 2))
    assert [list(g.layers) for g in groups(channels.graph, channels.tensors)] == [["last"]]
    for name in ("pixels", "logits"):
        with pytest.raises(GraphError, match="cannot be removed"):
            remove(channels.graph, channels.tensors, [channels.at[name][0]])
    with pytest.raises(GraphError, match="'last' would keep no channel"):
        remove(channels.graph, channels.tensors, channels.at["last"])
