"""Quantisation: the trainable twin is the integer graph, bit for bit, and loses little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lab.sets import blobs
from netsuke import kernels
from netsuke.data import Dataset
from netsuke.errors import DataError, OptionError, UnsupportedOp
from netsuke.graph import INT32_MAX
from netsuke.lab.inference import accuracy, logits, recalibrate
from netsuke.lab.integers import BIAS_MAX, Outcome, bias_shift, multipliers, whole_biases
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.models.blocks import CBAM, SqueezeExcitation
from netsuke.lab.steps.quantize import calibrated, quantize
from netsuke.lab.steps.train import Training, train

DATA = blobs((1, 16, 16))
PLAIN = ("lenet5", "convnet", "separable")  # test_models has all the others


class Calls(nn.Module):
    """A forward given as a function of (self, x), with a few layers to call."""

    def __init__(self, call: Callable[[Calls, Tensor], Tensor], classes: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(8)
        self.cut = nn.Conv2d(8, 6, (4, 3), stride=2, padding="valid")
        self.lop = nn.Conv2d(8, 8, 4, padding="same")
        self.head = nn.Linear(8, classes)
        self.hidden = nn.Linear(6 * 7 * 7, 9)
        self.point = nn.Conv2d(8, 8, 1)
        self.slopes = nn.PReLU(8)
        self.slopes.weight.data = torch.linspace(-0.5, 1.5, 8)
        self.last = nn.Linear(9, classes)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def _tail(m: Calls, y: Tensor) -> Tensor:
    return m.head(y.mean((2, 3)))


PATTERNS: dict[str, Callable[[Calls, Tensor], Tensor]] = {
    "conv, relu": lambda m, x: _tail(m, torch.relu(m.stem(x))),
    "relu6 and a signed end": lambda m, x: _tail(m, m.deep(nn.functional.relu6(m.stem(x)))),
    "asymmetric padding": lambda m, x: _tail(m, torch.relu(m.lop(m.stem(x)))),
    "signed residual": lambda m, x: _tail(m, torch.relu(m.norm(m.deep(torch.relu(m.stem(x)))) + m.stem(x))),
    "residual without relu": lambda m, x: _tail(m, m.deep(torch.relu(m.stem(x))) + torch.relu(m.stem(x))),
    "chain of sums": lambda m, x: _tail(m, _twice(m, torch.relu(m.stem(x)))),
    "hidden dense layers": lambda m, x: m.last(torch.relu(m.hidden(torch.relu(m.cut(m.stem(x))).flatten(1)))),
    "signed hidden layer": lambda m, x: m.last(m.hidden(m.cut(m.stem(x)).flatten(1))),
    "relu of a signed map that others read": lambda m, x: _tail(m, _beside(m.stem(x), torch.relu)),
    "relu6 of a signed map that others read": lambda m, x: _tail(m, _beside(m.stem(x), F.relu6)),
    "slopes of channels": lambda m, x: _tail(m, m.slopes(m.stem(x))),
    "slopes of a vector": lambda m, x: m.head(m.slopes(m.stem(x).mean((2, 3)))),
    "channel gate": lambda m, x: _tail(m, _gated(m, m.stem(x))),
    "unsigned channel gate": lambda m, x: _tail(m, _gated(m, torch.relu(m.stem(x)))),
    "pixel gate": lambda m, x: _tail(m, _seen(torch.relu(m.stem(x)))),
    "signed gate": lambda m, x: _tail(m, torch.tanh(m.stem(x)) * m.deep(m.stem(x))),
    "unsigned beside signed": lambda m, x: _tail(
        m, m.deep(torch.cat([torch.relu(m.stem(x))[:, 2:6], m.stem(x)[:, :4]], 1))
    ),
    "parts": lambda m, x: _tail(m, _split(m, torch.relu(m.stem(x)))),
    "mean of channels": lambda m, x: _tail(m, m.stem(x) * m.deep(m.stem(x)).mean(1, keepdim=True)),
    "pooled twice": lambda m, x: m.head(_pools(m.stem(x))),
    "pixels beside features": lambda m, x: _tail(m, m.deep(_doubled(torch.cat([x, m.stem(x)[:, :3]], 1)))),
}


def _beside(y: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    return f(y) + y


def _gated(m: Calls, y: Tensor) -> Tensor:
    return y * torch.sigmoid(m.point(F.adaptive_avg_pool2d(y, 1)))


def _seen(y: Tensor) -> Tensor:
    return y * torch.sigmoid(y.mean(1, keepdim=True) + y.amax(1, keepdim=True))


def _split(m: Calls, y: Tensor) -> Tensor:
    a, b = y.chunk(2, 1)
    return torch.cat([b, m.deep(torch.cat([b, a], 1)), a], 1)[:, 2:10]


def _pools(y: Tensor) -> Tensor:
    return F.silu(F.adaptive_avg_pool2d(y, 1)).flatten(1) + F.adaptive_avg_pool2d(torch.relu(y), 1).flatten(1)


def _doubled(y: Tensor) -> Tensor:
    return torch.cat([y, y], 1)


def _twice(m: Calls, y: Tensor) -> Tensor:
    y = y + torch.relu(m.deep(y))
    return y + torch.relu(m.norm(m.deep(y)))


def pooled(*layers: nn.Module) -> nn.Sequential:
    """Layers between a stem and a head."""
    body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), *layers, nn.Flatten())
    return nn.Sequential(*body, nn.Linear(body(torch.zeros(2, 1, 16, 16)).shape[1], 4))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv, pool, relu": lambda: pooled(nn.MaxPool2d(2), nn.ReLU()),
    "conv, norm, pool, relu6": lambda: pooled(nn.BatchNorm2d(6), nn.MaxPool2d(3, 2), nn.ReLU6()),
    "padded pool of signed values": lambda: pooled(nn.MaxPool2d(3, 2, padding=1)),
    "average 2x2": lambda: pooled(nn.ReLU(), nn.AvgPool2d(2)),
    "average 3x3": lambda: pooled(nn.ReLU(), nn.AvgPool2d(3, 2)),
    "average 3x5, signed": lambda: pooled(nn.AvgPool2d((3, 5))),
    "average, relu": lambda: pooled(nn.ReLU(), nn.AvgPool2d(4), nn.ReLU()),
    "padded average": lambda: pooled(nn.ReLU(), nn.AvgPool2d(3, 2, padding=1)),
    "padded average, signed": lambda: pooled(nn.AvgPool2d((2, 3), 2, padding=(1, 0))),
    "whole average": lambda: pooled(nn.ReLU(), nn.AvgPool2d(16)),
    "ceiling pool, relu": lambda: pooled(nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU()),
    "peak of the map": lambda: pooled(nn.AdaptiveMaxPool2d(1)),
    "shuffle": lambda: pooled(nn.ChannelShuffle(3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2)),
    "squeeze and excitation": lambda: pooled(nn.ReLU(), SqueezeExcitation(6, 3)),
    "hard squeeze and excitation": lambda: pooled(SqueezeExcitation(6, 3, "silu", "hardsigmoid")),
    "cbam": lambda: pooled(nn.ReLU(), CBAM(6, 3), nn.ReLU()),
    **{
        type(act).__name__: lambda act=act: pooled(act, nn.Conv2d(6, 6, 3), act)
        for act in (
            nn.LeakyReLU(-0.3),
            nn.PReLU(),
            nn.SiLU(),
            nn.Hardswish(),
            nn.Hardsigmoid(),
            nn.Sigmoid(),
            nn.Tanh(),
        )
    },
    "strided depthwise": lambda: pooled(nn.ReLU(), nn.Conv2d(6, 12, 5, 2, padding=2, groups=6), nn.ReLU()),
}


def _make(name: str) -> nn.Module:
    torch.manual_seed(11)
    if name in PLAIN:
        model = build(name, DATA.image_shape, 4, **({"width": 10} if name == "separable" else {}))
    else:
        model = LAYERS[name]() if name in LAYERS else Calls(PATTERNS[name])
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):  # both signs of slope, as training may leave them
            norm.weight.data.uniform_(-1.5, 1.5)
            norm.bias.data.normal_(0, 0.3)
            norm.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
    return model.eval()


def assert_equal(twin: nn.Module, images: np.ndarray) -> None:
    """The twin's real logits are the graph's integers times its scale, up to what float32 can say."""
    graph, tensors = lower(twin, images.shape[1:])
    assert graph.integer
    want = kernels.run(graph, tensors, images)
    assert len(np.unique(want)) > 2
    got = logits(twin, torch.from_numpy(images)).double().numpy() / graph.ops[-1].attrs.get("scale", 1.0)
    np.testing.assert_allclose(got, want, rtol=2.0**-22, atol=0.05)


IMAGES = np.concatenate(
    [DATA.test.images, np.random.default_rng(5).integers(0, 256, (40, 1, 16, 16), np.uint8)]
)


@pytest.mark.parametrize("bits", [8, 4, 1])
@pytest.mark.parametrize("name", [*PLAIN, *PATTERNS, *LAYERS])
def test_twin_equals_the_integer_graph(name: str, bits: int) -> None:
    model = _make(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = quantize(model, DATA, bits=bits, bias_bits={8: 32, 4: 16, 1: 8}[bits])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert_equal(twin, IMAGES)
    if bits == 8:
        raw = torch.from_numpy(DATA.train.images)
        near = np.corrcoef(logits(twin, raw).flatten(), logits(model, raw).flatten())[0, 1]
        assert near > 0.98, "eight bits say what the floats say"
    trained = train(twin, DATA, Training(epochs=1, batch=16, lr=5e-3, freeze_norm=0.5, ema=0.5))
    assert_equal(trained, IMAGES)
    graph, tensors = lower(trained, DATA.image_shape)
    limit = max(1, (1 << (bits - 1)) - 1)
    for tensor, (op, role) in graph.roles().items():
        if role == "weight":
            assert np.abs(tensors[tensor]).max() <= limit
            assert next(o for o in graph.ops if o.name == op).attrs["bits"] == bits


@pytest.mark.parametrize("name", [*PLAIN, "slopes of channels"])
def test_reloaded_checkpoint_is_the_same_graph(name: str) -> None:
    """What `train` keeps in a checkpoint is all that a twin has learnt."""
    first = train(quantize(_make(name), DATA, bits=4), DATA, Training(epochs=1, batch=32))
    second = quantize(_make(name), DATA, bits=4)
    second.load_state_dict(first.state_dict())
    a, b = (kernels.run(*lower(twin.eval(), DATA.image_shape), IMAGES) for twin in (first, second))
    np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Module:
    torch.manual_seed(0)
    model = build("convnet", digits.image_shape, 10, width=0.25, norm=True, dropout=0.1)
    return train(model, digits, Training(epochs=8, batch=32, lr=4e-3))


def _all(data: Dataset) -> Dataset:
    """Every image for measuring: what quantisation loses does not depend on the split."""
    parts = (data.train, data.val, data.test)
    whole = type(data.test)(
        *(np.concatenate([getattr(p, key) for p in parts]) for key in ("images", "labels"))
    )
    return replace(data, test=whole)


def test_eight_bits_after_training_lose_less_than_a_point(digits: Dataset, trained: nn.Module) -> None:
    every = _all(digits).test
    floating = accuracy(trained, every)[0]
    assert floating > 0.95
    assert accuracy(quantize(trained, digits), every)[0] > floating - 0.01


def test_training_recovers_what_few_bits_lose(digits: Dataset, trained: nn.Module) -> None:
    floating = accuracy(trained, digits.test)[0]
    twin = quantize(trained, digits, bits=2)
    after = train(twin, digits, Training(epochs=4, batch=32, lr=3e-3, schedule="cosine", freeze_norm=0.8))
    assert accuracy(after, digits.val)[0] > max(accuracy(twin, digits.val)[0], floating - 0.05)


def test_probabilities_keep_their_scale(digits: Dataset, trained: nn.Module) -> None:
    """The scale of the last op turns integer logits into the float model's."""
    images = torch.from_numpy(digits.test.images)
    want, got = logits(trained, images), logits(quantize(trained, digits), images)
    assert (want - got).abs().mean() < 0.05 * want.abs().mean()


def test_sixteen_bit_biases_fit() -> None:
    twin = quantize(_make("convnet"), DATA, bits=4, bias_bits=16)
    graph, tensors = lower(twin, DATA.image_shape)
    kinds = {op.name: op.kind for op in graph.ops}
    biases = [
        tensors[n] for n, (op, role) in graph.roles().items() if role == "bias" and kinds[op] != "qlogits"
    ]
    assert biases
    assert all(np.abs(bias).max() < 1 << 15 for bias in biases)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"bits": 0}, "1 to 8"),
        ({"bits": 9}, "9"),
        ({"bias_bits": 12}, "8, 16 or 32"),
        ({"percentile": 101}, "101"),
    ],
    ids=str,
)
def test_errors_name_the_option(options: dict, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        quantize(_make("convnet"), DATA, **options)


def test_network_that_ends_on_features() -> None:
    """Without a dense layer at the end the logits are the sums themselves."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert_equal(quantize(model, DATA), IMAGES)


def test_nothing_to_calibrate_on() -> None:
    part = DATA.train
    empty = replace(DATA, train=type(part)(part.images[:0], part.labels[:0]), absent="none here")
    with pytest.raises(DataError, match="none here"):
        quantize(_make("convnet"), empty)


@settings(max_examples=300)
@given(
    gains=st.lists(st.floats(2.0**-23, 8, width=32), min_size=1, max_size=6),
    reach=st.lists(st.floats(1, 2.0**30), min_size=6, max_size=6),
)
def test_multipliers(gains: list[float], reach: list[float]) -> None:
    """One byte, no overflow, and no other shift with a smaller relative error."""
    bounds = [int(r) for r in reach[: len(gains)]]
    # A sum that its gain alone takes out of int32 is no activation.
    assume(all(bound * max(gains) < 2**29 for bound in bounds))
    m, shift = multipliers(torch.tensor(gains), torch.tensor(bounds, dtype=torch.float32))
    assert 0 <= shift <= 14
    for gain, bound, value in zip(gains, bounds, m.tolist(), strict=True):
        assert value == int(value)
        assert 0 <= value <= 255
        assert bound * int(value) + ((1 << shift) >> 1) <= INT32_MAX
        # Else the channel is cut, for the good of the others or to stay within int32.
        if value < 255 and bound * (value + 1) < INT32_MAX * 0.999:
            assert abs(value / 2**shift - gain) <= (0.5 + 1e-4) / 2**shift
        if 0 < value < 255 and bound * (value + 1) < INT32_MAX * 0.999:
            assert abs(value / 2**shift / gain - 1) <= 1 / (2 * value - 1) + 1e-6

    def error(s: int) -> float:
        each = [min(255, round(gain * 2**s)) for gain in gains]
        if any(bound * value + 2**s >= INT32_MAX * 0.999 for bound, value in zip(bounds, each, strict=True)):
            return float("inf")
        return sum((value / 2**s / gain - 1) ** 2 for value, gain in zip(each, gains, strict=True))

    got = sum((value / 2**shift / gain - 1) ** 2 for value, gain in zip(m.tolist(), gains, strict=True))
    assert got <= min(map(error, range(15))) * 1.001 + 1e-6


def test_sixteen_bit_biases_hold_for_the_logits_too() -> None:
    data = blobs((1, 8, 8))
    model = build("separable", data.image_shape, len(data.classes), width=4)
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.constant_(last.weight, 1e-6)
    nn.init.constant_(last.bias, 3.0)
    graph, tensors = lower(quantize(model, data, bits=4, bias_bits=16).eval(), data.image_shape)
    assert np.abs(tensors[graph.ops[-1].tensor("bias")]).max() == 2**15 - 1


def _byte_biases(twin: nn.Module, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The biases of a lowered twin, each checked to be a byte times the power of two its layer shares."""
    graph, tensors = lower(twin.eval(), shape)
    biases = [tensors[name] for name, (_, role) in graph.roles().items() if role == "bias"]
    for bias in biases:
        shared = int(np.bitwise_or.reduce(np.abs(bias)))
        step = shared & -shared or 1
        assert np.abs(bias).max() <= 127 * step
    return biases


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("name", [*PLAIN, "signed residual", "hidden dense layers"])
def test_biases_of_one_byte(name: str, bits: int) -> None:
    twin = quantize(_make(name), DATA, bits=bits, bias_bits=8)
    assert_equal(twin, IMAGES)
    assert (
        max(np.abs(b).max() for b in _byte_biases(twin, DATA.image_shape)) > 127
    )  # some layer needs its shift
    trained = train(twin, DATA, Training(epochs=1, batch=16, lr=5e-3, freeze_norm=0.5))
    assert_equal(trained, IMAGES)
    _byte_biases(trained, DATA.image_shape)


@settings(max_examples=200)
@given(st.lists(st.floats(-(2.0**24), 2.0**24, width=32, allow_subnormal=False), min_size=1, max_size=6))
def test_the_shared_shift_is_the_least(values: list[float]) -> None:
    real = torch.tensor(values).clamp(-BIAS_MAX, BIAS_MAX).requires_grad_()
    k = bias_shift(real)
    top = float(real.detach().abs().max())
    assert top <= 127 * 2**k
    assert k == 0 or top > 127 * 2 ** (k - 1)
    bias = whole_biases(real, 8)
    assert (bias / 2**k == (bias / 2**k).round()).all()
    assert (bias - real).abs().max() <= 2.0**k / 2
    assert float((bias / 2**k).abs().max()) <= 127
    (gradient,) = torch.autograd.grad(bias.sum(), real)
    assert (gradient == 1).all()


def test_a_channel_that_is_always_zero_leaves_the_others_their_digits() -> None:
    """As one of 4 096 bytes had it: its huge bias cost the whole network half a point."""
    real = torch.tensor([-32768.0, 1000.0, -700.0, 30.0])
    outcome = Outcome(
        torch.full((4,), 0.08), torch.tensor([-2600.0, 60.0, 10.0, 30.0]), torch.full((4,), 30.0), 0
    )
    assert (bias_shift(real), bias_shift(real, outcome)) == (9, 3)
    bias = whole_biases(real, 8, outcome)
    assert (bias[1:] - real[1:]).abs().max() <= 4
    assert bias[0] == -127 * 8  # enough for it to stay at zero
    signed = Outcome(outcome.factor, torch.tensor([100.0, 60, 10, 30]), outcome.spread, -127)
    assert bias_shift(real, signed) == 9  # here it would come out wrong


@settings(max_examples=100)
@given(st.lists(st.floats(-(2.0**24), 2.0**24, width=32, allow_subnormal=False), min_size=1, max_size=6))
def test_the_shift_for_the_outcome_is_never_larger(values: list[float]) -> None:
    real = torch.tensor(values).clamp(-BIAS_MAX, BIAS_MAX)
    outcome = Outcome(torch.full_like(real, 0.1), real * 0.1, torch.full_like(real, 20.0), 0)
    k = bias_shift(real, outcome)
    assert 0 <= k <= bias_shift(real)
    bias = whole_biases(real, 8, outcome)
    assert (bias / 2**k == (bias / 2**k).round()).all()
    assert float((bias / 2**k).abs().max()) <= 127


# --- maps -------------------------------------------------------------------------------------------


def _finder(*last: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    body = [nn.Conv2d(1, 8, 5, 2, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8)]
    return nn.Sequential(*body, nn.ReLU(), nn.Conv2d(8, 12, 1), nn.ReLU(), *last)


@pytest.mark.parametrize(
    "options", [{}, {"bits": 4}, {"bias_bits": 8}, {"bias_correction": True, "equalise": True}]
)
def test_a_map_from_images_alone(options: dict) -> None:
    net, photos = _finder(nn.Conv2d(12, 5, 1)).eval(), torch.from_numpy(DATA.train.images[:32])
    twin = calibrated(net, photos, **options)
    assert_equal(twin, photos.numpy())
    if options.get("bits", 8) == 8:
        want, got = logits(net, photos), logits(twin, photos)
        assert got.shape == (32, 5, 8, 8)
        assert float((got - want).abs().mean()) < 0.02 * float(want.std())


def test_a_map_trains_with_any_loss() -> None:
    net, photos = _finder(nn.Conv2d(12, 2, 1)).eval(), torch.from_numpy(DATA.train.images[:64])
    twin = calibrated(net, photos, bits=4)
    x = photos.float() / 255
    target = F.avg_pool2d(x, 2).repeat(1, 2, 1, 1)
    optimiser = torch.optim.Adam(twin.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = F.mse_loss(twin.train()(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    recalibrate(twin, photos)
    assert_equal(twin, photos.numpy())
    assert F.mse_loss(twin.eval()(x), target).item() < losses[0] / 2


def test_maps_that_are_refused() -> None:
    photos = torch.from_numpy(DATA.train.images[:8])
    for last in (nn.Conv2d(12, 2, 3, padding=1), nn.Conv2d(12, 2, 1, 2), nn.Conv2d(12, 2, 1, groups=2)):
        with pytest.raises(UnsupportedOp, match="as a map, from a plain 1x1 convolution"):
            calibrated(_finder(last), photos)
    net = _finder(nn.Conv2d(12, 2, 1))
    with pytest.raises(OptionError, match="max_bytes and training need labels"):
        calibrated(net, photos, max_bytes=1000)
    with pytest.raises(OptionError, match="needs uint8 images"):
        calibrated(net, photos.float())
