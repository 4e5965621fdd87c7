"""Lowering: whatever is accepted agrees with torch; whatever is not is named."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke import kernels
from netsuke.errors import GraphError, UnsupportedLayer
from netsuke.lab.inference import logits
from netsuke.lab.lower import lower

SHAPE = (3, 11, 14)


class Calls(nn.Module):
    """A forward given as a function of (self, x), with a few layers to call."""

    def __init__(self, call: Callable[[Calls, Tensor], Tensor]):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.input = nn.Conv2d(8, 8, 3, padding=1)  # a name that graphs use for themselves
        self.norm = nn.BatchNorm2d(8)
        self.free = nn.BatchNorm2d(8, track_running_stats=False)
        self.head = nn.Linear(8, 5)
        self.wide = nn.Linear(8 * 11 * 14, 5)
        self.offset = nn.Parameter(torch.ones(8, 11, 14))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def agree(model: nn.Module, shape: tuple[int, int, int] = SHAPE) -> list[str]:
    """Assert that graph and module agree; the op kinds of the graph."""
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8))
    want = logits(model, raw).numpy()
    assert want.std() > 1e-4
    graph, tensors = lower(model, shape)
    np.testing.assert_allclose(kernels.run(graph, tensors, raw.numpy()), want, atol=1e-4)
    return [op.kind for op in graph.ops]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, 3, padding="same"),
        nn.Conv2d(3, 6, 4, padding="same"),
        nn.Conv2d(3, 6, (2, 5), padding="same"),
        nn.Conv2d(3, 6, (2, 5), padding="valid"),
        nn.Conv2d(3, 6, (5, 3), stride=(2, 3), padding=(2, 1)),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.Conv2d(3, 3, 5, stride=2, padding=2, groups=3, bias=False),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0)),
        nn.AvgPool2d((2, 3)),
        nn.AvgPool2d(3, stride=2),
        nn.Identity(),
        nn.Dropout2d(0.9),
        nn.ReLU(),
        nn.ReLU6(),
        nn.Sigmoid(),
        nn.Tanh(),
    ],
    ids=str,
)
def test_layers(layer: nn.Module) -> None:
    torch.manual_seed(0)
    features = nn.Sequential(layer, nn.Flatten())(torch.zeros(1, *SHAPE)).shape[1]
    agree(nn.Sequential(layer, nn.Flatten(), nn.Linear(features, 4)))


CALLS: dict[str, Callable[[Calls, Tensor], Tensor]] = {
    "residual": lambda m, x: m.head((m.stem(x) + m.norm(m.input(F.relu(m.stem(x))))).mean((2, 3))),
    "in place": lambda m, x: m.head(operator.iadd(F.relu(m.stem(x)), m.input(m.stem(x))).mean(dim=[-1, -2])),
    "torch.add": lambda m, x: m.head(torch.add(m.stem(x), torch.relu(m.stem(x))).mean([2, 3])),
    "functions": lambda m, x: m.wide(torch.flatten(F.relu6(torch.tanh(m.stem(x)).relu()), 1)),
    "methods": lambda m, x: m.wide(m.stem(x).relu().flatten(1)),
    "torch.mean": lambda m, x: m.head(torch.mean(torch.sigmoid(m.stem(x)), dim=(2, 3))),
    "dropout": lambda m, x: m.head(F.dropout(m.stem(x), 0.5, m.training).mean((2, 3))),
}


@pytest.mark.parametrize("name", CALLS)
def test_forwards(name: str) -> None:
    torch.manual_seed(1)
    agree(Calls(CALLS[name]).eval())


def test_norms_fold_and_leave_no_op() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 9 * 12, 7), nn.BatchNorm1d(7, affine=False), nn.ReLU(), nn.Linear(7, 5),
    )  # fmt: skip
    model(torch.rand(64, *SHAPE))  # moves the running statistics
    kinds = agree(model.eval())
    assert kinds == ["normalize", "conv2d", "relu", "flatten", "dense", "relu", "dense"]


def test_model_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lower(model.train(), SHAPE)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.GRU(14, 8), ["GRU", "'1'", "Conv2d", "ReLU6"]),
        (nn.Softmax2d(), ["Softmax2d", "AvgPool2d"]),
        (nn.Conv2d(3, 4, 3, dilation=2), ["dilation"]),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), ["padding modes"]),
        (nn.AvgPool2d(2, padding=1), ["padding"]),
        (nn.MaxPool2d(2, ceil_mode=True), ["ceil_mode"]),
        (nn.AdaptiveAvgPool2d(2), ["1x1"]),
        (nn.BatchNorm2d(3), ["fold", "convolution"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unknown_layers_are_named(layer: nn.Module, words: list[str]) -> None:
    with pytest.raises(UnsupportedLayer) as caught:
        lower(nn.Sequential(nn.ReLU(), layer, nn.Flatten()), SHAPE)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


REFUSED: dict[str, tuple[Callable[[Calls, Tensor], Tensor], str]] = {
    "branch on values": (lambda m, x: m.head(m.stem(x).mean((2, 3))) if x.sum() > 0 else x, "branch"),
    "unknown function": (lambda m, x: m.head(F.gelu(m.stem(x)).mean((2, 3))), "gelu"),
    "unknown method": (lambda m, x: m.head(m.stem(x).exp().mean((2, 3))), "exp"),
    "sum with a number": (lambda m, x: m.head((m.stem(x) + 1.5).mean((2, 3))), "1.5"),
    "sum with a parameter": (lambda m, x: m.head((m.stem(x) + m.offset).mean((2, 3))), "offset"),
    "mean over one axis": (lambda m, x: m.stem(x).mean(2).flatten(1), "mean"),
    "mean that keeps axes": (lambda m, x: m.stem(x).mean((2, 3), keepdim=True).flatten(1), "mean"),
    "norm of what is read twice": (lambda m, x: _norm_and_more(m, m.stem(x)), "norm"),
    "output before the end": (lambda m, x: _unread(m, m.head(m.stem(x).mean((2, 3)))), "output"),
}


def _norm_and_more(m: Calls, y: Tensor) -> Tensor:
    return m.head((m.norm(y) + y).mean((2, 3)))


def _unread(m: Calls, y: Tensor) -> Tensor:
    F.relu(y)
    return y


@pytest.mark.parametrize("name", REFUSED)
def test_refused_forwards_are_named(name: str) -> None:
    call, word = REFUSED[name]
    with pytest.raises(UnsupportedLayer, match=word):
        lower(Calls(call).eval(), SHAPE)


# Each of these once lowered to another network, or ended in a traceback.
TRAPS: dict[str, Callable[[Calls, Tensor], Tensor]] = {
    "add with alpha": lambda m, x: m.head(torch.add(m.stem(x), m.input(m.stem(x)), alpha=2).mean((2, 3))),
    "norm without statistics": lambda m, x: m.head(m.free(m.stem(x)).mean((2, 3))),
    "two outputs": lambda m, x: (m.head(m.stem(x).mean((2, 3))), x),  # type: ignore[dtype]
    "keyword argument": lambda m, x: m.head(input=m.stem(x).mean((2, 3))),
    "flatten of a part": lambda m, x: m.head(m.stem(x).flatten(2).mean(2)),
    "relu in place on a branch": lambda m, x: _in_place(m, m.stem(x)),
}


def _in_place(m: Calls, y: Tensor) -> Tensor:
    z = F.relu(y, inplace=True)
    return m.head((y + z).mean((2, 3)))


@pytest.mark.parametrize("name", TRAPS)
def test_traps_agree_or_are_refused(name: str) -> None:
    torch.manual_seed(4)
    model = Calls(TRAPS[name]).eval()
    try:
        lower(model, SHAPE)
    except (UnsupportedLayer, GraphError):
        return
    agree(model)


def test_layer_options_are_not_dropped() -> None:
    pool = nn.Sequential(nn.AvgPool2d(2, divisor_override=1), nn.Flatten(), nn.Linear(3 * 5 * 7, 4))
    try:
        lower(pool, SHAPE)
    except UnsupportedLayer:
        return
    agree(pool)


def test_not_an_image_network() -> None:
    with pytest.raises(GraphError):
        lower(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), SHAPE)


class Shared(nn.Module):
    """A convolution whose output is read twice, once through a layer that only hands it on."""

    def __init__(self, between: nn.Module, then: nn.Module):
        super().__init__()
        self.conv, self.between, self.then = nn.Conv2d(1, 3, 3), between, then
        self.out = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.out(self.then(self.between(y)) + y)


@pytest.mark.parametrize("between", [nn.Dropout(0.5), nn.Identity()], ids=["dropout", "identity"])
@pytest.mark.parametrize("then", [nn.BatchNorm2d(3), nn.ReLU(inplace=True)], ids=["norm", "in-place"])
def test_what_others_read_too_is_neither_folded_nor_overwritten(between: nn.Module, then: nn.Module) -> None:
    with pytest.raises(UnsupportedLayer):
        lower(Shared(between, then), (1, 8, 8))


@pytest.mark.parametrize("flat", [nn.Flatten(2), nn.Flatten(0), nn.Flatten(1, 2)], ids=str)
def test_flatten_of_other_axes_is_refused(flat: nn.Module) -> None:
    with pytest.raises(UnsupportedLayer, match="flattens from axis 1"):
        lower(nn.Sequential(nn.Conv2d(1, 1, 3), flat, nn.Linear(36, 2)), (1, 8, 8))
