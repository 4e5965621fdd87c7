"""What every architecture must do; a new line in MODELS is tested without a line here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.sets import blobs
from netsuke.artifact import Artifact
from netsuke.errors import NetsukeError, OptionError, UnsupportedOp
from netsuke.export import TARGETS
from netsuke.lab.carve import carve
from netsuke.lab.inference import logits
from netsuke.lab.lower import lower
from netsuke.lab.models import MODELS, build
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train

Shape = tuple[int, int, int]
SHAPES: list[Shape] = [(1, 28, 28), (3, 17, 20)]
# Options that leave a net small; a model without a line is tested as it comes.
SMALL: dict[str, list[dict[str, Any]]] = {
    "convnet": [{"width": 0.25}, {"width": 0.2, "norm": True}],
    "separable": [{"width": 9}, {"width": 12, "depth": 0}],
}
CASES = [(name, options) for name in MODELS for options in SMALL.get(name, [{}])]


def images(shape: Shape, n: int = 24) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, *shape), np.uint8))


def stirred(model: nn.Module) -> nn.Module:
    """Batch norms far from the identity, as training leaves them."""
    generator = torch.Generator().manual_seed(7)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_(0, 0.3, generator=generator)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.3, 2, generator=generator)  # type: ignore[union-attr]
            norm.weight.data.uniform_(-1.5, 1.5, generator=generator)
            norm.bias.data.normal_(0, 0.3, generator=generator)
    return model


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_float_graph_agrees_with_torch(name: str, options: dict[str, Any], shape: Shape) -> None:
    model = stirred(build(name, shape, 5, seed=3, **options))
    raw = images(shape)
    want = logits(model, raw).numpy()
    graph, tensors = lower(model, shape)
    assert want.std() > 0.01
    assert not graph.integer
    np.testing.assert_allclose(Artifact(graph, tensors, {}).logits(raw.numpy()), want, atol=1e-4)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_road_from_training_to_every_target(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    data = blobs((1, 16, 16))
    start = build(name, data.image_shape, len(data.classes), **options)
    before = {key: value.clone() for key, value in start.state_dict().items()}
    history: list[dict[str, float]] = []
    model = train(start, data, Training(epochs=5, batch=16), history=history)
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(torch.equal(before[key], value) for key, value in start.state_dict().items()), (
        "input untouched"
    )

    floating = carve(model, data, recipe={"model": name}, seed=0)
    raw = data.test.images
    onnx = TARGETS["onnx"]
    np.testing.assert_allclose(
        onnx.run(onnx.write(floating, tmp_path), raw), logits(model, torch.from_numpy(raw)).numpy(), atol=1e-4
    )
    with pytest.raises(UnsupportedOp):
        TARGETS["c"].write(floating, tmp_path)
    for bits in (8, 4):
        artifact = carve(quantize(model, data, bits=bits), data, recipe={}, seed=0)
        assert artifact.graph.integer
        artifact.save(tmp_path / "a.netsuke")
        back = Artifact.load(tmp_path / "a.netsuke")  # needs no class, and no torch
        want = artifact.logits(raw)
        np.testing.assert_array_equal(back.logits(raw), want)
        assert back.weight_hash == artifact.weight_hash
        assert back.classes == data.classes
        for key in ("c", "onnx"):  # the targets of integer graphs
            path = TARGETS[key].write(back, tmp_path / f"{key}{bits}")
            np.testing.assert_array_equal(TARGETS[key].run(path, raw), want, err_msg=f"{key} at {bits} bits")


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_draws_the_weights(name: str) -> None:
    def weights(seed: int) -> Tensor:
        return torch.cat([p.flatten() for p in build(name, (1, 16, 16), 3, seed=seed).parameters()])

    first = weights(0)
    torch.manual_seed(99)  # what was drawn before plays no part
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 3), (1, 8, 8), (3, 5, 40), (1, 50, 50)])
def test_any_size_builds_or_says_why_not(name: str, shape: Shape) -> None:
    try:
        model = build(name, shape, 3)
    except OptionError as error:
        said = str(error)
    else:
        said = ""
        assert logits(model, images(shape, 2)).shape == (2, 3)
        lower(model, shape)
    assert not said or f"{shape[1]}x{shape[2]}" in said


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lenet", {}, [*MODELS, "did you mean 'lenet5'"]),
        ("convnet", {"widht": 2}, ["widht", "width", "norm", "dropout"]),
        ("separable", {"dropout": 0.1}, ["dropout", "width", "depth"]),
    ],
)
def test_unknown_names_list_the_known_ones(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        build(name, (1, 28, 28), 10, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnet", {"width": -1}),
        ("convnet", {"width": "wide"}),
        ("convnet", {"dropout": 2}),
        ("separable", {"width": 0}),
        ("separable", {"width": 8.5}),
        ("separable", {"depth": -1}),
        ("lenet5", {"dropout": "x"}),
    ],
    ids=str,
)
def test_impossible_options_are_option_errors(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(NetsukeError):
        build(name, (1, 28, 28), 10, **options)
