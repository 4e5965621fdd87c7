"""AlexNet, VGG, ResNet, SqueezeNet, the MLP: what was published, at 224 pixels, and sense at other sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netsuke.errors import OptionError
from netsuke.lab.models import build
from netsuke.lab.models.alexnet import alexnet
from netsuke.lab.models.convnet import convnet
from netsuke.lab.models.lenet5 import lenet5
from netsuke.lab.models.lenet_caffe import lenet5_caffe, lenet_300_100
from netsuke.lab.models.mlp import mlp
from netsuke.lab.models.resnet import resnet18, resnet34, resnet_small
from netsuke.lab.models.separable import separable
from netsuke.lab.models.squeezenet import squeezenet
from netsuke.lab.models.vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn

Model = Callable[..., nn.Module]
Row = tuple[str, tuple[int, ...]]
IMAGENET = (3, 224, 224)
ALL: list[Model] = [
    alexnet,
    vgg11,
    vgg11_bn,
    resnet18,
    resnet_small,
    squeezenet,
    mlp,
    lenet5,
    lenet5_caffe,
    lenet_300_100,
    convnet,
    separable,
]
NARROW: dict[Model, dict[str, Any]] = {
    alexnet: {"width": 0.1},
    vgg11: {"width": 0.1},
    vgg11_bn: {"width": 0.1},
    resnet18: {"width": 0.1},
    resnet_small: {"width": 0.5, "depth": 1},
    squeezenet: {"width": 0.2},
    mlp: {"hidden": 16},
    lenet5_caffe: {"width": 0.2},
    lenet_300_100: {"width": 0.1},
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def layer(name: str, *shape: int, bias: bool = True) -> Iterator[Row]:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def norm(name: str, channels: int) -> Iterator[Row]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def published_alexnet() -> Iterator[Row]:
    yield from layer("features.0", 64, 3, 11, 11)
    yield from layer("features.3", 192, 64, 5, 5)
    yield from layer("features.6", 384, 192, 3, 3)
    yield from layer("features.8", 256, 384, 3, 3)
    yield from layer("features.10", 256, 256, 3, 3)
    yield from layer("classifier.1", 4096, 9216)
    yield from layer("classifier.4", 4096, 4096)
    yield from layer("classifier.6", 1000, 4096)


def published_vgg(plan: str, normed: bool) -> Iterator[Row]:
    """`plan`: a digit times 64 is a convolution, M a pool."""
    place, inputs = 0, 3
    for step in plan:
        if step != "M":
            outputs = 64 * int(step)
            yield from layer(f"features.{place}", outputs, inputs, 3, 3)
            inputs = outputs
            if normed:
                place += 1
                yield from norm(f"features.{place}", outputs)
            place += 1
        place += 1
    for at, outputs, width in ((0, 4096, 25088), (3, 4096, 4096), (6, 1000, 4096)):
        yield from layer(f"classifier.{at}", outputs, width)


def published_resnet(*depths: int) -> Iterator[Row]:
    yield from layer("conv1", 64, 3, 7, 7, bias=False)
    yield from norm("bn1", 64)
    inputs = 64
    for stage, depth in enumerate(depths, 1):
        outputs = 32 << stage
        for block in range(depth):
            at = f"layer{stage}.{block}"
            for i, arriving in ((1, inputs), (2, outputs)):
                yield from layer(f"{at}.conv{i}", outputs, arriving, 3, 3, bias=False)
                yield from norm(f"{at}.bn{i}", outputs)
            if inputs != outputs:
                yield from layer(f"{at}.downsample.0", outputs, inputs, 1, 1, bias=False)
                yield from norm(f"{at}.downsample.1", outputs)
            inputs = outputs
    yield from layer("fc", 1000, 512)


def published_squeezenet() -> Iterator[Row]:
    yield from layer("features.0", 64, 3, 3, 3)
    fires = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
    fires |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}
    for at, (inputs, squeeze, expand) in fires.items():
        yield from layer(f"features.{at}.squeeze", squeeze, inputs, 1, 1)
        yield from layer(f"features.{at}.expand1x1", expand, squeeze, 1, 1)
        yield from layer(f"features.{at}.expand3x3", expand, squeeze, 3, 3)
    yield from layer("classifier.1", 1000, 512, 1, 1)


A, B, D = "1M2M44M88M88M", "11M22M44M88M88M", "11M22M444M888M888M"
PUBLISHED: list[tuple[Model, int, list[Row]]] = [
    (alexnet, 61_100_840, list(published_alexnet())),
    (vgg11, 132_863_336, list(published_vgg(A, False))),
    (vgg13, 133_047_848, list(published_vgg(B, False))),
    (vgg16, 138_357_544, list(published_vgg(D, False))),
    (vgg11_bn, 132_868_840, list(published_vgg(A, True))),
    (vgg13_bn, 133_053_736, list(published_vgg(B, True))),
    (vgg16_bn, 138_365_992, list(published_vgg(D, True))),
    (resnet18, 11_689_512, list(published_resnet(2, 2, 2, 2))),
    (resnet34, 21_797_672, list(published_resnet(3, 4, 6, 3))),
    (squeezenet, 1_235_496, list(published_squeezenet())),
]


@pytest.mark.parametrize(("model", "parameters", "rows"), PUBLISHED, ids=lambda v: getattr(v, "__name__", ""))
def test_imagenet_size_is_the_published_network(model: Model, parameters: int, rows: list[Row]) -> None:
    with torch.device("meta"):
        net = model(shape=IMAGENET, classes=1000)
        out = net.eval()(torch.empty(2, *IMAGENET))
    assert count(net) == parameters
    assert [(name, tuple(value.shape)) for name, value in net.state_dict().items()] == rows
    assert out.shape == (2, 1000)


def trace(net: nn.Module, shape: tuple[int, int, int]) -> list[tuple[str, tuple[int, ...]]]:
    """Kind and output map of every convolution, pool and dense layer, in the order of work."""
    seen: list[tuple[str, tuple[int, ...]]] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        seen.append((type(module).__name__, tuple(out.shape[1:])))

    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            part.register_forward_hook(hook)
    with torch.device("meta"):
        net.eval()(torch.empty(1, *shape))
    return seen


@pytest.mark.parametrize(
    ("model", "sides"),
    [
        (alexnet, [55, 27, 27, 13, 13, 13, 13, 6, 6]),
        (vgg11, [224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14, 7, 7]),
        (resnet18, [112, *[56] * 5, *[28] * 5, *[14] * 5, *[7] * 5, 1]),
        (squeezenet, [111, 55, *[55] * 6, 27, *[27] * 6, 13, *[13] * 12, 13, 1]),
    ],
)
def test_maps_at_imagenet_size(model: Model, sides: list[int]) -> None:
    with torch.device("meta"):
        net = model(shape=IMAGENET, classes=1000)
    assert [size[-1] for _, size in trace(net, IMAGENET) if len(size) == 3] == sides


def test_rounding_of_squeezenets_pools() -> None:
    """A map of 24 pools to 12 by rounding up, where rounding down gives 11."""
    net = squeezenet(shape=(1, 50, 50), classes=3, width=0.1)
    assert [size[-1] for kind, size in trace(net, (1, 50, 50)) if kind == "MaxPool2d"] == [12, 6]


@pytest.mark.parametrize(
    ("model", "options", "parameters"),
    [
        (alexnet, {"width": 0.1875}, 172_318),
        (vgg11, {"width": 0.125}, 153_386),
        (vgg11_bn, {"width": 0.125}, 154_074),
        (resnet18, {"width": 0.125}, 176_578),
        (resnet_small, {}, 272_186),  # ResNet-20 has 272 474 with three colours
        (resnet_small, {"depth": 1, "stem": 2}, 77_754),
        (squeezenet, {"width": 0.25}, 47_034),
        (mlp, {"hidden": 256}, 269_322),
        (mlp, {"depth": 0}, 7_850),
        (lenet5, {}, 61_706),
        (lenet5_caffe, {}, 431_080),  # as Han et al. (2016) count them
        (lenet_300_100, {}, 266_610),
        (convnet, {}, 225_034),
    ],
)
def test_parameters_at_28_pixels(model: Model, options: dict[str, Any], parameters: int) -> None:
    assert count(model(shape=(1, 28, 28), classes=10, **options)) == parameters


@pytest.mark.parametrize("model", [resnet18, squeezenet])
def test_the_weights_fit_every_size(model: Model) -> None:
    """What was learnt at one size can start another."""
    large, small = (model(shape=(1, side, side), classes=3, **NARROW[model]) for side in (224, 28))
    small.load_state_dict(large.state_dict())


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 9), (1, 28, 28), (3, 32, 32), (2, 12, 70), (3, 64, 65)])
def test_any_size_gives_finite_logits_or_a_clear_error(model: Model, shape: tuple[int, int, int]) -> None:
    if min(shape[1:]) < {lenet5: 12, lenet5_caffe: 4, convnet: 4}.get(model, 0):
        with pytest.raises(
            OptionError, match=rf"layer '\d' .* map that arrives there from a {shape[1]}x{shape[2]}"
        ):
            build(model.__name__, shape, 3)
        return
    net = model(shape=shape, classes=3, **NARROW.get(model, {}))
    out = net.eval()(torch.rand(2, *shape))
    assert out.shape == (2, 3)
    assert out.isfinite().all()


@pytest.mark.parametrize("model", ALL)
def test_every_option_takes_effect(model: Model) -> None:
    """`act`, `attention` and `pool` change the layers, and gradients reach every parameter."""
    known = inspect.signature(model).parameters
    plain = model(shape=(1, 28, 28), classes=3, **NARROW.get(model, {}))
    for key, value, kind in (
        ("act", "prelu", "PReLU"),
        ("act", "silu", "SiLU"),
        ("attention", "se", "SqueezeExcitation"),
        ("attention", "cbam", "CBAM"),
        ("pool", "avg", "AvgPool2d"),
        ("pool", "max", "MaxPool2d"),
        ("norm", True, "BatchNorm"),
    ):
        if key not in known:
            continue
        torch.manual_seed(2)
        net = model(shape=(1, 28, 28), classes=3, **NARROW.get(model, {}), **{key: value})
        kinds = [type(part).__name__ for part in net.modules()]
        assert any(name.startswith(kind) for name in kinds), (key, value)
        if value != known[key].default:
            assert kinds != [type(part).__name__ for part in plain.modules()]
        net(torch.rand(4, 1, 28, 28)).square().sum().backward()
        assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("model", [vgg11_bn, squeezenet, mlp, convnet, lenet5_caffe, lenet_300_100])
def test_norms_stand_right_behind_their_layer(model: Model) -> None:
    options = {} if model is vgg11_bn else {"norm": True}
    seen: list[nn.Module] = []
    net = model(shape=(1, 28, 28), classes=3, **NARROW.get(model, {}), **options)
    for part in net.modules():
        if not list(part.children()):
            part.register_forward_hook(lambda module, *_: seen.append(module))
    net.eval()(torch.rand(1, 1, 28, 28))
    behind = [before for before, part in pairwise(seen) if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert behind
    assert all(isinstance(part, nn.Conv2d | nn.Linear) for part in behind)


@pytest.mark.parametrize("attention", ["none", "se"])
def test_the_shortcut_reads_what_the_block_got(attention: str) -> None:
    """With a silent branch a residual block must give back its own, positive, input."""
    net = resnet_small(shape=(1, 28, 28), classes=3, width=0.5, attention=attention).eval()
    block = net.layer1[0]
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 8, 5, 5)
    torch.testing.assert_close(block(x.clone()), x)


def test_depth_and_stem_of_the_small_resnet() -> None:
    deep = resnet_small(shape=(3, 32, 32), classes=10, depth=9)
    layers = [m for m in deep.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(layers) + 1 == 6 * 9 + 2
    first = {stem: resnet_small(shape=(1, 28, 28), classes=10, stem=stem).conv1.stride for stem in (1, 2)}
    assert first == {1: (1, 1), 2: (2, 2)}


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (alexnet, {"width": 0}, "alexnet: width"),
        (vgg13_bn, {"width": -1.0}, "vgg13_bn: width"),
        (vgg16, {"dropout": 2.0}, "vgg16: dropout"),
        (resnet34, {"width": 99.0}, "resnet34: width"),
        (resnet_small, {"depth": 0}, "resnet_small: depth"),
        (resnet_small, {"stem": 3}, "resnet_small: stem"),
        (mlp, {"hidden": 0}, "mlp: hidden"),
        (lenet5_caffe, {"width": -1}, "lenet5_caffe: width"),
        (lenet_300_100, {"dropout": 2}, "lenet_300_100: dropout"),
        (squeezenet, {"act": "gelu"}, "no activation 'gelu'"),
        (resnet18, {"attention": "self"}, "no attention 'self'"),
        (lenet5, {"pool": "median"}, "no pool 'median'; there are max, avg"),
    ],
)
def test_impossible_options_are_named(model: Model, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        model(shape=(1, 28, 28), classes=3, **options)
