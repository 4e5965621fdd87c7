"""Cross-layer equalisation changes weights, never what a network computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lab.test_quantize import DATA, IMAGES, LAYERS, PATTERNS, PLAIN, _make
from netsuke import kernels
from netsuke.lab.equalise import equalised, pairs
from netsuke.lab.inference import logits
from netsuke.lab.lower import lower
from netsuke.lab.steps.quantize import quantize


def _chain(*between: nn.Module, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        *between,
        nn.Conv2d(6, 6, 3, groups=groups),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


def _spread(model: nn.Module, scale: torch.Tensor) -> nn.Module:
    """The same function with badly scaled channels between the first two convolutions."""
    first, second = [m for m in model.modules() if isinstance(m, nn.Conv2d)][:2]
    with torch.no_grad():
        first.weight *= scale[:, None, None, None]
        first.bias *= scale  # type: ignore[operator]
        second.weight /= scale.reshape(1, -1, 1, 1) if second.groups == 1 else scale[:, None, None, None]
    return model


@pytest.mark.parametrize("name", [*PLAIN, *PATTERNS, *LAYERS])
def test_logits_stay(name: str) -> None:
    graph, tensors = lower(_make(name), DATA.image_shape)
    before = {key: array.copy() for key, array in tensors.items()}
    after = equalised(graph, tensors)
    assert all(np.array_equal(before[key], tensors[key]) for key in before)
    a, b = (kernels.run(graph, weights, IMAGES) for weights in (tensors, after))
    np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * np.abs(a).max())
    assert bool(pairs(graph)) == any(not np.array_equal(after[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ((nn.ReLU(),), 2),
        ((nn.PReLU(6),), 2),
        ((nn.LeakyReLU(0.1), nn.MaxPool2d(2)), 2),
        ((nn.ReLU(), nn.AvgPool2d(2)), 2),
        ((), 2),
        ((nn.ReLU6(),), 1),  # its 6 does not scale; the pair behind it stays
        ((nn.SiLU(),), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_channels_come_to_balance(between: tuple[nn.Module, ...], found: int, groups: int) -> None:
    torch.manual_seed(1)
    model = _chain(*between, groups=groups)
    logits(model, torch.from_numpy(IMAGES))  # shapes the lazy layer
    graph, tensors = lower(model.eval(), DATA.image_shape)
    assert len(pairs(graph)) == found
    after = equalised(graph, tensors)
    for first, second in pairs(graph):
        out = np.abs(after[first.tensor("weight")]).reshape(6, -1).max(1)
        weight = np.abs(after[second.tensor("weight")])
        if second.kind == "dense":
            into = weight.reshape(4, 6, -1).max((0, 2))
        else:
            apart = weight.reshape(groups, 6 // groups, 6 // groups, -1)
            into = apart.max((1, 3)).reshape(-1)
        np.testing.assert_allclose(out, into, rtol=0.01)


def test_a_map_that_two_read_stays() -> None:
    graph, tensors = lower(_make("relu of a signed map that others read"), DATA.image_shape)
    assert not pairs(graph)
    assert all(np.array_equal(tensors[key], array) for key, array in equalised(graph, tensors).items())


@pytest.mark.parametrize("bits", [8, 4])
def test_badly_scaled_channels_lose_less(bits: int) -> None:
    """Scales from 1 to 1000 leave one unit too coarse for the faint channels; equalised they are as good as new."""
    torch.manual_seed(4)
    model = _chain(nn.ReLU())
    logits(model, torch.from_numpy(IMAGES))
    raw = torch.from_numpy(DATA.train.images)
    want = logits(model.eval(), raw)
    fair = (logits(quantize(model, DATA, bits=bits), raw) - want).square().mean()
    _spread(model, torch.logspace(0, 3, 6))
    torch.testing.assert_close(logits(model, raw), want, rtol=1e-4, atol=1e-4)
    plain, even = (
        (logits(quantize(model, DATA, bits=bits, equalise=on), raw) - want).square().mean()
        for on in (False, True)
    )
    assert even < plain / 4
    assert even < 3 * fair
