"""What every architecture must do; a new line in MODELS is tested without a line here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.sets import blobs
from netsuke import import_onnx, kernels
from netsuke.artifact import Artifact
from netsuke.errors import NetsukeError, OptionError, UnsupportedOp
from netsuke.export import TARGETS
from netsuke.lab.carve import carve
from netsuke.lab.inference import logits
from netsuke.lab.lower import lower
from netsuke.lab.models import MODELS, build
from netsuke.lab.models.blocks import ACTIVATIONS
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train

Options = dict[str, Any]
Shape = tuple[int, int, int]
SHAPES: list[Shape] = [(1, 28, 28), (3, 17, 20)]
NARROW: Options = {"width": 0.25, "depth": 0.3, "head": 32}
# Options that leave a net small; a model without a line is tested at an eighth of its width.
SMALL: dict[str, list[Options]] = {
    "mlp": [{"hidden": 16}, {"hidden": 12, "norm": True}],
    "lenet5": [{}],
    "convnet": [{"width": 0.25}, {"width": 0.2, "norm": True}],
    "separable": [{"width": 9}, {"width": 12, "depth": 0}],
    "resnet_small": [{"width": 0.25, "depth": 1}],
    "shufflenet_v1": [{"width": 0.25, "depth": 0.3}],
    **{key: [NARROW] for key in MODELS if key.startswith("mobilenet")},
    **{key: [NARROW] for key in ("shufflenet_v2", "efficientnet_b0", "ghostnet")},
}


def small(name: str) -> list[Options]:
    return SMALL.get(name, [{"width": 0.125}])


CASES = [(name, options) for name in MODELS for options in small(name)]
TAKING = {  # two nets with every attention and activation
    "separable": {"width": 8},
    "mobilenet_v2": NARROW,
}
VARIANTS = [
    *((name, options | {"attention": kind}) for name, options in TAKING.items() for kind in ("se", "cbam")),
    *((name, options | {"act": act}) for name, options in TAKING.items() for act in ACTIVATIONS),
    ("lenet5", {"pool": "max", "act": "tanh"}),
    ("squeezenet", {"width": 0.125, "pool": "avg", "norm": True}),
    ("resnet18", {"width": 0.125, "attention": "cbam", "act": "prelu"}),
]


def images(shape: Shape, n: int = 24) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, *shape), np.uint8))


def stirred(model: nn.Module) -> nn.Module:
    """Weights that carry a signal to the end, batch norms far from the identity, as training leaves them."""
    generator = torch.Generator().manual_seed(7)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                layer.bias.data.normal_(0, 0.1, generator=generator)
        if isinstance(layer, nn.PReLU):
            layer.weight.data.uniform_(-0.5, 0.5, generator=generator)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(0, 0.3, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.3, 2, generator=generator)  # type: ignore[union-attr]
            layer.weight.data.uniform_(-1.5, 1.5, generator=generator)
            layer.bias.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def assert_near(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """Within 1e-4 of the largest magnitude."""
    assert got.shape == want.shape, what
    assert np.abs(got - want).max() <= 1e-4 * max(np.abs(want).max(), 1e-6), what


@torch.no_grad()
def assert_lowers(model: nn.Module, raw: Tensor) -> Artifact:
    """Graph and module agree, op by op with torch's own; the artifact of the graph."""
    shape = (raw.shape[1], raw.shape[2], raw.shape[3])
    want = logits(model, raw).numpy()
    assert want.std() > 0.01
    graph, tensors = lower(model, shape)
    assert not graph.integer
    values = kernels.activations(graph, tensors, raw.numpy())
    assert_near(values[graph.output], want, "logits")
    twin = FloatGraph(graph, tensors).activations(raw.float() / 255)
    for op in graph.ops:
        assert_near(values[op.name], twin[op.name].numpy(), f"{op.kind} {op.name}")
    return Artifact(graph, tensors, {"classes": [str(i) for i in range(want.shape[1])]})


def assert_exports(artifact: Artifact, raw: np.ndarray, folder: Path) -> None:
    """ONNX agrees, and C too; exactly where the graph is of integers, which is all that C knows."""
    onnx, want = TARGETS["onnx"], artifact.logits(raw)
    path = onnx.write(artifact, folder)
    got = onnx.run(path, raw)
    if not artifact.graph.integer:
        assert_near(got, want, "onnx")
        back = import_onnx.load(path)  # the file as anyone may hand it in
        assert_near(back.logits(raw), want, "imported")
        assert [op.kind for op in back.graph.ops] == [op.kind for op in artifact.graph.ops]
        return
    np.testing.assert_array_equal(got, want)
    c = TARGETS["c"]
    np.testing.assert_array_equal(c.run(c.write(artifact, folder), raw), want)


def assert_twin(twin: nn.Module, artifact: Artifact, raw: np.ndarray) -> None:
    """The trainable twin gives the integer graph's own numbers, times the scale of its last op."""
    scale = artifact.graph.ops[-1].attrs.get("scale", 1.0)
    got, want = logits(twin, torch.from_numpy(raw)).double().numpy() / scale, artifact.logits(raw)
    np.testing.assert_array_equal(np.rint(got), want)
    np.testing.assert_allclose(got, want, rtol=2.0**-20, atol=0.1)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_float_graph_agrees_with_torch(name: str, options: Options, shape: Shape, tmp_path: Path) -> None:
    raw = images(shape, 6)
    artifact = assert_lowers(stirred(build(name, shape, 5, seed=3, **options)), raw)
    assert_exports(artifact, raw.numpy(), tmp_path)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_attention_activations_and_pools(name: str, options: Options, tmp_path: Path) -> None:
    data = blobs((1, 19, 22), n=40)
    model = stirred(build(name, data.image_shape, 4, seed=3, **options))
    raw = images(data.image_shape, 6)
    assert_exports(assert_lowers(model, raw), raw.numpy(), tmp_path)
    twin = quantize(model, data)
    artifact = carve(twin, data, recipe={}, seed=0)
    assert_twin(twin, artifact, raw.numpy())
    assert_exports(artifact, raw.numpy(), tmp_path)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_road_from_training_to_every_target(name: str, options: Options, tmp_path: Path) -> None:
    data = blobs((1, 20, 20))
    start = build(name, data.image_shape, len(data.classes), **options)
    before = {key: value.clone() for key, value in start.state_dict().items()}
    history: list[dict[str, float]] = []
    model = train(start, data, Training(epochs=2, batch=16), history=history)
    after = model.state_dict()
    assert all(np.isfinite(row["loss"]) for row in history)
    assert all(torch.equal(before[key], value) for key, value in start.state_dict().items()), "untouched"
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) > len(before) / 2, "it learns"

    raw = data.test.images
    floating = carve(model, data, recipe={"model": name}, seed=0)
    assert_exports(floating, raw, tmp_path)
    with pytest.raises(UnsupportedOp, match="c takes integer graphs: quantise the model first"):
        TARGETS["c"].write(floating, tmp_path)
    twin = quantize(model, data)
    artifact = carve(twin, data, recipe={}, seed=0)
    assert artifact.graph.integer
    assert_twin(twin, artifact, raw)
    artifact.save(tmp_path / "a.netsuke")
    back = Artifact.load(tmp_path / "a.netsuke")
    assert back.weight_hash == artifact.weight_hash
    assert back.classes == data.classes
    assert_exports(back, raw, tmp_path)


RELOAD = """
import sys
sys.modules["torch"] = None  # importing it is an error from here on
import numpy as np
from netsuke.artifact import Artifact
raw = np.load("raw.npy")
for name in sys.argv[1:]:
    np.save(f"{name}.npy", Artifact.load(f"{name}.netsuke").logits(raw))
print([m for m in sys.modules if m.startswith("netsuke.lab")])
"""


def test_any_network_reloads_without_its_class_and_without_torch(tmp_path: Path) -> None:
    data = blobs((1, 20, 20), n=40)
    raw = data.test.images
    np.save(tmp_path / "raw.npy", raw)
    want: dict[str, np.ndarray] = {}
    for name in MODELS:
        model = stirred(build(name, data.image_shape, 4, seed=3, **small(name)[0]))
        artifacts = {name: carve(model, data, recipe={}, seed=0)}
        if name in ("ghostnet", "mobilenet_v3_small", "shufflenet_v2", "resnet_small", "squeezenet"):
            artifacts[f"{name}-int8"] = carve(quantize(model, data), data, recipe={}, seed=0)
        for key, artifact in artifacts.items():
            artifact.save(tmp_path / f"{key}.netsuke")
            want[key] = artifact.logits(raw)
    command = [sys.executable, "-c", RELOAD, *want]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n", "it loads nothing of the lab"
    for key, value in want.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{key}.npy"), value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alexnet", {"width": 0.125}),
        ("vgg16_bn", {"width": 0.125}),
        ("resnet34", {"width": 0.125}),
        ("squeezenet", {"width": 0.25}),
        ("mobilenet_v3_large", {"width": 0.35}),
        ("shufflenet_v2", {"width": 0.5}),
        ("efficientnet_b0", {"width": 0.25}),
        ("ghostnet", {"width": 0.25}),
    ],
)
def test_photographs(name: str, options: Options) -> None:
    """The published depth at 224x224x3."""
    shape = (3, 224, 224)
    graph, tensors = lower(build(name, shape, 7, **options), shape)
    assert graph.types(tensors)[graph.output].shape == (7,)


def test_a_photograph_through_a_narrow_net() -> None:
    shape = (3, 224, 224)
    assert_lowers(stirred(build("mobilenet_v2", shape, 7, **NARROW)), images(shape, 1))


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_draws_the_weights(name: str) -> None:
    def weights(seed: int) -> Tensor:
        model = build(name, (1, 20, 20), 3, seed=seed, **small(name)[0])
        return torch.cat([p.flatten() for p in model.parameters()])

    first = weights(0)
    torch.manual_seed(99)  # what was drawn before plays no part
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 3), (1, 8, 8), (3, 5, 40), (1, 50, 50)])
def test_any_size_builds_or_says_why_not(name: str, shape: Shape) -> None:
    try:
        model = build(name, shape, 3, **small(name)[0])
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
