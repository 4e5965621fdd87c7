"""Widths under a byte budget: exact costs, an exact choice, and the layer to blame."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lab.test_quantize import DATA, _make
from netsuke import packing
from netsuke.data import Dataset, Split
from netsuke.errors import OptionError
from netsuke.lab.inference import accuracy, logits, tensors
from netsuke.lab.integers import Widths
from netsuke.lab.lower import lower
from netsuke.lab.mixed import blame, cheapest, layer_bytes, layer_losses, rounded_weight, sample
from netsuke.lab.models import build
from netsuke.lab.modules import FloatGraph, key
from netsuke.lab.steps.quantize import images, quantize
from netsuke.lab.steps.train import Training, train

NET = ("lenet5", "hidden dense layers")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(2)
    model = build("convnet", DATA.image_shape, 4, width=0.25)
    return train(model, DATA, Training(epochs=6, batch=16, lr=4e-3))


def _bits(twin: nn.Module) -> dict[str, int]:
    graph, _ = lower(twin, DATA.image_shape)
    return {op.name: op.attrs["bits"] for op in graph.ops if "bits" in op.attrs}


def _size(twin: nn.Module) -> int:
    return packing.size_bytes(*lower(twin, DATA.image_shape))


options = st.dictionaries(
    st.integers(1, 8),
    st.tuples(st.integers(1, 60), st.floats(0, 4, width=32, allow_subnormal=False)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=200)
@given(layers=st.lists(options, min_size=1, max_size=4), budget=st.integers(1, 200))
def test_the_choice_is_the_best_of_all(layers: list[dict], budget: int) -> None:
    named = {f"layer{i}": row for i, row in enumerate(layers)}
    sums = [
        (sum(size for size, _ in pick), sum(loss for _, loss in pick))
        for pick in product(*(row.values() for row in layers))
    ]
    fitting = [loss for size, loss in sums if size <= budget]
    if not fitting:
        with pytest.raises(
            OptionError, match=f"at least {min(size for size, _ in sums) + 5}.*got {budget + 5}"
        ):
            cheapest(named, budget, others=5)
        return
    chosen = cheapest(named, budget)
    assert list(chosen) == list(named)
    assert sum(named[name][bits][0] for name, bits in chosen.items()) <= budget
    assert sum(named[name][bits][1] for name, bits in chosen.items()) == pytest.approx(min(fitting), abs=1e-9)


def test_losses_are_those_of_the_changed_network(net: nn.Module) -> None:
    losses = layer_losses(net, DATA, (1, 3, 8))
    graph, weights = lower(net, DATA.image_shape)
    raw, labels = tensors(DATA.val)
    before = logits(net, raw)
    assert losses.n == len(DATA.val)
    assert losses.base == pytest.approx(F.cross_entropy(before, labels).item(), rel=1e-4)
    for name, row in losses.increase.items():
        for bits, increase in row.items():
            twin = FloatGraph(graph, weights)
            weight = twin.layers[key(name)].weight
            channels = 1 if name == graph.output else len(weight)  # type: ignore[arg-type]
            with torch.no_grad():
                weight.copy_(rounded_weight(weight, bits, channels))  # type: ignore[operator,arg-type]
            after = logits(twin, raw)
            loss = F.cross_entropy(after, labels).item()
            assert increase == pytest.approx(loss - losses.base, abs=1e-4)
            want = F.kl_div(
                after.log_softmax(1), before.log_softmax(1), log_target=True, reduction="batchmean"
            )
            assert losses.divergence[name][bits] == pytest.approx(want.item(), abs=1e-5)
    row = losses.divergence["layer0"]
    assert row[1] > row[3] > row[8] >= 0


def test_a_change_of_the_callers_own(net: nn.Module) -> None:
    asked = []
    losses = layer_losses(
        net,
        DATA,
        (3,),
        layers={"layer0": (5, 6)},
        change=lambda op, w, bits: asked.append((op.name, bits)) or w,
    )
    assert {bits for name, bits in asked if name == "layer0"} == {5, 6}
    assert {bits for name, bits in asked if name != "layer0"} == {3}
    assert all(value == 0 for row in losses.divergence.values() for value in row.values())


def test_only_validation_images_are_looked_at(net: nn.Module) -> None:
    blank = Split(np.zeros_like(DATA.test.images), DATA.test.labels)
    assert layer_losses(net, replace(DATA, test=blank), (2,)) == layer_losses(net, DATA, (2,))
    size = _size(quantize(net, DATA)) // 2
    assert _bits(quantize(net, replace(DATA, test=blank), max_bytes=size)) == _bits(
        quantize(net, DATA, max_bytes=size)
    )
    assert np.array_equal(sample(DATA).images, DATA.val.images)
    empty = Split(DATA.val.images[:0], DATA.val.labels[:0])
    assert len(sample(replace(DATA, val=empty), 50)) == 50
    assert sample(replace(DATA, val=empty), 5).images[0].tobytes() == DATA.train.images[0].tobytes()


@pytest.mark.parametrize("bias_bits", [8, 16, 32])
@pytest.mark.parametrize("widths", [{}, {"layer0": 7, "layer3": 2, "layer7": 1}])
def test_bytes_are_those_of_the_artifact(net: nn.Module, widths: dict[str, int], bias_bits: int) -> None:
    sizes, others = layer_bytes(
        *lower(net, DATA.image_shape), images(DATA, 2000), Widths(8, bias_bits), range(1, 9), worst=False
    )
    twin = quantize(net, DATA, bits=4, layers=widths, bias_bits=bias_bits)
    assert others + sum(sizes[name][bits] for name, bits in _bits(twin).items()) == _size(twin)
    worst, _ = layer_bytes(
        *lower(net, DATA.image_shape), images(DATA, 2000), Widths(8, bias_bits), range(1, 9), worst=True
    )
    assert all(worst[name][bits] >= size for name, row in sizes.items() for bits, size in row.items())


def test_a_budget_is_met_and_well_spent(net: nn.Module) -> None:
    full, least = _size(quantize(net, DATA)), _size(quantize(net, DATA, bits=1))
    loss, former = layer_losses(net, DATA).divergence, np.inf
    for budget in np.linspace(least, full, 3).astype(int).tolist():
        twin = quantize(net, DATA, max_bytes=budget)
        assert _size(twin) <= budget
        spent = sum(loss[name][bits] for name, bits in _bits(twin).items())
        assert spent <= former
        former = spent
    assert former <= sum(row[8] for row in loss.values())  # at the size of eight bits everywhere
    with pytest.raises(OptionError, match=f"at least {least}"):
        quantize(net, DATA, max_bytes=least - 1)


def test_options_that_bound_the_choice(net: nn.Module) -> None:
    budget = _size(quantize(net, DATA, bits=4))
    bits = _bits(quantize(net, DATA, max_bytes=budget, bits=5, layers={"*0": 3}))
    assert max(bits.values()) <= 5
    assert bits["layer0"] == 3


def test_training_keeps_to_the_budget(net: nn.Module) -> None:
    for bias_bits in (8, 32):
        budget = _size(quantize(net, DATA, bits=3)) + 40
        few = Training(epochs=2, batch=16, lr=2e-2)
        assert _size(quantize(net, DATA, max_bytes=budget, bias_bits=bias_bits, training=few)) <= budget


def test_a_pruned_layer_keeps_its_zero(net: nn.Module) -> None:
    graph, weights = lower(net, DATA.image_shape)
    name = graph.output
    weight = weights[f"{name}.weight"]
    weight[np.abs(weight) < np.median(np.abs(weight))] = 0
    pruned = FloatGraph(graph, weights)
    least = quantize(net, DATA, bits=1, layers={name: 2})
    assert _bits(quantize(pruned, DATA, max_bytes=_size(least) + 8))[name] == 2
    with pytest.raises(OptionError, match="keep_zeros"):
        quantize(pruned, DATA, bits=1)
    quantize(pruned, DATA, bits=1, keep_zeros=False)


def test_blame(net: nn.Module) -> None:
    assert accuracy(net, DATA.val)[0] > 0.9
    assert blame(net, quantize(net, DATA), DATA) == ""
    bad = quantize(net, DATA, layers={"layer3": 1})
    text = blame(net, bad, DATA, fall=-1.0)  # however little it lost
    assert "fell from" in text
    named = text.split("most by ")[1]
    assert named.startswith("layer3 at 1 bit (loss")


def test_blame_of_activations(digits: Dataset) -> None:
    torch.manual_seed(0)
    model = train(
        build("convnet", digits.image_shape, 10, width=0.25), digits, Training(epochs=5, batch=32, lr=4e-3)
    )
    assert "activations" in blame(model, quantize(model, digits, percentile=50), digits)
    assert "at 1 bit" in blame(model, quantize(model, digits, bits=1), digits)


def test_names_of_layers_are_no_patterns() -> None:
    """A name with a bracket in it is taken as it stands."""
    graph, weights = lower(_make("conv, relu"), DATA.image_shape)
    first = next(op for op in graph.ops if op.kind == "conv2d")
    odd = f"{first.name}[0]"
    ops = tuple(
        replace(
            op,
            name=odd if op is first else op.name,
            inputs=tuple(odd if x == first.name else x for x in op.inputs),
        )
        for op in graph.ops
    )
    weights = {name.replace(f"{first.name}.", f"{odd}."): array for name, array in weights.items()}
    twin = quantize(FloatGraph(replace(graph, ops=ops), weights), DATA, max_bytes=10_000)
    assert _bits(twin)[odd] == 8
