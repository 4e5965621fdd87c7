"""Factorisation: what the decompositions keep, what they cost, and what the step makes of whole networks."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.errors import OptionError
from netsuke.lab.carve import carve
from netsuke.lab.cp import als, khatri_rao, rebuilt
from netsuke.lab.forms import Mask, form_of, set_mask
from netsuke.lab.inference import accuracy
from netsuke.lab.lower import lower
from netsuke.lab.lowrank import Factors, Frame, Layer, Ranks, cost
from netsuke.lab.models import MODELS, build
from netsuke.lab.modules import FloatGraph, key
from netsuke.lab.ranks import METHODS, Choice, shared_out
from netsuke.lab.steps.factorise import COSTS, Decision, Factorise, decide, factorise
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
from netsuke.measure.cost import macs, parameters

DATA = blobs((1, 12, 12))
EXACT = ("tucker", "channel", "spatial")


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """A convolution of any shape, stride and padding that fits its map."""
    out, inner = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    window = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding = [draw(st.integers(0, window[axis] - 1)) for axis in (0, 1, 0, 1)]
    stride = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    weight = rng.standard_normal((out, inner, *window)).astype(np.float32)
    bias = rng.standard_normal(out).astype(np.float32)
    frame = Frame(weight.shape, stride, tuple(padding))  # type: ignore[arg-type]
    return Layer(weight, bias, frame, (draw(st.integers(4, 8)), draw(st.integers(4, 8))))


def run(frame: Frame, weight: np.ndarray, bias: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = frame.padding
    x = F.pad(x, (left, right, top, bottom))
    w, b = (torch.from_numpy(np.ascontiguousarray(a, np.float64)) for a in (weight, bias))
    return F.conv2d(x, w, b, frame.stride, groups=frame.groups)


def through(factors: Factors, ranks: Ranks, x: torch.Tensor) -> torch.Tensor:
    frames, arrays = factors.frames(ranks), factors.weights(ranks)
    for i, (frame, array) in enumerate(zip(frames, arrays, strict=True)):
        assert array.shape == frame.shape
        bias = factors.bias(ranks) if i == len(frames) - 1 else np.zeros(len(array))
        x = run(frame, array, bias, x)
    return x


def effective(factors: Factors, ranks: Ranks) -> np.ndarray:
    """The one weight that the product stands for: what it answers to single bright pixels."""
    layer = factors.layer
    out, inner, rows, columns = layer.weight.shape
    plain = Layer(layer.weight, np.zeros(out), Frame(layer.frame.shape), layer.size)
    twin = type(factors)(plain)
    pixels = torch.eye(inner * rows * columns, dtype=torch.float64).reshape(-1, inner, rows, columns)
    return through(twin, ranks, pixels).numpy()[:, :, 0, 0].T.reshape(layer.weight.shape)


@pytest.mark.parametrize("method", EXACT)
@given(layer=layers())
@settings(max_examples=40, deadline=None)
def test_full_rank_is_the_layer(method: str, layer: Layer) -> None:
    factors = METHODS[method](layer)
    *_, full = factors.ranks()
    x = torch.rand(2, layer.weight.shape[1], *layer.size, dtype=torch.float64)
    want = run(layer.frame, layer.weight, layer.bias, x)
    torch.testing.assert_close(through(factors, full, x), want, rtol=1e-6, atol=1e-6)
    assert factors.kept(full) == pytest.approx(1)


@pytest.mark.parametrize("method", EXACT)
@given(layer=layers(), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_kept_is_what_the_product_keeps(method: str, layer: Layer, share: float) -> None:
    """Exactly for one matrix; Tucker's sweeps may find a little more than its singular values promise."""
    factors = METHODS[method](layer)
    every = list(factors.ranks())
    keeps = [factors.kept(r) for r in every]
    assert all(a <= b + 1e-9 for a, b in zip(keeps, keeps[1:]))  # noqa: B905, RUF007
    ranks = every[int(share * (len(every) - 1))]
    kept = 1 - ((effective(factors, ranks) - layer.weight) ** 2).sum() / factors.power
    assert kept >= factors.kept(ranks) - 1e-6
    if method != "tucker":
        assert kept == pytest.approx(factors.kept(ranks), abs=1e-6)


@given(layer=layers(), of=st.sampled_from(COSTS), method=st.sampled_from(sorted(METHODS)))
@settings(max_examples=60, deadline=None)
def test_cost_is_that_of_the_graph(layer: Layer, of: str, method: str) -> None:
    """The same numbers as measure.cost counts on the ops."""
    factors = METHODS[method](layer)
    for ranks in list(factors.ranks())[:3]:
        size, total = layer.size, 0
        for frame, array in zip(factors.frames(ranks), factors.weights(ranks), strict=True):
            size = frame.size(*size)
            assert size == tuple(run(frame, array, np.zeros(len(array)), torch.zeros(
                1, array.shape[1] * frame.groups, *_before(size, frame), dtype=torch.float64)).shape[2:])  # fmt: skip
            total += array.size * prod(size) if of == "macs" else array.size + len(array)
        assert factors.cost(ranks, of) == total * (4 if of == "bytes" else 1)
        assert size == layer.frame.size(*layer.size)


def _before(size: tuple[int, int], frame: Frame) -> list[int]:
    """A map size for which `frame` gives `size`."""
    pads = frame.padding[0] + frame.padding[2], frame.padding[1] + frame.padding[3]
    return [(n - 1) * s + k - p for n, s, k, p in zip(size, frame.stride, frame.shape[2:], pads, strict=True)]


@pytest.mark.parametrize(("shape", "rank"), [((6, 5, 9), 3), ((4, 5, 3, 3), 2), ((8, 7, 6), 5)])
def test_als_finds_a_tensor_of_that_rank(shape: tuple[int, ...], rank: int) -> None:
    rng = np.random.default_rng(0)
    tensor = rebuilt([rng.standard_normal((n, rank)) for n in shape])
    errors = [((tensor - rebuilt(als(tensor, r))) ** 2).sum() / (tensor**2).sum() for r in range(1, rank + 1)]
    assert errors[-1] < 1e-3
    assert all(b < a for a, b in zip(errors, errors[1:]))  # noqa: B905, RUF007
    norms = np.array([np.linalg.norm(f, axis=0) for f in als(tensor, rank)])
    np.testing.assert_allclose(norms / norms.mean(0), 1, rtol=1e-6)


def test_als_of_nothing_is_nothing() -> None:
    assert not rebuilt(als(np.zeros((3, 4, 5)), 2)).any()


def test_khatri_rao_is_the_product_of_columns() -> None:
    a, b = np.arange(6.0).reshape(3, 2), np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(khatri_rao([a, b])[:, 1], np.kron(a[:, 1], b[:, 1]))


@pytest.mark.parametrize("method", ["depthwise", "cp"])
def test_cp_layers_run_as_their_tensor_says(method: str) -> None:
    rng = np.random.default_rng(1)
    frame = Frame((8, 6, 3, 3), (2, 1), (1, 0, 0, 1))
    layer = Layer(rng.standard_normal((8, 6, 3, 3)), rng.standard_normal(8), frame, (7, 7))
    factors = METHODS[method](layer)
    ranks = list(factors.ranks())[4]
    weight = rebuilt(factors.factors(ranks[0])).reshape(8, 6, 3, 3)  # type: ignore[attr-defined]
    x = torch.rand(2, 6, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(through(factors, ranks, x), run(frame, weight, layer.bias, x))
    assert 0 < factors.kept(ranks) < 1


# --- whole networks -----------------------------------------------------------------------------------


class Plain(nn.Module):
    """Three convolutions of chosen windows and a dense layer, wide enough to factorise."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 16, 3, padding=1, stride=2)
        self.c = nn.Conv2d(16, 16, (5, 3), padding=(2, 1))
        self.d = nn.Linear(16 * 36, 24)
        self.e = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.b(F.relu(self.a(x))))
        x = F.relu(self.c(x)).flatten(1)
        return self.e(F.relu(self.d(x)))


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    model = train(Plain(), DATA, Training(epochs=8, batch=16, lr=4e-3))
    assert accuracy(model, DATA.val)[0] > 0.9
    return model


def logits(model: nn.Module, data: Dataset = DATA) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.from_numpy(data.val.images).float() / 255)


def costs(model: nn.Module) -> dict[str, int]:
    graph, tensors = lower(model, DATA.image_shape)
    count = parameters(graph, tensors)
    return {"parameters": count, "macs": sum(macs(graph, tensors).values()), "bytes": 4 * count}


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("of", COSTS[:2])
def test_energy_keeps_logits_and_saves(method: str, of: str, trained: nn.Module) -> None:
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    report: list[Decision] = []
    small = factorise(trained, DATA, method=method, energy=0.9, of=of, report=report)
    assert all(torch.equal(before[k], v) for k, v in trained.state_dict().items())
    assert [d.layer for d in report] == ["a", "b", "c", "d", "e"]
    assert any(d.method for d in report)
    assert all(d.kept >= 0.9 - 1e-6 for d in report)
    assert costs(small)[of] < costs(trained)[of]
    saved = sum(d.before - d.after for d in report)
    assert costs(trained)[of] - costs(small)[of] == saved
    for d in report:
        assert bool(d.method) != bool(d.note)
        assert d.after < d.before if d.method else d.after == d.before


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_nearly_all_of_the_energy_gives_nearly_the_logits(method: str, trained: nn.Module) -> None:
    near = factorise(trained, DATA, method=method, energy=0.999)
    assert (logits(near) - logits(trained)).abs().mean() < 0.1 * logits(trained).std()


@pytest.mark.parametrize("method", ["auto", *EXACT])
def test_all_of_the_energy_leaves_the_net_as_it_is(method: str, trained: nn.Module) -> None:
    same = factorise(trained, DATA, method=method, energy=1.0)
    torch.testing.assert_close(logits(same), logits(trained), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["auto", *EXACT])
def test_a_layer_of_low_rank_is_replaced_exactly(method: str, trained: nn.Module) -> None:
    """The network of rank 3 that comes out of a first run is found again at energy 1."""
    low = factorise(trained, DATA, method=method, energy=0.5, layers=("c", "d"))
    torch.manual_seed(0)
    full = Plain().eval()
    with torch.no_grad():
        for name, layer in full.named_children():
            layer.load_state_dict(getattr(trained, name).state_dict())
        rng = torch.Generator().manual_seed(0)
        full.d.weight.copy_(torch.randn(24, 3, generator=rng) @ torch.randn(3, 16 * 36, generator=rng) / 50)
        core = torch.randn(4, 3, 5, 3, generator=rng)
        if method == "spatial":
            core = torch.einsum("orx,riy->oiyx", core[:, :2, 0], core[:2, :, :, 0])
        a, b = torch.randn(16, core.shape[0], generator=rng), torch.randn(core.shape[1], 16, generator=rng)
        full.c.weight.copy_(torch.einsum("op,pqyx,qi->oiyx", a, core, b) / 20)
    got = factorise(full, DATA, method=method, energy=1.0)
    assert costs(got)["parameters"] < costs(full)["parameters"] - 10_000
    assert {"c_a", "d_a"} <= {op.name for op in got.graph.ops}
    torch.testing.assert_close(logits(got), logits(full), rtol=1e-3, atol=1e-3)
    assert costs(low)["parameters"] < costs(trained)["parameters"]


@pytest.mark.parametrize("of", COSTS)
@pytest.mark.parametrize("amount", [0.2, 0.5, 0.8])
def test_amount_and_budget_are_met(of: str, amount: float, trained: nn.Module) -> None:
    whole = costs(trained)[of]
    small = factorise(trained, DATA, amount=amount, of=of)
    got = costs(small)[of]
    assert 0.8 * whole * (1 - amount) - 200 < got <= whole * (1 - amount)
    again = factorise(trained, DATA, budget=int(whole * (1 - amount)), of=of)
    assert costs(again)[of] == got


def test_shared_out_is_the_best_there_is() -> None:
    """Against all combinations, on hulls small enough to try them."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        choices = {}
        for name in "xyz":
            points = sorted(rng.integers(1, 60, 4).tolist())
            kept = np.sort(rng.random(4))
            choices[name] = [Choice(c, float(k)) for c, k in zip(points, kept, strict=True)]
        limit = int(rng.integers(sum(c[0].cost for c in choices.values()), 181))
        got = shared_out(choices, limit, 0, "parameters")
        assert sum(c.cost for c in got.values()) <= limit
        value = sum(c.kept for c in got.values())
        every = [
            sum(c.kept for c in (a, b, d))
            for a in choices["x"] for b in choices["y"] for d in choices["z"]
            if a.cost + b.cost + d.cost <= limit
        ]  # fmt: skip
        assert value >= max(every) - 1.0  # at most one step short of the best, of whatever size


def test_data_aware_keeps_more_of_the_outputs(trained: nn.Module) -> None:
    """At equal ranks, the outputs of the layer on data are nearer than with the weight's own decomposition."""
    x = torch.from_numpy(DATA.train.images).float() / 255
    graph, weights = lower(trained, DATA.image_shape)
    values = FloatGraph(graph, weights).activations(x)
    rows = values["d"].detach().double().numpy()
    frame = Frame((24, 16 * 36, 1, 1))
    plain = Layer(weights["d.weight"][:, :, None, None], weights["d.bias"], frame)
    aware = replace(plain, mean=rows.mean(0), covariance=np.cov(rows.T, bias=True))
    inputs = values["flatten"].detach().double()[:, :, None, None]
    for rank in (2, 6):
        errors = []
        for layer in (plain, aware):
            got = through(METHODS["channel"](layer), (rank,), inputs)[:, :, 0, 0].numpy()
            errors.append(((got - rows) ** 2).sum())
        assert errors[1] < errors[0]
        kept = METHODS["channel"](aware).kept((rank,))
        assert 1 - errors[1] / ((rows - rows.mean(0)) ** 2).sum() == pytest.approx(kept, abs=1e-3)
    small = factorise(trained, DATA, aware=True, samples=len(x), energy=0.95, layers=("d",))
    error = (small.activations(x)["d"] - values["d"]).square().sum() / (
        values["d"] - values["d"].mean(0)
    ).square().sum()
    assert error < 0.05 + 1e-3


SLOW = ("mobilenet_v1", "mobilenet_v3_large", "ghostnet", "resnet34", "efficientnet_b0", "vgg16", "vgg16_bn")


@pytest.mark.parametrize(
    "name", [pytest.param(m, marks=[pytest.mark.slow] if m in SLOW else []) for m in MODELS]
)
def test_every_architecture(name: str) -> None:
    """Applies, is the same net at nearly all of the energy, costs less at 0.8 where a layer took it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (8, 1, 32, 32), np.uint8)
    split = Split(images, np.arange(8) % 4)
    data = Dataset("noise", ("a", "b", "c", "d"), split, split, split, "noise", "none", "any")
    options = {"width": 0.25} if name.startswith(("vgg", "alexnet", "resnet")) else {}
    model = build(name, (1, 32, 32), 4, **options).eval()
    want = logits(model, data)
    near = factorise(model, data, method="tucker", energy=0.9999)
    error = (logits(near, data) - want).abs().max() / want.abs().max().clamp(min=1e-3)
    assert error < 0.1
    report: list[Decision] = []
    small = factorise(model, data, method="tucker", energy=0.8, report=report)
    split_up = [d for d in report if d.method]
    graph, tensors = small.to_graph()
    before = lower(model, (1, 32, 32))
    assert torch.isfinite(logits(small, data)).all()
    assert (parameters(graph, tensors) < parameters(*before)) == bool(split_up)
    assert sum(macs(graph, tensors).values()) <= 1.2 * sum(
        macs(*before).values()
    )  # parameters were asked for
    grouped = [op.name for op in before[0].ops if op.kind == "conv2d" and op.attrs["groups"] > 1]
    assert {d.layer for d in report if "groups" in d.note} == set(grouped)


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_result_trains_quantises_exports_and_reloads(method: str, trained: nn.Module, tmp_path: Path) -> None:
    options = Factorise(method=method, energy=0.6, training=Training(epochs=4, batch=16, lr=3e-3))
    history: list[dict[str, float]] = []
    small = factorise(trained, DATA, options, history=history)
    assert len(history) == 4
    assert accuracy(small, DATA.val)[0] > 0.85
    for model in (small, quantize(small, DATA, bits=8)):
        artifact = carve(model, DATA, recipe={}, seed=0)
        artifact.save(tmp_path / "small.netsuke")
        again = Artifact.load(tmp_path / "small.netsuke")
        np.testing.assert_array_equal(again.logits(DATA.val.images), artifact.logits(DATA.val.images))
        pytest.importorskip("onnxruntime")
        from netsuke.engine import Engine

        got = Engine(again, backend="onnxruntime").run(DATA.val.images)
        if again.graph.integer:
            np.testing.assert_array_equal(got, again.logits(DATA.val.images))
            agree = (got.argmax(1) == logits(small).numpy().argmax(1)).mean()
            assert agree > 0.8
        else:
            np.testing.assert_allclose(got, again.logits(DATA.val.images), rtol=1e-3, atol=1e-3)


def test_integer_c_of_factorised_layers_is_exact(trained: nn.Module, tmp_path: Path) -> None:
    from netsuke.export import TARGETS

    small = factorise(trained, DATA, method="cp", energy=0.5)
    artifact = carve(quantize(small, DATA, bits=8), DATA, recipe={}, seed=0)
    target = TARGETS["c"]
    got = target.run(target.write(artifact, tmp_path, "small"), DATA.val.images)
    np.testing.assert_array_equal(got, artifact.logits(DATA.val.images))


def test_names_do_not_clash(trained: nn.Module) -> None:
    once = factorise(trained, DATA, energy=0.95, layers=("d",))
    twice = factorise(once, DATA, energy=0.5, layers=("d", "d_a"))
    names = [op.name for op in twice.graph.ops]
    assert len(names) == len(set(names))
    assert {"d", "d_a"} <= set(names)
    assert len(names) > len(once.graph.ops)
    assert torch.isfinite(logits(twice)).all()


def test_pruned_weights_of_other_layers_stay_pruned(trained: nn.Module) -> None:
    start = FloatGraph(*lower(trained, DATA.image_shape))
    for name in ("b", "d"):
        layer = start.layers[key(name)]
        set_mask(layer, torch.rand(layer.weight.shape) > 0.5)  # type: ignore
    zeros = start.layers["b"].weight == 0  # type: ignore
    small = factorise(start, DATA, energy=0.7, layers=("d",), training=Training(epochs=2, batch=16))
    assert {op.name for op in small.graph.ops} >= {"d_a", "d"}
    assert form_of(small.layers["b"], Mask)
    assert bool((small.layers["b"].weight[zeros] == 0).all())  # type: ignore
    assert form_of(small.layers["d"], Mask) is None


def test_decide_tells_without_doing(trained: nn.Module) -> None:
    report: list[Decision] = []
    options = Factorise(energy=0.7)
    factorise(trained, DATA, options, report=report)
    assert decide(trained, DATA, options) == report


def test_errors(trained: nn.Module) -> None:
    for options, match in (
        ({"method": "qr"}, "no method 'qr'; there are auto, tucker"),
        ({"of": "watts"}, "no of 'watts'; there are parameters, macs, bytes"),
        ({"energy": 0.0}, "energy must be above 0"),
        ({"amount": 1.0}, "amount must be in"),
        ({"amount": 0.5, "budget": 10}, "not both"),
        ({"budget": -1}, "budget must be at least 0"),
    ):
        with pytest.raises(OptionError, match=match):
            Factorise(**options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'nowhere' matches no layer; there are a, b, c, d, e"):
        factorise(trained, DATA, layers=("nowhere",))
    with pytest.raises(OptionError, match="cannot reach 10 parameters: at the lowest ranks"):
        factorise(trained, DATA, budget=10)
    assert cost([Frame((2, 3, 1, 1))], (1, 1), "bytes") == 4 * 8
