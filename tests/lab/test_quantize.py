"""Quantisation: the trainable twin is the integer graph, bit for bit, and loses little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphs import small_artifact
from lab.sets import blobs
from netsuke import kernels
from netsuke.data import Dataset
from netsuke.errors import DataError, OptionError, UnsupportedOp
from netsuke.graph import INT32_MAX, Graph, Op
from netsuke.lab.inference import accuracy, logits
from netsuke.lab.integers import multipliers
from netsuke.lab.lower import lower
from netsuke.lab.models import MODELS, build
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.distil import as_module
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train

DATA = blobs((1, 16, 16))


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
}


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
    "strided depthwise": lambda: pooled(nn.ReLU(), nn.Conv2d(6, 12, 5, 2, padding=2, groups=6), nn.ReLU()),
}


def _make(name: str) -> nn.Module:
    torch.manual_seed(11)
    if name in MODELS:
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
    assert want.std() > 0
    got = logits(twin, torch.from_numpy(images)).double().numpy() / graph.ops[-1].attrs.get("scale", 1.0)
    np.testing.assert_allclose(got, want, rtol=2.0**-22, atol=0.05)


IMAGES = np.concatenate(
    [DATA.test.images, np.random.default_rng(5).integers(0, 256, (40, 1, 16, 16), np.uint8)]
)


@pytest.mark.parametrize("bits", [8, 4, 2, 1])
@pytest.mark.parametrize("name", [*MODELS, *PATTERNS, *LAYERS])
def test_twin_equals_the_integer_graph(name: str, bits: int) -> None:
    model = _make(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = quantize(model, DATA, bits=bits, bias_bits=16 if bits == 4 else 32)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert_equal(twin, IMAGES)
    trained = train(twin, DATA, Training(epochs=1, batch=16, lr=5e-3, freeze_norm=0.5, ema=0.5))
    assert_equal(trained, IMAGES)
    graph, tensors = lower(trained, DATA.image_shape)
    limit = max(1, (1 << (bits - 1)) - 1)
    for tensor, (op, role) in graph.roles().items():
        if role == "weight":
            assert np.abs(tensors[tensor]).max() <= limit
            assert next(o for o in graph.ops if o.name == op).attrs["bits"] == bits


@pytest.mark.parametrize("name", MODELS)
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
        ({"bias_bits": 8}, "16 or 32"),
        ({"percentile": 101}, "101"),
    ],
    ids=str,
)
def test_errors_name_the_option(options: dict, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        quantize(_make("convnet"), DATA, **options)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "sigmoid": (lambda: pooled(nn.Sigmoid()), "'sigmoid'"),
    "tanh": (lambda: pooled(nn.Tanh()), "'tanh'"),
    "relu of a signed map that others read": (
        lambda: Calls(lambda m, x: _branch(m, m.stem(x))),
        "relu",
    ),
}


def _branch(m: Calls, y: Tensor) -> Tensor:
    return _tail(m, torch.relu(y) + y)


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_ops_are_named(name: str) -> None:
    make, word = REFUSED[name]
    with pytest.raises(UnsupportedOp, match=word) as caught:
        quantize(make(), DATA)
    assert "\n" not in str(caught.value)


def test_pixels_with_an_offset_are_refused() -> None:
    artifact = small_artifact(integer=False)  # its normalize has an offset
    with pytest.raises(UnsupportedOp, match="offset"):
        quantize(as_module(artifact), blobs(artifact.graph.input_shape, classes=3))


def test_network_that_ends_on_features() -> None:
    """Without a dense layer at the end the logits are the sums themselves."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert_equal(quantize(model, DATA), IMAGES)


def test_nothing_to_calibrate_on() -> None:
    part = DATA.train
    empty = replace(DATA, train=type(part)(part.images[:0], part.labels[:0]), absent="none here")
    with pytest.raises(DataError, match="none here"):
        quantize(_make("convnet"), empty)


def test_channels_of_different_scales_are_refused() -> None:
    ops = (
        Op("normalize", "in", ("input",), {"scales": [1 / 255, 1 / 128], "offsets": [0.0, 0.0]}),
        Op("flatten", "flat", ("in",)),
        Op("dense", "out", ("flat",)),
    )
    tensors = {"out.weight": np.ones((2, 8), np.float32), "out.bias": np.zeros(2, np.float32)}
    with pytest.raises(UnsupportedOp, match="one factor"):
        quantize(FloatGraph(Graph((2, 2, 2), ops), tensors), blobs((2, 2, 2), classes=2))


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
        if value < 255:  # else the channel is cut, for the good of the others
            assert abs(value / 2**shift - gain) <= (0.5 + 1e-4) / 2**shift
        if 0 < value < 255:
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
