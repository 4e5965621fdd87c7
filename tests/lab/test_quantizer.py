"""How ops become integers: units of pixels, tables, gates, averages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphs import random_images, small_artifact
from lab.sets import blobs
from lab.test_quantize import DATA, IMAGES, assert_equal
from netsuke import kernels
from netsuke.graph import INT32_MAX, Graph, Op
from netsuke.lab.calibrate import Calibration
from netsuke.lab.inference import logits
from netsuke.lab.integers import Widths
from netsuke.lab.lower import lower
from netsuke.lab.models.blocks import Standardize
from netsuke.lab.quantizer import Quantizer
from netsuke.lab.quantlayers import QuantLookup
from netsuke.lab.steps.distil import as_module
from netsuke.lab.steps.quantize import quantize, quantized

RGB = blobs((3, 9, 10), n=60)


@pytest.mark.parametrize(
    ("mean", "std", "rows"),
    [([0.5] * 3, [0.2] * 3, 0), ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4], 3), ([0.0] * 3, [1.0, 2.0, 1.0], 3)],
)
def test_pixels_with_mean_and_deviation_go_through_a_table(
    mean: list[float], std: list[float], rows: int
) -> None:
    torch.manual_seed(5)
    body = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    model = nn.Sequential(Standardize(mean, std), *body)
    twin = quantize(model, RGB)
    assert_equal(twin, RGB.test.images)
    graph, tensors = lower(twin, RGB.image_shape)
    assert [op.kind for op in graph.ops[:3]] == ["halve", "lookup", "qconv2d"]
    table = tensors[graph.ops[1].tensor("table")]
    assert table.shape == ((rows, 128) if rows else (128,))
    # The table of a channel is (x / 255 - mean) / std of the halved pixel, in units that are the same for all.
    want = (np.arange(128) * 2 / 255 - np.array(mean)[:, None]) / np.array(std)[:, None]
    table = np.broadcast_to(table, (3, 128))
    inside = np.abs(table) < 127  # what no image reaches may be cut
    assert inside.mean() > 0.9
    unit = (want * table)[inside].sum() / np.square(table)[inside].sum()
    assert np.abs(table * unit - want)[inside].max() < unit * 0.6
    raw = torch.from_numpy(RGB.train.images)
    assert np.corrcoef(logits(twin, raw).flatten(), logits(model, raw).flatten())[0, 1] > 0.99


def test_an_offset_in_an_artifact_quantises_too() -> None:
    artifact = small_artifact(integer=False)  # its normalize has an offset
    twin = quantize(as_module(artifact), blobs(artifact.graph.input_shape, classes=3))
    assert_equal(twin, random_images(artifact.graph, 20))


def test_pixels_that_share_their_unit_with_larger_values() -> None:
    """Were the sum counted in units of pixels, nearly all of it would be cut at 1."""
    ops = (
        Op("normalize", "in", ("input",), {"scales": [1 / 255], "offsets": [0.0]}),
        Op("conv2d", "c", ("in",), {"stride": [1, 1], "padding": [0] * 4, "groups": 1}),
        Op("add", "sum", ("in", "c")),
        Op("flatten", "flat", ("sum",)),
        Op("dense", "out", ("flat",)),
    )
    rng = np.random.default_rng(0)
    tensors = {
        "c.weight": np.full((1, 1, 1, 1), 9, np.float32),
        "c.bias": np.zeros(1, np.float32),
        "out.weight": rng.normal(size=(3, 12)).astype(np.float32),
        "out.bias": np.zeros(3, np.float32),
    }
    graph = Graph((1, 3, 4), ops)
    raw = torch.from_numpy(random_images(graph, 60))
    twin = quantized(graph, tensors, raw.float() / 255, Widths())
    want = kernels.run(graph, tensors, raw.numpy())
    assert np.corrcoef(logits(twin, raw).flatten(), want.flatten())[0, 1] > 0.99


def test_pixels_turned_negative() -> None:
    ops = (
        Op("normalize", "in", ("input",), {"scales": [-1 / 255], "offsets": [0.0]}),
        Op("flatten", "flat", ("in",)),
        Op("dense", "out", ("flat",)),
    )
    tensors = {
        "out.weight": np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32),
        "out.bias": np.zeros(3, np.float32),
    }
    graph = Graph((1, 3, 4), ops)
    raw = torch.from_numpy(random_images(graph, 60))
    twin = quantized(graph, tensors, raw.float() / 255, Widths())
    want = kernels.run(graph, tensors, raw.numpy())
    assert np.corrcoef(logits(twin, raw).flatten(), want.flatten())[0, 1] > 0.999


FUNCTIONS: dict[str, tuple[dict, Callable[[Tensor], Tensor]]] = {
    "silu": ({}, F.silu),
    "hardswish": ({}, F.hardswish),
    "hardsigmoid": ({}, F.hardsigmoid),
    "sigmoid": ({}, torch.sigmoid),
    "tanh": ({}, torch.tanh),
    "relu": ({}, F.relu),
    "relu6": ({}, F.relu6),
    "leakyrelu": ({"slope": -0.4}, lambda x: F.leaky_relu(x, -0.4)),
}


@pytest.mark.parametrize("ndim", [2, 4])
@pytest.mark.parametrize("low", [0, -127])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_table_holds_its_function_and_trains_by_its_gradient(name: str, low: int, ndim: int) -> None:
    attrs, function = FUNCTIONS[name]
    unit, out = 0.06, 0.07
    layer = QuantLookup("t", Op(name, "t", ("x",), attrs), {}, low, unit, out)
    codes = torch.arange(low, 128.0)
    x = codes.reshape(1, -1) if ndim == 2 else codes.reshape(1, 1, 1, -1)
    x.requires_grad_()
    layer.eval()
    table = layer.arrays()["table"]
    assert table.shape == (128 - low,)
    exact = function(codes.double() * unit) / out
    limits = (-127 if table.min() < 0 else 0, 127)
    assert (torch.from_numpy(table) - exact.clamp(*limits)).abs().max() <= 0.5001
    np.testing.assert_array_equal(layer(x).detach().flatten(), table)

    layer.train()
    y = layer(x)
    np.testing.assert_array_equal(y.detach().flatten(), table)
    (got,) = torch.autograd.grad(y.sum(), x)
    real = codes.clone().requires_grad_()
    (want,) = torch.autograd.grad((function(real * unit) / out).sum(), real)
    inside = (exact > limits[0] + 0.01) & (exact < limits[1] - 0.01)
    assert inside.sum() > 20
    torch.testing.assert_close(got.flatten()[inside], want[inside], rtol=1e-4, atol=1e-4)
    beyond = exact > limits[1] + 0.01
    assert not got.flatten()[beyond].any()


@pytest.mark.parametrize("ndim", [2, 4])
def test_channels_have_tables_of_their_own(ndim: int) -> None:
    slope = torch.tensor([-0.3137, 0.0, 0.2519])  # no code of 127 meets a tie
    layer = QuantLookup("t", Op("prelu", "t", ("x",)), {"slope": slope}, -127, 0.1, 0.1)
    assert layer.arrays()["table"].shape == (3, 255)
    x = torch.arange(-127, 128.0)[None, None, None, :].expand(2, 3, 1, 255).contiguous()
    x = x if ndim == 4 else x[0, :, 0].t().contiguous()
    want = (F.prelu(x, slope) + 0.5).floor()
    for mode in (True, False):
        torch.testing.assert_close(layer.train(mode)(x), want)


def _activation(graph: Graph, tensors: dict[str, np.ndarray], raw: np.ndarray, name: str) -> np.ndarray:
    return kernels.activations(graph, tensors, raw)[name]


def test_a_relu6_is_cut_at_six_where_its_unit_reaches_further() -> None:
    """Its sum with a map that reaches 30 counts both in units of which six are far below 127."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 2, 1, bias=False)
            nn.init.constant_(self.a.weight, 12)
            nn.init.constant_(self.b.weight, 30)
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(2 * 256, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu6(self.a(x)) + torch.relu(self.b(x)))

    twin = quantize(Sum(), DATA)
    assert_equal(twin, IMAGES)
    graph, tensors = lower(twin, DATA.image_shape)
    (cap,) = (op for op in graph.ops if op.kind == "lookup")
    top = _activation(graph, tensors, IMAGES, cap.name).max()
    assert 6 / 36 * 127 - 1.5 < top < 6 / 36 * 127 + 1.5
    assert _activation(graph, tensors, IMAGES, cap.inputs[0]).max() > 1.5 * top


@pytest.mark.parametrize("channels", [4, 24])
def test_a_global_average_is_a_sum_where_sums_fit(channels: int) -> None:
    torch.manual_seed(6)
    model = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 4),
    )
    nn.init.constant_(model[4].weight, 0.1)  # all weights at the limit: sums of 127 * 127 * 256 * channels
    model[4].weight.data[::2] *= -1
    twin = quantize(model, DATA)
    assert_equal(twin, IMAGES)
    graph, _ = lower(twin, DATA.image_shape)
    kinds = [op.kind for op in graph.ops]
    assert ("sumpool" in kinds) == (channels == 4)
    assert ("qavgpool" in kinds) == (channels == 24)
    raw = torch.from_numpy(DATA.train.images)
    assert np.corrcoef(logits(twin, raw).flatten(), logits(model, raw).flatten())[0, 1] > 0.99


@settings(max_examples=200)
@given(gain=st.floats(2.0**-19, 60), count=st.integers(1, 1 << 16))
def test_multipliers_of_means_and_gates(gain: float, count: int) -> None:
    """One byte, eight digits wherever int32 leaves room for them, no overflow."""
    bound = 127.0 * count
    ratio = Quantizer._ratio(gain, bound)
    m, shift = ratio["multiplier"], ratio["shift"]
    assert 1 <= m <= 255
    assert 0 <= shift <= 24
    assert bound * m + ((1 << shift) >> 1) <= INT32_MAX
    if gain > 2**-17 and gain * bound < 2**20:
        assert abs(m / 2**shift / gain - 1) < 1 / 250


def test_a_mean_of_a_large_map_keeps_its_digits() -> None:
    """112x112 as the first gate of EfficientNet sees it: within a step of what the mean is."""
    shape = (1, 112, 112)
    ops = (
        Op("normalize", "in", ("input",), {"scales": [1 / 255], "offsets": [0.0]}),
        Op("globalavgpool", "mean", ("in",)),
        Op("silu", "act", ("mean",)),
        Op("dense", "out", ("act",)),
    )
    tensors = {"out.weight": np.ones((2, 1), np.float32), "out.bias": np.zeros(2, np.float32)}
    rng = np.random.default_rng(2)
    raw = np.stack([rng.integers(0, top, shape, np.uint8) for top in range(5, 250, 5)])
    twin = quantized(
        Graph(shape, ops), tensors, torch.from_numpy(raw).float() / 255, Widths(), Calibration(percentile=100)
    )
    graph, weights = lower(twin, shape)
    mean = _activation(graph, weights, raw, "mean")[:, 0]
    want = raw.mean((1, 2, 3)) / raw.mean((1, 2, 3)).max() * 127
    assert np.abs(mean - want).max() < 1.5


@pytest.mark.parametrize("kernel", [1, 2, 3, 7, 12, 50, 64])
def test_averages_of_any_window(kernel: int) -> None:
    shape = (1, kernel, kernel)
    model = nn.Sequential(nn.AvgPool2d(kernel), nn.Flatten(), nn.Linear(1, 3))
    data = blobs(shape, classes=1, n=30)
    graph, tensors = lower(quantize(model, data), shape)
    raw = np.stack([np.full(shape, value, np.uint8) for value in range(256)])
    (pool,) = (op for op in graph.ops if op.kind == "qavgpool")
    got = _activation(graph, tensors, raw, pool.name).flatten()
    np.testing.assert_array_equal(got, np.arange(256) // 2)
