"""Channels and layers chosen, removed, recovered. Every network loses both, and reloads, in test_matrix."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphs import random_images
from lab.sets import blobs
from lab.test_channels import zeroed
from lab.test_models import CASES, small, stirred
from netsuke import data as catalogue
from netsuke.data import Dataset
from netsuke.errors import OptionError, UnsupportedLayer
from netsuke.graph import Graph
from netsuke.lab.carve import carve
from netsuke.lab.channels import Channels
from netsuke.lab.forms import Mask, form_of, set_mask, share
from netsuke.lab.inference import accuracy, logits, tensors
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph, key
from netsuke.lab.normed import renormed, statistics
from netsuke.lab.removal import survivors
from netsuke.lab.steps.prune import prune, structured
from netsuke.lab.steps.prune.blocks import branches
from netsuke.lab.steps.prune.greedy import TARGETS, figure, savings
from netsuke.lab.steps.prune.importance import IMPORTANCE, Case, arriving_means, scores
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
from netsuke.measure.cost import macs, parameters

DATA = blobs((1, 20, 20), n=60)


def module(name: str, options: dict[str, Any]) -> nn.Module:
    return stirred(build(name, DATA.image_shape, 4, seed=3, **options))


def floats(model: nn.Module, data: Dataset = DATA) -> FloatGraph:
    return FloatGraph(*lower(model, data.image_shape)).eval()


def cost(model: FloatGraph) -> tuple[int, int]:
    graph, weights = model.to_graph()
    return parameters(graph, weights), sum(macs(graph, weights).values())


@cache
def digits() -> tuple[Dataset, nn.Module]:
    data = catalogue.load("digits")
    model = build("resnet_small", data.image_shape, 10, width=0.5, depth=2)
    return data, train(model, data, Training(epochs=6, batch=64, lr=8e-3))


@pytest.fixture
def removals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Channels, np.ndarray]]:
    """What each `cut` hands to the removal: the channels, and which units go."""
    found: list[tuple[Channels, np.ndarray]] = []
    real = structured.remove

    def noted(graph: Graph, weights: Any, units: Any, channels: Channels) -> Any:
        gone = np.zeros(channels.count, bool)
        gone[units] = True
        found.append((channels, gone))
        return real(graph, weights, units, channels)

    monkeypatch.setattr(structured, "remove", noted)
    return found


@pytest.mark.parametrize("turn", range(len(CASES)), ids=[f"{name}-{options}" for name, options in CASES])
def test_importances_halve_every_network(turn: int, removals: list[tuple[Channels, np.ndarray]]) -> None:
    """Half of the channels are gone, and the logits are the original's with those channels at zero.

    By the scales of the norms, which each network has in places of its own, and by two others in turn.
    """
    source = module(*CASES[turn])
    model, scales = floats(source), structured.norms(source, DATA.image_shape)
    images = random_images(model.graph, 3)
    others = [name for name in IMPORTANCE if name != "bn"]
    for importance in ("bn", others[turn % len(others)], others[(turn + 2) % len(others)]):
        if importance == "bn" and not scales:
            with pytest.raises(OptionError, match="taylor, l1, l2"):
                structured.cut(model, DATA, amount=0.5, importance=importance)
            continue
        smaller = structured.cut(
            model, DATA, amount=0.5, importance=importance, norms=scales, compensate=False
        )
        assert all(after < before for after, before in zip(cost(smaller), cost(model), strict=True))
        channels, gone = removals.pop()
        free = ~channels.fixed
        assert channels.rows[gone].sum() >= channels.rows[free].sum() / 2
        got, want = carve(smaller, DATA, recipe={}, seed=0).logits(images), zeroed(channels, gone, images)
        assert np.abs(got - want).max() <= 1e-4 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["convnet", "mobilenet_v2", "shufflenet_v2"])
def test_the_target_is_met_within_one_unit(name: str, target: str) -> None:
    model = floats(module(name, small(name)[0]))
    channels = Channels(*model.to_graph())
    smaller = Channels(*structured.cut(model, DATA, amount=0.4, target=target, importance="l1").to_graph())
    before, after = (figure(c, target)(c.uses.sum(1)) for c in (channels, smaller))
    assert after <= 0.6 * before
    # In ShuffleNet a unit ties others, so the last step takes several.
    most = savings(channels, target).max() * (12 if name == "shufflenet_v2" else 1)
    assert after > 0.6 * before - most


def test_quantised_and_trained_on() -> None:
    smaller = structured.cut(floats(module("mobilenet_v2", small("mobilenet_v2")[0])), DATA, amount=0.5)
    assert carve(quantize(smaller, DATA), DATA, recipe={}, seed=0).graph.integer
    train(smaller, DATA, Training(epochs=1, batch=16))


@pytest.mark.slow
def test_taylor_beats_chance_and_compensation_helps() -> None:
    data, source = digits()
    model = floats(source, data)

    def loss(**options: Any) -> float:
        return accuracy(structured.cut(model, data, amount=0.3, target="macs", **options), data.test)[1]

    chance = min(loss(importance="random", seed=seed) for seed in range(3))
    assert loss() < chance
    assert loss() < loss(compensate=False)
    shallower = [structured.drop_layers(model, data, amount=0.34, compensate=yes) for yes in (True, False)]
    kept, lost = (accuracy(network, data.test)[1] for network in shallower)
    assert kept < lost


@pytest.mark.parametrize("name", ["resnet_small", "mobilenet_v2", "shufflenet_v1", "ghostnet"])
def test_maps_keep_their_means_and_deviations(name: str, removals: list[tuple[Channels, np.ndarray]]) -> None:
    """Also where a shuffle deals the channels that stay anew."""
    model = floats(module(name, small(name)[0]))
    smaller, damaged = (
        structured.cut(model, DATA, amount=0.3, importance="l2", compensate=yes) for yes in (True, False)
    )
    channels, gone = removals[0]
    left, before = survivors(channels, np.flatnonzero(gone)), statistics(model, DATA)

    def off(network: FloatGraph) -> float:
        """By how much a map is off, in deviations: the median channel of the layer where that is most."""
        most = 0.0
        for op, (mean, deviation) in statistics(network, DATA).items():
            old_mean, old = (part[left[op]] for part in before[op])
            most = max(
                most, *(part.abs().median().item() for part in ((mean - old_mean) / old, deviation / old - 1))
            )
        return most

    assert off(smaller) < 0.02 < 0.2 < off(damaged)


def test_a_constant_channel_goes_without_a_trace() -> None:
    """What a constant channel gave, away from padded edges, is in the biases of its reader."""
    model = build("convnet", DATA.image_shape, 4, width=0.25)
    network = floats(stirred(model))
    first, second = (op for op in network.graph.ops if op.kind == "conv2d")
    with torch.no_grad():
        network.layers[key(first.name)].weight[3] = 0.0  # type: ignore[index]
        network.layers[key(first.name)].bias[3] = 0.7  # type: ignore[index]
    channels = Channels(*network.to_graph())
    gone = np.zeros(channels.count, bool)
    gone[channels.at[first.name][3]] = True
    means = arriving_means(channels, network, DATA)
    weights = structured.compensated(channels, gone, means)
    moved = weights[f"{second.name}.bias"] - channels.tensors[f"{second.name}.bias"]
    np.testing.assert_allclose(
        moved, 0.7 * channels.tensors[f"{second.name}.weight"][:, 3].sum((1, 2)), rtol=1e-4, atol=1e-6
    )
    assert not np.allclose(moved, 0)


def test_taylor_is_the_first_order_change() -> None:
    """A unit's score agrees with the loss where its channels are scaled down a little."""
    data, source = digits()
    model = floats(source, data)
    channels = Channels(*model.to_graph())
    price = scores(Case(channels, model, data), "taylor")
    unit = int(channels.groups[1].units[np.argmax(price[channels.groups[1].units])])
    images, labels = (part[:: max(1, len(part) // 1000)][:1000] for part in tensors(data.train))

    def losses(share: float) -> Tensor:
        weaker = FloatGraph(*model.to_graph())
        with torch.no_grad():
            for op in channels.layers:
                at = channels.at[op.inputs[0]]
                if len(at) and op.attrs.get("groups", 1) == 1:
                    weaker.layers[key(op.name)].weight[:, at == unit] *= 1 - share  # type: ignore[index]
        return nn.functional.cross_entropy(logits(weaker, images), labels, reduction="none").double()

    step = 1e-3
    slope = (losses(step) - losses(-step)) / (2 * step)
    assert price[unit] == pytest.approx(slope.square().mean().item(), rel=0.02)


def test_scopes_and_ratios() -> None:
    data, source = digits()
    model = floats(source, data)

    def kept(**options: Any) -> dict[str, float]:
        smaller = structured.cut(model, data, **options)
        before, after = (Channels(*m.to_graph()) for m in (model, smaller))
        return {op.name: len(after.at[op.name]) / len(before.at[op.name]) for op in before.layers}

    even = kept(amount=0.5, scope="layer")
    assert all(0.4 <= share <= 0.65 for name, share in even.items() if name != "fc")
    uneven = kept(amount=0.5)
    assert max(uneven.values()) - min(uneven.values()) > 0.3
    chosen = kept(amount=0.25, ratios={"layer1_*_conv1": 0.0, "layer2_0_conv1": 0.75})
    assert chosen["layer1_0_conv1"] == chosen["layer1_1_conv1"] == 1
    assert chosen["layer2_0_conv1"] == 0.25
    only = kept(amount=0.0, ratios={"layer2_0_conv1": 0.5})
    assert [name for name, share in only.items() if share < 1] == ["layer2_0_conv1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"amount": 1.0}, "share removed"),
        ({"amount": 0.5, "target": "mac"}, "did you mean 'macs'"),
        ({"amount": 0.5, "importance": "tailor"}, "did you mean 'taylor'"),
        ({"amount": 0.5, "scope": "local"}, "did you mean 'global'"),
        ({"amount": 0.5, "ratios": {"layer9*": 0.5}}, "no layer 'layer9"),
        ({"amount": 0.5, "importance": "bn", "norms": {"elsewhere": torch.ones(3)}}, "not this network's"),
        ({"amount": 0.99}, "is the most here"),
    ],
)
def test_impossible_wishes(options: dict[str, Any], words: str) -> None:
    model = floats(module("resnet_small", {"width": 0.25, "depth": 1}))
    with pytest.raises(OptionError, match=words):
        structured.cut(model, DATA, **options)


def test_masks_stay_and_shared_values_are_refused() -> None:
    model = floats(module("convnet", {"width": 0.25}))
    part = key(next(op.name for op in model.graph.ops if op.kind == "conv2d"))
    weight: Tensor = model.layers[part].weight  # type: ignore[assignment]
    set_mask(model.layers[part], weight.abs() > weight.abs().median())
    smaller = structured.cut(model, DATA, amount=0.3)
    form = form_of(smaller.layers[part], Mask)
    assert isinstance(form, Mask)
    assert torch.equal(form.mask != 0, smaller.layers[part].weight != 0)
    share(model.layers[part], torch.zeros_like(weight, dtype=torch.long), torch.ones(1))
    with pytest.raises(UnsupportedLayer, match="prune before"):
        structured.cut(model, DATA, amount=0.3)


# --- whole layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", ["taylor", "loss", "activation", "l1", "l2", "random"])
def test_branches_go(importance: str) -> None:
    data, source = digits()
    model = floats(source, data)
    assert len(branches(*model.to_graph())) == 6
    smaller = structured.drop_layers(model, data, amount=0.34, importance=importance)
    assert len(branches(*smaller.to_graph())) == 4
    assert all(after < before for after, before in zip(cost(smaller), cost(model), strict=True))


def test_a_branch_that_adds_nothing_goes_first() -> None:
    data, source = digits()
    model = floats(source, data)
    with torch.no_grad():
        for role in ("weight", "bias"):
            getattr(model.layers["layer2_1_conv2"], role).zero_()
    images = torch.from_numpy(data.test.images[:20].copy())
    for importance in ("taylor", "loss", "activation"):
        smaller = structured.drop_layers(model, data, amount=0.1, importance=importance, compensate=False)
        assert "layer2_1_conv2" not in [op.name for op in smaller.graph.ops]
        torch.testing.assert_close(logits(smaller, images), logits(model, images))


@pytest.mark.parametrize(("amount", "left"), [(0.34, 4), (0.1, 5), (0.9, 1)])
def test_rounds_of_layers_take_no_more_than_asked(amount: float, left: int) -> None:
    model = floats(module("resnet_small", {"width": 0.25, "depth": 2}))
    assert len(branches(*model.to_graph())) == 6
    smaller = prune(model, DATA, structure="layers", amount=amount, importance="l2", rounds=4)
    assert len(branches(*smaller.to_graph())) == left


# --- norms ------------------------------------------------------------------------------------------


def test_norms_of_the_network_count() -> None:
    """What goes between two rounds of training is what would go with the norms folded."""
    network = renormed(floats(module("convnet", {"width": 0.25})), DATA)
    with torch.no_grad():
        for norm in network.norms().values():
            norm.weight.mul_(torch.linspace(-2, 2, len(norm.weight)))
    images = torch.from_numpy(DATA.test.images)
    for importance in ("taylor", "activation"):
        smaller, want = (
            structured.cut(m, DATA, amount=0.5, importance=importance)
            for m in (network.eval(), FloatGraph(*network.to_graph()))
        )
        torch.testing.assert_close(logits(smaller, images), logits(want, images))


@pytest.mark.parametrize("name", ["resnet_small", "mobilenet_v3_small", "shufflenet_v2", "convnet"])
def test_norms_start_as_nothing_and_fold_back(name: str) -> None:
    model = floats(module(name, small(name)[0]))
    normed = renormed(model, DATA)
    images = torch.from_numpy(random_images(model.graph, 6))
    want = logits(model, images)
    tolerance = 2e-4 * max(1.0, want.abs().max().item())
    torch.testing.assert_close(logits(normed, images), want, atol=tolerance, rtol=0)
    trained = train(normed, DATA, Training(epochs=1, batch=16))
    folded = FloatGraph(*trained.to_graph())  # type: ignore[operator]
    want = logits(trained, images)
    torch.testing.assert_close(
        logits(folded, images), want, atol=2e-4 * max(1.0, want.abs().max().item()), rtol=0
    )
    scales = structured.norms(normed, DATA.image_shape)
    structured.cut(model, DATA, amount=0.3, importance="bn", norms=scales)


def test_even_filters_compute_the_same() -> None:
    model = floats(module("mobilenet_v2", small("mobilenet_v2")[0]))
    part = key(next(op.name for op in model.graph.ops if op.kind == "conv2d"))
    with torch.no_grad():
        model.layers[part].weight[0] = 0.0  # type: ignore[index]
    even = renormed(model, DATA, even=True)
    for name in even.norms():
        lengths = even.layers[key(name)].weight.flatten(1).norm(dim=1)  # type: ignore[operator, union-attr]
        assert ((lengths - 1).abs() < 1e-5).logical_or(lengths == 0).all()
    images = torch.from_numpy(random_images(model.graph, 6))
    want = logits(model, images)
    tolerance = 2e-4 * max(1.0, want.abs().max().item())
    for network in (even, FloatGraph(*even.to_graph())):
        torch.testing.assert_close(logits(network, images), want, atol=tolerance, rtol=0)


def test_no_layer_becomes_a_bottleneck() -> None:
    """Where one layer matters least by far, it still keeps a quarter of its channels at half of the MACs."""
    network = floats(module("resnet_small", {"width": 1.0, "depth": 1}))
    with torch.no_grad():
        for op in network.graph.ops:
            if op.name.startswith("layer3") and op.kind == "conv2d":
                network.layers[key(op.name)].weight[4:].mul_(1e-3)
    before = {
        op.name: len(network.to_graph()[1][op.tensor("weight")])
        for op in network.graph.ops
        if op.kind == "conv2d"
    }
    for importance in ("l1", "taylor"):
        smaller = structured.cut(network, DATA, amount=0.5, target="macs", importance=importance)
        graph, weights = smaller.to_graph()
        for op in graph.ops:
            if op.kind == "conv2d":
                assert len(weights[op.tensor("weight")]) >= before[op.name] / 4, op.name
