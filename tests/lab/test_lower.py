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
from netsuke.lab.models.blocks import Standardize

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
        self.tall = nn.Linear(8 * 11, 5)
        self.point, self.pool = nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1)
        self.still = nn.AdaptiveAvgPool2d((11, 14))  # changes nothing
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
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.AvgPool2d((2, 3), stride=1, padding=(1, 0)),
        nn.AvgPool2d(1, padding=0, count_include_pad=False),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((3, 2), stride=(4, 3), padding=(1, 1), ceil_mode=True),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d([1, 1]),
        nn.AdaptiveAvgPool2d((1, None)),
        nn.AdaptiveAvgPool2d((11, 7)),
        nn.AdaptiveAvgPool2d((None, 14)),
        nn.AdaptiveMaxPool2d(1),
        nn.ChannelShuffle(3),
        nn.Sequential(nn.Conv2d(3, 12, 1), nn.ChannelShuffle(4), nn.Conv2d(12, 4, 1, groups=2)),
        Standardize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]),
        Standardize([0.0, 0.0, 0.0], [1.0, 2.0, 1.0]),
        nn.ReLU(),
        nn.ReLU6(),
        nn.Sigmoid(),
        nn.Tanh(),
        *(nn.Sequential(nn.Conv2d(3, 3, 1), act) for act in (
            nn.LeakyReLU(-0.3), nn.PReLU(init=-0.5), nn.PReLU(3, init=1.5), nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(),
        )),
    ],
    ids=str,
)  # fmt: skip
def test_layers(layer: nn.Module) -> None:
    torch.manual_seed(0)
    features = nn.Sequential(layer, nn.Flatten())(torch.zeros(1, *SHAPE)).shape[1]
    agree(nn.Sequential(layer, nn.Flatten(), nn.Linear(features, 4)))


def test_pools_that_round_up() -> None:
    """Kernels, strides and padding on sides of 1 to 9, odd and even, windows that end beyond the map."""
    rng, tried = np.random.default_rng(3), 0
    for _ in range(80):
        kernel = [int(k) for k in rng.integers(1, 5, 2)]
        options = {
            "stride": tuple(int(s) for s in rng.integers(1, 6, 2)),
            "padding": tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel),
        }
        shape = (2, int(rng.integers(1, 10)), int(rng.integers(1, 10)))
        raw = rng.integers(0, 256, (2, *shape), np.uint8)
        for pool in (
            nn.MaxPool2d(tuple(kernel), **options, ceil_mode=True),
            nn.AvgPool2d(tuple(kernel), **options, ceil_mode=True),
            nn.AvgPool2d(tuple(kernel), **options),
        ):
            try:
                want = nn.Flatten()(pool(torch.from_numpy(raw).float() / 255)).numpy()
                graph, tensors = lower(nn.Sequential(pool, nn.Flatten()), shape)
            except (RuntimeError, UnsupportedLayer):
                continue  # torch has no such pool, or the graph none
            tried += 1
            np.testing.assert_allclose(
                kernels.run(graph, tensors, raw), want, atol=1e-6, err_msg=f"{pool} {shape}"
            )
    assert tried > 120


def test_a_fixed_standardisation_is_the_first_op() -> None:
    model = nn.Sequential(Standardize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]), nn.Conv2d(3, 2, 3), nn.Flatten())
    assert agree(model) == ["normalize", "conv2d", "flatten"]
    with pytest.raises(UnsupportedLayer, match="must come first"):
        lower(nn.Sequential(nn.ReLU(), *model), SHAPE)


CALLS: dict[str, Callable[[Calls, Tensor], Tensor]] = {
    "residual": lambda m, x: m.head((m.stem(x) + m.norm(m.input(F.relu(m.stem(x))))).mean((2, 3))),
    "in place": lambda m, x: m.head(operator.iadd(F.relu(m.stem(x)), m.input(m.stem(x))).mean(dim=[-1, -2])),
    "torch.add": lambda m, x: m.head(torch.add(m.stem(x), torch.relu(m.stem(x))).mean([2, 3])),
    "functions": lambda m, x: m.wide(torch.flatten(F.relu6(torch.tanh(m.stem(x)).relu()), 1)),
    "methods": lambda m, x: m.wide(m.stem(x).relu().flatten(1)),
    "torch.mean": lambda m, x: m.head(torch.mean(torch.sigmoid(m.stem(x)), dim=(2, 3))),
    "dropout": lambda m, x: m.head(F.dropout(m.stem(x), 0.5, m.training).mean((2, 3))),
    "mean that keeps axes": lambda m, x: m.head(m.stem(x).mean((2, 3), keepdim=True).flatten(1)),
    "chunks": lambda m, x: m.head(_swapped(m.stem(x).chunk(2, dim=1)).mean((2, 3))),
    "torch.chunk": lambda m, x: m.head(_swapped(torch.chunk(m.stem(x), 2, 1)).mean((2, 3))),
    "chunks of which one is read": lambda m, x: m.head(_doubled(m.stem(x).chunk(4, 1)[-2]).mean((2, 3))),
    "slices that overlap": lambda m, x: m.head(_overlapping(m.stem(x)).mean((2, 3))),
    "x[:, :n]": lambda m, x: m.head(_doubled(m.stem(x)[:, :2, :, :]).mean((2, 3))),
    "concatenation by keywords": lambda m, x: m.head(_joined(m.stem(x)).mean((2, 3))),
    "channel gate": lambda m, x: m.head(_gated(m, m.stem(x)).mean((2, 3))),
    "gate in front": lambda m, x: m.head((_keys(m.stem(x)) * m.input(m.stem(x))).mean((2, 3))),
    "pixel gate": lambda m, x: m.head(
        torch.mul(torch.sigmoid(m.stem(x).mean(1, True)), m.stem(x)).mean((2, 3))
    ),
    "peak of channels": lambda m, x: m.head(
        (m.stem(x) * m.input(m.stem(x)).amax(1, keepdim=True)).mean((2, 3))
    ),
    "torch.amax": lambda m, x: m.head((m.stem(x) * torch.amax(m.stem(x), dim=-3, keepdim=True)).mean((2, 3))),
    "squared": lambda m, x: m.head(_squared(m.stem(x)).mean((2, 3))),
    "dense gate of a vector": lambda m, x: m.head(_squared(F.adaptive_avg_pool2d(m.stem(x), 1).flatten(1))),
    "functional activations": lambda m, x: m.head(
        F.hardsigmoid(F.hardswish(F.silu(m.stem(x)), True), inplace=True).mean((2, 3))
    ),
    "a layer twice": lambda m, x: m.head(m.input(torch.relu(m.input(torch.relu(m.stem(x))))).mean((2, 3))),
    "a norm twice": lambda m, x: m.head((m.norm(m.stem(x)) + m.norm(m.input(m.stem(x)))).mean((2, 3))),
    "1x1 convolution behind a pool": lambda m, x: m.head(m.norm(m.point(m.pool(m.stem(x)))).flatten(1)),
    "adaptive pool to a grid": lambda m, x: m.tall(F.adaptive_avg_pool2d(m.stem(x), (11, 1)).flatten(1)),
}


def _swapped(parts: tuple[Tensor, ...]) -> Tensor:
    a, b = parts
    return torch.cat((b, F.relu(a)), dim=1)


def _doubled(part: Tensor) -> Tensor:
    twice = torch.cat([part, part], -3)
    return torch.cat([twice, twice], 1)


def _overlapping(y: Tensor) -> Tensor:
    return torch.cat([y[:, 1:6], y[:, -3:]], 1)


def _joined(y: Tensor) -> Tensor:
    return torch.cat(tensors=[y[:, 4:], y[:, :4]], dim=1)


def _keys(y: Tensor) -> Tensor:
    return torch.sigmoid(F.adaptive_avg_pool2d(y, [1, 1]))


def _gated(m: Calls, y: Tensor) -> Tensor:
    return y * torch.sigmoid(m.point(m.pool(y)))


def _squared(y: Tensor) -> Tensor:
    return y * y


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
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), ["padding"]),
        (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), ["padding"]),
        (nn.AvgPool2d(2, divisor_override=3), ["divisor"]),
        (nn.MaxPool2d(2, dilation=2), ["dilation"]),
        (nn.AdaptiveAvgPool2d(2), ["11x14", "2x2"]),
        (nn.AdaptiveMaxPool2d(2), ["1x1"]),
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
    "mean of channels without its axis": (lambda m, x: m.head(m.stem(x).mean(1).flatten(1)), "mean"),
    "amax over rows": (lambda m, x: m.head(m.stem(x).amax(2).mean(2)), "amax"),
    "chunks of another size": (lambda m, x: m.head(_first(m.stem(x).chunk(3, 1))), "equal parts"),
    "chunks of rows": (lambda m, x: m.head(_first(m.stem(x).chunk(2, 2))), "equal parts"),
    "a list of parts": (lambda m, x: m.head(torch.cat(m.stem(x).chunk(2, 1)[:1], 1)), "one by one"),
    "every other channel": (lambda m, x: m.head(m.stem(x)[:, ::2].mean((2, 3))), "x\\[:, start:stop\\]"),
    "a slice of rows": (lambda m, x: m.head(m.stem(x)[:, :, 1:].mean((2, 3))), "x\\[:, start:stop\\]"),
    "one channel": (lambda m, x: m.head(m.stem(x)[:, 1].flatten(1)), "x\\[:, start:stop\\]"),
    "rows side by side": (lambda m, x: m.head(torch.cat([m.stem(x), m.stem(x)], 2).mean((2, 3))), "channels"),
    "3x3 behind a global pool": (lambda m, x: m.head(m.input(m.pool(m.stem(x))).flatten(1)), "must be 1x1"),
    "norm of what is read twice": (lambda m, x: _norm_and_more(m, m.stem(x)), "norm"),
    "output before the end": (lambda m, x: _unread(m, m.head(m.stem(x).mean((2, 3)))), "output"),
}


def _first(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0].mean((2, 3))


def _norm_and_more(m: Calls, y: Tensor, between: nn.Module | None = None) -> Tensor:
    return m.head((m.norm(between(y) if between else y) + y).mean((2, 3)))


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
    "in place, said by position": lambda m, x: _by_position(m, m.stem(x)),
    "in place on a part": lambda m, x: _on_a_part(m, m.stem(x)),
    "in place on a part behind dropout": lambda m, x: _on_a_part(m, m.stem(x), F.dropout),
    "in place on a flattened part": lambda m, x: _on_a_flat_part(m, m.pool(m.stem(x)).flatten(1)),
    "sum in place on a part": lambda m, x: _sum_on_a_part(m, m.stem(x)),
    "norm behind a pool that changes nothing": lambda m, x: _norm_and_more(m, m.stem(x), m.still),
    "norms behind two such pools": lambda m, x: _two_norms(m, m.stem(x)),
    "gate of a gate": lambda m, x: m.head((_keys(m.stem(x)) * _keys(m.input(m.stem(x)))).flatten(1)),
}


def _in_place(m: Calls, y: Tensor) -> Tensor:
    z = F.relu(y, inplace=True)
    return m.head((y + z).mean((2, 3)))


def _by_position(m: Calls, y: Tensor) -> Tensor:
    z = F.relu(y, True)
    return m.head((y + z).mean((2, 3)))


def _on_a_part(m: Calls, y: Tensor, between: Callable[..., Tensor] = lambda part, **_: part) -> Tensor:
    z = F.relu(between(y[:, :4], training=False), inplace=True)
    return m.head(torch.cat([z, y[:, :4]], 1).mean((2, 3)))


def _on_a_flat_part(m: Calls, y: Tensor) -> Tensor:
    z = F.relu(y[:, :4].flatten(1), inplace=True)
    return m.head(torch.cat([z, y[:, :4]], 1))


def _sum_on_a_part(m: Calls, y: Tensor) -> Tensor:
    part = y[:, :4]
    part += y[:, 4:]
    return m.head(y.mean((2, 3)))


def _two_norms(m: Calls, y: Tensor) -> Tensor:
    return m.head((m.norm(m.still(y)) + m.norm(m.still(y))).mean((2, 3)))


@pytest.mark.parametrize("name", TRAPS)
def test_traps_agree_or_are_refused(name: str) -> None:
    torch.manual_seed(4)
    model = Calls(TRAPS[name]).eval()
    nn.init.normal_(model.norm.bias)  # a norm that changes something
    nn.init.normal_(model.norm.weight)
    try:
        lower(model, SHAPE)
    except (UnsupportedLayer, GraphError):
        return
    agree(model)


class Masked(nn.Module):
    """A forward with a second argument, which callers leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(27, 4))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(x if mask is None else x * mask)


def test_a_second_argument_is_refused() -> None:
    with pytest.raises(UnsupportedLayer, match="it also takes 'mask'"):
        lower(Masked(), (3, 3, 3))


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 1, 4), (1, 5, 1)])
def test_gates_on_maps_of_one_row_or_pixel_or_channel(shape: tuple[int, int, int], gate_first: bool) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.stem, self.point = (
                nn.Conv2d(shape[0], shape[0], 3, padding=1),
                nn.Conv2d(shape[0], shape[0], 1),
            )
            self.head = nn.Linear(shape[0] * shape[1] * shape[2], 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            gate = torch.sigmoid(self.point(F.adaptive_avg_pool2d(y, 1)))
            y = gate * y if gate_first else y * gate
            pixels = torch.sigmoid(y.mean(1, keepdim=True))
            return self.head((pixels * y if gate_first else y * pixels).flatten(1))

    agree(Gated(), shape)


def test_every_module_keeps_its_mode() -> None:
    """A norm that is frozen in a training model stays frozen."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).train()
    model[1].eval()
    lower(model, SHAPE)
    assert [layer.training for layer in model] == [True, False, True, True]


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


def test_a_network_may_end_in_a_map() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1))
    assert agree(net)[-1] == "conv2d"
    with pytest.raises(GraphError, match="the last op must give one logit a class, or be one of conv2d"):
        lower(net[:3], SHAPE)
