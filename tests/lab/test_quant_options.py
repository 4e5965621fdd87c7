"""Every option of quantisation, alone and with the others: what trains is what is stored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lab.test_quantize import DATA, IMAGES, _make, assert_equal
from netsuke import packing
from netsuke.errors import OptionError
from netsuke.export import c
from netsuke.graph import Op
from netsuke.lab.calibrate import CALIBRATORS
from netsuke.lab.carve import carve
from netsuke.lab.inference import logits, tensors
from netsuke.lab.integers import STEPS, Widths, in_steps, steps, weight_limit
from netsuke.lab.lower import lower
from netsuke.lab.modules import FloatGraph, key
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.quantlayers import QuantLayer, QuantLogits
from netsuke.lab.steps.quantize import Quantize, quantize
from netsuke.lab.steps.train import Training, train

NETS = (
    "conv, relu",
    "signed residual",
    "hidden dense layers",
    "channel gate",
    "slopes of channels",
    "separable",
)
SHORT = Training(epochs=1, batch=32, lr=1e-2, freeze_norm=0.5)


def _pruned(name: str, share: float = 0.5) -> FloatGraph:
    """A network without the smallest weights of each layer."""
    graph, weights = lower(_make(name), DATA.image_shape)
    for tensor, (_, role) in graph.roles().items():
        if role == "weight":
            w = weights[tensor]
            w[np.abs(w) < np.quantile(np.abs(w), share)] = 0
    return FloatGraph(graph, weights)


def _stored(twin: nn.Module) -> dict[str, tuple[int, np.ndarray]]:
    """Width and integer weights of each layer of the artifact."""
    graph, arrays = lower(twin.eval(), DATA.image_shape)
    return {
        op.name: (op.attrs["bits"], arrays[op.tensor("weight")]) for op in graph.ops if "bits" in op.attrs
    }


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(NETS),
    pruned=st.booleans(),
    trains=st.booleans(),
    widths=st.lists(st.integers(2, 8), min_size=4, max_size=4),
    options=st.fixed_dictionaries(
        {
            "bias_bits": st.sampled_from([8, 16, 32]),
            "clip": st.booleans(),
            "calibrator": st.sampled_from(["percentile", "minmax", "mse"]),
            "bias_correction": st.booleans(),
            "equalise": st.booleans(),
            "steps": st.sampled_from(STEPS),
            "keep_zeros": st.booleans(),
        }
    ),
)
def test_the_artifact_is_the_module(
    name: str, pruned: bool, trains: bool, widths: list[int], options: dict[str, Any]
) -> None:
    model: nn.Module = _pruned(name) if pruned else _make(name)
    graph, _ = lower(model, DATA.image_shape)
    names = [op.name for op in graph.ops if op.kind in ("conv2d", "dense")]
    layers = dict(zip(names, widths * 3, strict=False))
    training = SHORT if trains else Training(epochs=0)
    twin = quantize(model, DATA, Quantize(layers=layers, training=training, **options))
    assert_equal(twin, IMAGES)
    stored = _stored(twin)
    for op_name, (bits, weight) in stored.items():
        assert bits == layers[op_name]
        assert np.abs(weight).max() <= weight_limit(bits)
    if options["bias_bits"] == 8:
        rows = packing.stored(*lower(twin, DATA.image_shape))
        assert all(row.bits == 8 for row in rows if row.tensor.endswith(".bias"))


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_every_calibrator_says_what_the_floats_say(calibrator: str) -> None:
    model = _make("lenet5")
    twin = quantize(model, DATA, calibrator=calibrator)
    raw = torch.from_numpy(DATA.train.images)
    assert np.corrcoef(logits(twin, raw).flatten(), logits(model, raw).flatten())[0, 1] > 0.98


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler: apt install gcc")
@pytest.mark.parametrize("name", ["separable", "hidden dense layers", "signed residual"])
def test_mixed_widths_in_c(name: str, tmp_path: Path) -> None:
    model = _make(name)
    names = [op.name for op in lower(model, DATA.image_shape)[0].ops if op.kind in ("conv2d", "dense")]
    layers = {op: (1, 3, 8, 2, 5)[i % 5] for i, op in enumerate(names)}
    twin = quantize(model, DATA, layers=layers, bias_bits=8, training=SHORT)
    artifact = carve(twin, DATA, recipe={}, seed=0)
    assert {op: bits for op, (bits, _) in _stored(twin).items()} == layers
    got = c.run(c.write(artifact, tmp_path), IMAGES)
    np.testing.assert_array_equal(got, artifact.logits(IMAGES))


def test_the_last_pattern_that_matches_counts() -> None:
    widths = Widths(6, layers={"conv*": 4, "conv2": 3, "*3": 2})
    assert [widths.of(name) for name in ("conv1", "conv2", "conv3", "fc")] == [4, 3, 2, 6]
    with pytest.raises(OptionError, match=r"no layer is called 'fc\*'; there are"):
        quantize(_make("separable"), DATA, layers={"fc*": 4})


@pytest.mark.parametrize(("bits", "values"), [(2, {-1, 0, 1}), (1, {-1, 1})])
@pytest.mark.parametrize("kind", STEPS)
def test_ternary_has_three_values_and_binary_two(bits: int, values: set[int], kind: str) -> None:
    twin = quantize(_make("lenet5"), DATA, bits=bits, steps=kind, training=SHORT)
    for _, weight in _stored(twin).values():
        assert set(np.unique(weight).tolist()) == values


# --- pruned weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STEPS)
def test_pruned_weights_stay_zero_in_training(kind: str) -> None:
    model = _pruned("lenet5", 0.7)
    graph, weights = lower(model, DATA.image_shape)
    zero = {op.name: weights[op.tensor("weight")] == 0 for op in graph.ops if op.kind in ("conv2d", "dense")}
    kept = quantize(model, DATA, bits=4, steps=kind, training=SHORT)
    for name, (_, weight) in _stored(kept).items():
        assert not weight[zero[name]].any()
        assert weight[~zero[name]].any()
    free = quantize(model, DATA, bits=4, steps=kind, training=SHORT, keep_zeros=False)
    assert any(weight[zero[name]].any() for name, (_, weight) in _stored(free).items())


def test_a_chance_zero_is_not_pruned_and_a_silent_layer_may_wake() -> None:
    op, widths = Op("qdense", "d", ("x",), {"signed": True}), Widths()
    one = torch.randn(20, 20)
    one[0, 0] = 0
    for weight in (one, torch.zeros(4, 4)):
        layer = QuantLayer(op, weight, widths, 127.0)
        assert isinstance(layer.weight, nn.Parameter)
    with pytest.raises(OptionError, match="one bit has no zero"):
        QuantLayer(op, torch.eye(20), Widths(1), 127.0)


# --- learned steps ----------------------------------------------------------------------------------------


def test_every_step_learns() -> None:
    twin = quantize(_make("lenet5"), DATA, bits=3, steps="learned", clip=False).train()
    before = {name: p.detach().clone() for name, p in twin.named_parameters() if name.endswith("logarithm")}
    images, labels = tensors(DATA.train)
    nn.functional.cross_entropy(twin(images.float() / 255), labels).backward()
    for name, p in twin.named_parameters():
        if name in before:
            assert p.grad is not None
            assert p.grad.abs().max() > 0
    assert len(before) == 5
    trained = train(twin, DATA, SHORT)
    after = dict(trained.named_parameters())
    assert all((after[name] != value).any() for name, value in before.items())
    assert_equal(trained, IMAGES)


def test_the_gradient_is_the_papers() -> None:
    """Esser et al.: q - w/s inside the range, the limit beyond it; times the gradient of the weight that is used."""
    torch.manual_seed(3)
    op = Op("qdense", "d", ("x",), {"signed": True})
    layer = QuantLayer(op, torch.randn(5, 40), Widths(3, steps="learned"), 127.0).train()
    assert layer.logarithm is not None
    x, loss = torch.randint(0, 128, (64, 40)).float(), torch.randn(64, 5)
    weight = layer.integers()
    weight.retain_grad()
    z = layer._normed(layer.sums(x, weight))
    (z.sin() * loss).sum().backward()
    used = weight.grad / layer.step().detach()[:, None]  # type: ignore[operator]
    real = (layer.weight / layer.step()[:, None]).detach()
    inside = real.abs() < weight_limit(3)
    assert 0 < (~inside).sum() < inside.sum()
    want = (used * torch.where(inside, weight.detach() - real, weight.detach())).sum(
        1
    ) * layer.step().detach()
    scale = 1 / np.sqrt(40 * weight_limit(3))
    torch.testing.assert_close(layer.logarithm.grad, want * scale, rtol=1e-3, atol=1e-4)


def test_learned_logits_keep_their_real_value() -> None:
    """No norm follows the last layer: its unit moves with its step."""
    op = Op("qlogits", "d", ("x",), {})
    torch.manual_seed(4)
    layer = QuantLogits(op, torch.randn(4, 30), torch.zeros(4), Widths(8, steps="learned"), 0.5)
    x = torch.randint(0, 128, (9, 30)).float()
    with torch.no_grad():
        before = layer.eval()(x)
        assert layer.logarithm is not None
        layer.logarithm += 0.2
        assert before.abs().max() > 200
        torch.testing.assert_close(layer(x), before, rtol=0.02, atol=8.0)


def test_learned_steps_start_where_the_others_stand() -> None:
    model = _make("separable")
    a, b = (logits(quantize(model, DATA, bits=4, steps=kind), torch.from_numpy(IMAGES)) for kind in STEPS)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    weight = torch.randn(6, 9)
    step = steps(weight, 4, torch.ones(6))
    assert (in_steps(weight, 4, step).abs().amax(1) == 7).all()


def test_a_checkpoint_holds_the_steps(tmp_path: Path) -> None:
    options = Quantize(bits=3, steps="learned", training=SHORT)
    rows: list[dict[str, float]] = []
    first = quantize(_pruned("lenet5"), DATA, options, work=tmp_path, history=rows)
    assert len(rows) == 1
    resumed: list[bool] = []
    again = quantize(
        _pruned("lenet5"), DATA, options, work=tmp_path, progress=lambda done, info, old: resumed.append(old)
    )
    assert resumed == [True]
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())


# --- bias correction --------------------------------------------------------------------------------------


def _shifts(model: nn.Module, twin: QuantGraph) -> dict[str, float]:
    """How far the mean of each layer's real sums is from the float network's, in shares of their deviation."""
    images = tensors(DATA.train)[0].float() / 255
    graph, weights = lower(model, DATA.image_shape)
    values, found = FloatGraph(graph, weights).activations(images), {}
    x = {"input": images}
    with torch.no_grad():
        for op in twin.eval().plan:
            inputs = [x[name] for name in op.inputs]
            layer = dict(twin.layers).get(key(op.name))
            if isinstance(layer, QuantLayer):
                weight, bias, factor, _, _ = layer.stored()
                axes = (1, -1, *[1] * (inputs[0].ndim - 2))
                real = (
                    (layer.sums(inputs[0], weight) + bias.reshape(axes)) * factor.reshape(axes) / layer.unit
                )
            elif isinstance(layer, QuantLogits):
                real = layer(inputs[0])
            x[op.name] = twin.step(op, inputs)
            if isinstance(layer, QuantLayer | QuantLogits):
                want = values[op.name].transpose(0, 1).flatten(1)
                got = real.transpose(0, 1).flatten(1)
                found[op.name] = (
                    ((got.mean(1) - want.mean(1)).abs() / want.std(1).clamp(min=1e-6)).mean().item()
                )
    return found


@pytest.mark.parametrize("name", ["lenet5", "separable", "hidden dense layers"])
def test_bias_correction_takes_the_shift_back(name: str) -> None:
    model = _make(name)
    plain, corrected = (
        _shifts(model, quantize(model, DATA, bits=2, bias_correction=on)) for on in (False, True)
    )
    assert len(plain) > 2
    for layer, shift in corrected.items():
        assert shift < 0.1 * max(plain.values()) + 0.01, layer
    assert max(plain.values()) > 0.1


# --- the options themselves -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"layers": {"a": 9}}, "1 to 8 bits; got 9"),
        ({"calibrator": "best"}, "percentile, minmax, mse, kl"),
        ({"steps": "lsq"}, "follow, learned"),
        ({"calibration": 0}, "at least 1 image"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"bias_bits": 4}, "8, 16 or 32"),
    ],
    ids=str,
)
def test_options_are_checked_before_anything_runs(options: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        Quantize(**options)


def test_clipping_is_for_what_does_not_train() -> None:
    assert Quantize().widths().clip
    assert not Quantize(training=SHORT).widths().clip
    assert Quantize(training=SHORT, steps="learned").widths().clip


def test_changes_override_options() -> None:
    base = Quantize(bits=3, bias_bits=16)
    twin = quantize(_make("lenet5"), DATA, base, bits=5)
    assert {bits for bits, _ in _stored(twin).values()} == {5}
