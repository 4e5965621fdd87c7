"""Pruning of single weights: which go, how many, and that they stay gone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.errors import OptionError, UnsupportedLayer
from netsuke.lab.carve import carve
from netsuke.lab.forms import share
from netsuke.lab.inference import accuracy, logits, tensors
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.prune import Prune, prune
from netsuke.lab.steps.prune.masks import Selection, grouped, strongest
from netsuke.lab.steps.prune.schedule import SCHEDULES, further, reached
from netsuke.lab.steps.prune.scores import IMPORTANCE, scores
from netsuke.lab.steps.prune.weights import layers
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
from netsuke.measure.cost import cost

SHAPE = (1, 8, 8)
DATA = blobs(SHAPE)
QUICK = Training(epochs=4, batch=16)


def network(seed: int = 0, width: float = 0.2, data: Dataset = DATA) -> nn.Module:
    return build("convnet", data.image_shape, len(data.classes), seed=seed, width=width, norm=True)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return train(network(), DATA, replace(QUICK, epochs=8))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight.detach() for name, layer in layers(model).items()}  # type: ignore


def zeros(model: nn.Module) -> int:
    return sum(int((weight == 0).sum()) for weight in weights(model).values())


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in weights(model).values())


def patterns(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight != 0 for name, weight in weights(model).items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- which weights: properties ------------------------------------------------------------------------

SIZES = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=4)


def drawn(sizes: list[tuple[int, int]], seed: int, levels: int) -> dict[str, Tensor]:
    """Scores with many ties where there are few levels."""
    rng = np.random.default_rng(seed)
    return {
        f"l{i}": torch.from_numpy(rng.integers(0, levels, s).astype(np.float32)) for i, s in enumerate(sizes)
    }


@given(SIZES, st.floats(0, 0.999), st.integers(0, 99), st.sampled_from([2, 1000]), st.integers(1, 12))
def test_global_selection(sizes, amount, seed, levels, floor):
    found = drawn(sizes, seed, levels)
    total = sum(score.numel() for score in found.values())
    keep = total - round(amount * total)
    choice = Selection(amount, floor=floor)
    if keep < len(found):
        with pytest.raises(OptionError, match="each needs one"):
            choice.masks(found)
        return
    masks = choice.masks(found)
    assert sum(int(mask.sum()) for mask in masks.values()) == keep
    least = min(floor, keep // len(found))
    for name, mask in masks.items():
        assert mask.shape == found[name].shape
        assert mask.sum() >= min(least, mask.numel())
        if 0 < mask.sum() < mask.numel():  # within a layer no weaker weight stays than goes
            assert found[name][mask == 1].min() >= found[name][mask == 0].max()
    # Over layers too, but for those that the floor holds up.
    free = {name for name, mask in masks.items() if mask.sum() > least}
    stays = [found[name][masks[name] == 1].min() for name in free]
    goes = [found[name][masks[name] == 0].max() for name in masks if (masks[name] == 0).any()]
    assert not stays or not goes or min(stays) >= max(goes)


@given(SIZES, st.floats(0, 0.999), st.integers(0, 99), st.sampled_from([2, 1000]))
def test_selection_by_layer(sizes, amount, seed, levels):
    found = drawn(sizes, seed, levels)
    for name, mask in Selection(amount, "layer", {"l0": 0.25}).masks(found).items():
        share = 0.25 if name == "l0" else amount
        assert mask.sum() == max(1, mask.numel() - round(share * mask.numel()))


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.integers(2, 8), st.data(), st.integers(0, 99)
)
def test_groups_keep_their_largest(outputs, inputs, kernel, m, data, seed):
    n = data.draw(st.integers(1, m - 1))
    score = torch.from_numpy(np.random.default_rng(seed).random((outputs, inputs, kernel, kernel)))
    rows, masks = score.flatten(1), grouped(score, n, m).flatten(1)
    for row, mask in zip(rows, masks, strict=True):
        for start in range(0, len(row), m):
            group, kept = row[start : start + m], mask[start : start + m]
            assert kept.sum() == min(n, len(group))
            assert set(group[kept == 1].tolist()) == set(group.topk(min(n, len(group))).values.tolist())


def test_ties_go_by_position():
    assert strongest(torch.ones(5), 2).tolist() == [1, 1, 0, 0, 0]


# --- schedules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(amount=st.floats(0, 0.99), t=st.floats(0, 1), later=st.floats(0, 2))
def test_schedules_grow_to_the_amount(schedule, amount, t, later):
    assert reached(schedule, 1, amount) == amount
    assert 0 <= reached(schedule, t, amount) <= amount + 1e-12
    assert reached(schedule, t, amount) <= reached(schedule, t + later, amount) + 1e-12


@pytest.mark.parametrize(
    ("schedule", "values"),
    {
        "one-shot": [0.8, 0.8, 0.8, 0.8],
        "linear": [0.2, 0.4, 0.6, 0.8],
        "polynomial": [0.8 * (1 - (1 - t) ** 3) for t in (0.25, 0.5, 0.75, 1)],
        "cosine": [0.8 * 0.146447, 0.4, 0.8 * 0.853553, 0.8],
        "geometric": [1 - 0.2**t for t in (0.25, 0.5, 0.75, 1)],
    }.items(),
)
def test_schedule_values(schedule, values):
    got = [reached(schedule, t, 0.8) for t in (0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(got, values, rtol=1e-5)


@given(st.integers(0, 80), st.integers(0, 19))
def test_relative_cuts_add_up(before, more):
    first, second = Fraction(before, 100), Fraction(before + more, 100)
    left = (1 - first) * (1 - Fraction(further(float(first), float(second))))
    assert float(left) == pytest.approx(float(1 - second))


# --- how many: exact, in every scope --------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0.0, 0.3, 0.9, 0.97])
@pytest.mark.parametrize("importance", IMPORTANCE)
def test_global_sparsity_is_exact(trained, importance, amount):
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    pruned = prune(trained, DATA, amount=amount, importance=importance)
    assert zeros(pruned) == round(amount * count(pruned))
    assert all((weight != 0).sum() >= 4 for weight in weights(pruned).values())  # one for each class
    assert same(before, trained.state_dict())


def test_sparsity_by_layer_and_by_pattern(trained):
    names = list(layers(prune(trained, DATA, amount=0)))
    pruned = prune(trained, DATA, amount=0.8, scope="layer", skip=(names[0],), layers={names[-1]: 0.25})
    for name, weight in weights(pruned).items():
        share = {names[0]: 0, names[-1]: 0.25}.get(name, 0.8)
        assert (weight == 0).sum() == round(share * weight.numel())
    # With a global scope the others share the amount among them.
    pruned = prune(trained, DATA, amount=0.8, layers={names[-1]: 0.25})
    rest = [weight for name, weight in weights(pruned).items() if name != names[-1]]
    assert sum(int((w == 0).sum()) for w in rest) == round(0.8 * sum(w.numel() for w in rest))


def test_magnitude_takes_the_smallest(trained):
    whole, pruned = weights(FloatGraph(*lower(trained, SHAPE))), patterns(prune(trained, DATA, amount=0.7))
    stays = torch.cat([whole[name][pruned[name]].abs() for name in whole])
    goes = torch.cat([whole[name][~pruned[name]].abs() for name in whole])
    assert stays.min() >= goes.max()
    for name, weight in weights(prune(trained, DATA, amount=0.7)).items():
        assert torch.equal(weight[pruned[name]], whole[name][pruned[name]])  # what stays is as it was


def test_importances_differ(trained):
    found = {i: patterns(prune(trained, DATA, amount=0.7, importance=i)) for i in IMPORTANCE}
    assert not any(same(found[a], found[b]) for a in found for b in found if a < b)


def test_taylor_knows_what_the_loss_needs(trained):
    """It keeps more of the loss than chance, without any training after."""
    _, by_taylor = accuracy(prune(trained, DATA, amount=0.6, importance="taylor"), DATA.train)
    by_chance = [
        accuracy(prune(trained, DATA, amount=0.6, importance="random", seed=s), DATA.train)[1]
        for s in range(3)
    ]
    assert by_taylor < min(by_chance)


@pytest.mark.parametrize("structure", ["2:4", "1:4", "3:8"])
@pytest.mark.parametrize("soft", [False, True])
def test_pattern_holds_in_every_group(trained, structure, soft):
    n, m = map(int, structure.split(":"))
    pruned = prune(trained, DATA, structure=structure, soft=soft, training=QUICK)
    for weight in weights(pruned).values():
        for row in weight.flatten(1):
            groups = [row[i : i + m] for i in range(0, len(row), m)]
            assert all((group != 0).sum() == min(n, len(group)) for group in groups)


# --- gone is gone -----------------------------------------------------------------------------------------


def test_zeros_outlast_training_average_and_artifact(trained, tmp_path):
    pruned = prune(trained, DATA, amount=0.8, training=replace(QUICK, ema=0.9, optimizer="adamw", l2=0.01))
    again = train(pruned, DATA, replace(QUICK, l1=1e-4, ema=0.5, seed=3))
    assert same(patterns(again), patterns(pruned))
    assert not same(weights(again), weights(pruned))
    stored = {name: array for name, array in lower(again, SHAPE)[1].items() if name.endswith("weight")}
    assert sum(int((w == 0).sum()) for w in stored.values()) == round(0.8 * count(again))
    assert not any(
        (np.signbit(w) & (w == 0)).any() for w in stored.values()
    )  # no −0, which codes as another value
    carve(again, DATA, recipe={}, seed=0).save(tmp_path / "pruned.netsuke")
    loaded = Artifact.load(tmp_path / "pruned.netsuke")
    images, _ = tensors(DATA.test)
    torch.testing.assert_close(
        logits(FloatGraph(loaded.graph, loaded.tensors), images), logits(again, images)
    )


def test_pruning_a_pruned_network_goes_on_from_it(trained, tmp_path):
    first = prune(trained, DATA, amount=0.5)
    more = patterns(prune(first, DATA, amount=0.8, training=QUICK))
    less = prune(first, DATA, amount=0.2, training=QUICK)
    assert all(
        (~had | ~left | had).all() for had, left in zip(patterns(first).values(), more.values(), strict=True)
    )
    assert all(not (more[name] & ~had).any() for name, had in patterns(first).items())
    assert same(patterns(less), patterns(first))  # a smaller amount brings nothing back
    reloaded = FloatGraph(*lower(first, SHAPE))  # and so it is where only the zeros tell
    assert same(patterns(prune(reloaded, DATA, amount=0.2, training=QUICK)), patterns(first))


def test_costs_are_those_of_the_whole_network():
    whole = FloatGraph(*lower(network(width=1.0), SHAPE))
    # Of layers this large so many values differ that no codebook saves bytes.
    small = tuple(name for name, weight in weights(whole).items() if weight.numel() < 2000)
    pruned = prune(whole, DATA, amount=0.5, skip=small)
    assert zeros(pruned) > 0.4 * count(pruned)
    before, after = (cost(carve(model, DATA, recipe={}, seed=0)) for model in (whole, pruned))
    for name in ("parameters", "macs", "size_bytes", "ram_bytes"):
        assert after[name] == before[name]


def test_a_copy_is_independent(trained):
    first = prune(trained, DATA, amount=0.5)
    prune(first, DATA, amount=0.8)  # takes masks off a copy, whose class torch lets the two share
    assert zeros(first) == round(0.5 * count(first))


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_networks_prune(trained, bits):
    twin = quantize(trained, DATA, bits=bits)
    pruned = prune(twin, DATA, amount=0.7, training=replace(QUICK, ema=0.9))
    assert type(pruned) is type(twin)
    graph, found = pruned.to_graph()
    assert graph.integer
    stored = [found[op.tensor("weight")] for op in graph.ops if op.tensor("weight") in found]
    assert sum(int((w == 0).sum()) for w in stored) >= round(0.7 * sum(w.size for w in stored))
    assert all((weight != 0).any() for weight in weights(pruned).values())


@pytest.mark.parametrize("importance", ["taylor", "gradient", "movement"])
def test_gradients_of_integer_networks(trained, importance):
    twin = quantize(trained, DATA, bits=6)
    pruned = prune(twin, DATA, amount=0.5, importance=importance, training=QUICK)
    assert zeros(pruned) == round(0.5 * count(pruned))


def test_quantising_keeps_the_zeros(trained):
    pruned = prune(trained, DATA, amount=0.7)
    kept = patterns(pruned)
    twin = train(quantize(pruned, DATA, bits=8), DATA, QUICK)
    graph, found = twin.to_graph()  # type: ignore
    for op in graph.ops:
        if op.tensor("weight") in found:
            assert not found[op.tensor("weight")][~kept[op.name].numpy()].any()


def test_weights_that_cannot_be_zero(trained):
    with pytest.raises(UnsupportedLayer, match="binary weights are never 0"):
        prune(quantize(trained, DATA, bits=1), DATA)
    shared = prune(trained, DATA, amount=0)
    layer = next(iter(layers(shared).values()))
    share(layer, torch.zeros_like(layer.weight, dtype=torch.long), torch.ones(2))  # type: ignore
    with pytest.raises(UnsupportedLayer, match="shares its values"):
        prune(shared, DATA)


def test_scores_leave_the_network_alone(trained):
    graph = FloatGraph(*lower(trained, SHAPE)).train()
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    for importance in IMPORTANCE:
        scores(graph, DATA, importance)
    assert graph.training
    assert same(before, graph.state_dict())
    assert all(p.grad is None for p in graph.parameters())


# --- options ------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"structure": "chanels"}, "did you mean 'channels'"),
    ({"structure": "4:2"}, "N below M"),
    ({"structure": "2:4", "amount": 0.9}, "removes 0.5 by itself"),
    ({"structure": "2:4", "layers": {"x": 0.1}}, "use skip"),
    ({"importance": "magnitud"}, "did you mean 'magnitude'"),
    ({"importance": "l2"}, "importance"),
    ({"structure": "channels", "importance": "magnitude"}, "importance"),
    ({"target": "macs"}, "target"),
    ({"structure": "channels", "target": "mac"}, "did you mean 'macs'"),
    ({"scope": "globl"}, "did you mean 'global'"),
    ({"schedule": "polinomial"}, "did you mean 'polynomial'"),
    ({"rewind": "int"}, "did you mean 'init'"),
    ({"amount": 1.0}, "0..1"),
    ({"amount": -0.1}, "0..1"),
    ({"amount": float("nan")}, "0..1"),
    ({"layers": {"conv": 1.5}}, "conv"),
    ({"rounds": -1}, "rounds"),
    ({"seed": -1}, "seed"),
    ({"rounds": 3, "schedule": "one-shot"}, "3 rounds take linear"),
    ({"soft": True}, "training.epochs"),
    ({"rounds": 0}, "training.epochs"),
    ({"importance": "movement"}, "training.epochs"),
    ({"soft": True, "rounds": 2, "training": QUICK}, "rounds must be 0 or 1"),
    ({"soft": True, "importance": "taylor", "training": QUICK}, "magnitude or movement"),
    ({"rewind": "init"}, "training.epochs"),
    ({"rewind": "rate", "training": replace(QUICK, schedule="constant")}, "rate that falls"),
    ({"rewind": "early", "early": 0, "training": QUICK}, "init"),
    ({"rewind": "init", "soft": True, "training": QUICK}, "between rounds"),
    ({"rewind": "init", "structure": "channels", "training": QUICK}, "single weights"),
    ({"structure": "channels", "soft": True, "target": "macs", "training": QUICK}, "counts channels"),
    ({"structure": "channels", "rounds": 0, "training": QUICK}, "or soft"),
    ({"structure": "layers", "soft": True, "training": QUICK}, "channels"),
    ({"structure": "layers", "skip": ("x",)}, "leave layers, skip and scope out"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_wrong_options_are_named(options, message):
    with pytest.raises(OptionError, match=message) as caught:
        Prune(**options)
    assert "\n" not in str(caught.value)


def test_options_against_the_network(trained):
    name = next(iter(layers(prune(trained, DATA, amount=0))))
    with pytest.raises(OptionError, match=name):
        prune(trained, DATA, skip=(name + "s",))
    with pytest.raises(OptionError, match="matches no layer"):
        prune(trained, DATA, layers={"nowhere": 0.5})
    with pytest.raises(OptionError, match="leaves no layer"):
        prune(trained, DATA, skip=("*",))
    for more in ({}, {"rounds": 3}, {"soft": True}, {"rewind": "init"}):  # before anything trains
        with pytest.raises(OptionError, match="each needs one"):
            prune(trained, DATA, amount=0.9999, training=QUICK, progress=pytest.fail, **more)
    with pytest.raises(OptionError, match="prune, then quantise"):
        prune(quantize(trained, DATA), DATA, structure="channels")
