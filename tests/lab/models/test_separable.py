"""The layout "pooled" of `separable`: its maps, its parameters, and the little RAM that it is for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from netsuke.artifact import Artifact
from netsuke.errors import OptionError
from netsuke.export import c
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.models.separable import LAYOUTS, separable
from netsuke.lab.steps.quantize import quantize
from netsuke.memory import ram_bytes

Shape = tuple[int, int, int]


def maps(model: torch.nn.Sequential, shape: Shape) -> list[tuple[int, ...]]:
    """The maps [C, H, W] of a network, each once."""
    x, found = torch.zeros(1, *shape), []
    for layer in model.eval():
        x = layer(x)
        if x.ndim == 4:
            found.append(tuple(x.shape[1:]))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((1, 28, 28), [(12, 24, 24), (12, 12, 12), (52, 10, 10), (52, 5, 5)]),
        ((3, 32, 32), [(12, 28, 28), (12, 14, 14), (52, 12, 12), (52, 6, 6)]),
        ((1, 64, 48), [(12, 60, 44), (12, 30, 22), (52, 28, 20), (52, 14, 10), (52, 7, 5)]),
        ((3, 17, 20), [(12, 17, 20), (12, 8, 10), (52, 6, 8)]),
        ((1, 8, 8), [(12, 8, 8), (52, 8, 8)]),  # too small to pool
        ((1, 1, 3), [(12, 1, 3), (52, 1, 3)]),
    ],
)
def test_maps_shrink_before_channels_grow(shape: Shape, want: list[tuple[int, ...]]) -> None:
    model = separable(shape=shape, classes=10, width=52, depth=4, layout="pooled")
    assert maps(model, shape) == [*want, (52, 1, 1)]
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(("width", "depth", "stem"), [(52, 4, 12), (56, 3, 12), (24, 0, 4), (9, 1, 4)])
def test_parameters(width: int, depth: int, stem: int) -> None:
    """Every convolution without a bias, with a norm of two parameters a channel."""
    model = separable(shape=(1, 28, 28), classes=10, width=width, depth=depth, layout="pooled")
    first = stem * 25 + 2 * stem
    widening = stem * 9 + 2 * stem + stem * width + 2 * width
    residual = width * 9 + 2 * width + width * width + 2 * width
    want = first + widening + depth * residual + width * 10 + 10
    assert sum(p.numel() for p in model.parameters()) == want


def quantised(layout: str, width: int, depth: int) -> Artifact:
    """An untrained network in integers: memory and exactness do not ask how right it is."""
    from netsuke.data import Dataset, Split

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 28, 28), np.uint8)
    labels = (np.arange(60) % 10).astype(np.int64)
    split = Split(images, labels)
    data = Dataset("noise", tuple("0123456789"), split, split, split, "noise", "none", "any")
    model = build("separable", (1, 28, 28), 10, width=width, depth=depth, layout=layout)
    graph, tensors = lower(quantize(model, data, bits=4), (1, 28, 28))
    return Artifact(graph, tensors, {"classes": list(data.classes)})


@pytest.mark.parametrize(("width", "depth", "most"), [(52, 4, 2560), (56, 3, 2048), (44, 6, 2048)])
def test_it_runs_in_two_kilobytes(width: int, depth: int, most: int) -> None:
    artifact = quantised("pooled", width, depth)
    ram = ram_bytes(artifact.graph, artifact.tensors)
    assert ram <= most
    deeper = quantised("pooled", width, depth + 2)  # residual blocks are computed in place
    assert ram_bytes(deeper.graph, deeper.tensors) == ram
    plain = quantised("unpadded", width, depth)
    assert ram < 0.6 * ram_bytes(plain.graph, plain.tensors)


@pytest.mark.skipif(not shutil.which("cc"), reason="install gcc")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_c_takes_the_planned_memory_and_is_exact(layout: str, tmp_path: Path) -> None:
    artifact = quantised(layout, 20, 2)
    path = c.write(artifact, tmp_path, "net")
    assert c.figures(path)["RAM_BYTES"] == ram_bytes(artifact.graph, artifact.tensors)
    images = np.random.default_rng(1).integers(0, 256, (20, 1, 28, 28), np.uint8)
    np.testing.assert_array_equal(c.run(path, images), artifact.logits(images))


def test_an_unknown_layout_is_answered_with_the_known() -> None:
    with pytest.raises(OptionError, match="no layout 'pool'; there are residual, unpadded, pooled"):
        build("separable", (1, 28, 28), 10, layout="pool")
