"""MobileNets and EfficientNet: torchvision's names and shapes at 224 pixels, sense at any other size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from netsuke.errors import OptionError
from netsuke.lab.models.blocks import CBAM, SqueezeExcitation, StochasticDepth
from netsuke.lab.models.efficientnet import efficientnet_b0
from netsuke.lab.models.mobilenet_v1 import mobilenet_v1
from netsuke.lab.models.mobilenet_v2 import mobilenet_v2
from netsuke.lab.models.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small

Make = Callable[..., nn.Module]
Shapes = Iterator[tuple[str, tuple[int, ...]]]
FAMILIES: list[Make] = [mobilenet_v1, mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large, efficientnet_b0]
SLIM: dict[str, Any] = {"width": 0.2, "depth": 0.3}


def imagenet(make: Make, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return make(shape=(3, 224, 224), classes=1000, **options)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# The published tables once more, written out as torchvision names and shapes them.


def norm(name: str, channels: int) -> Shapes:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def conv_norm(name: str, inputs: int, outputs: int, kernel: int = 1) -> Shapes:
    yield f"{name}.0.weight", (outputs, inputs, kernel, kernel)
    yield from norm(f"{name}.1", outputs)


def biased(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def squeeze(name: str, channels: int, hidden: int) -> Shapes:
    yield from biased(f"{name}.fc1", hidden, channels, 1, 1)
    yield from biased(f"{name}.fc2", channels, hidden, 1, 1)


def inverted(name: str, inputs: int, hidden: int, outputs: int, kernel: int, squeezed: int) -> Shapes:
    part = 0
    if hidden != inputs:
        yield from conv_norm(f"{name}.block.0", inputs, hidden)
        part = 1
    yield from conv_norm(f"{name}.block.{part}", 1, hidden, kernel)
    if squeezed:
        part += 1
        yield from squeeze(f"{name}.block.{part}", hidden, squeezed)
    yield from conv_norm(f"{name}.block.{part + 1}", hidden, outputs)


def v2() -> Shapes:
    yield from conv_norm("features.0", 3, 32, 3)
    inputs = 32
    for i, outputs in enumerate([16] + [24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 + [320], 1):
        hidden, name = inputs * (6 if i > 1 else 1), f"features.{i}.conv"
        if i > 1:
            yield from conv_norm(f"{name}.0", inputs, hidden)
        part = int(i > 1)
        yield from conv_norm(f"{name}.{part}", 1, hidden, 3)
        yield f"{name}.{part + 1}.weight", (outputs, hidden, 1, 1)
        yield from norm(f"{name}.{part + 2}", outputs)
        inputs = outputs
    yield from conv_norm("features.18", 320, 1280)
    yield from biased("classifier.1", 1000, 1280)


# Inputs, expanded, outputs, kernel, units that squeeze.
V3_SMALL = """16 16 16 3 8;    16 72 24 3 0;    24 88 24 3 0;    24 96 40 5 24;   40 240 40 5 64;  40 240 40 5 64
40 120 48 5 32;  48 144 48 5 40;  48 288 96 5 72;  96 576 96 5 144; 96 576 96 5 144"""
V3_LARGE = """16 16 16 3 0;    16 64 24 3 0;    24 72 24 3 0;    24 72 40 5 24;   40 120 40 5 32;  40 120 40 5 32
40 240 80 3 0;   80 200 80 3 0;   80 184 80 3 0;   80 184 80 3 0;   80 480 112 3 120; 112 672 112 3 168
112 672 160 5 168; 160 960 160 5 240; 160 960 160 5 240"""


def v3(table: str, last: int, hidden: int) -> Shapes:
    yield from conv_norm("features.0", 3, 16, 3)
    rows = [tuple(map(int, row.split())) for row in table.replace("\n", ";").split(";")]
    for i, row in enumerate(rows, 1):
        yield from inverted(f"features.{i}", *row)
    yield from conv_norm(f"features.{len(rows) + 1}", rows[-1][2], last)
    yield from biased("classifier.0", hidden, last)
    yield from biased("classifier.3", 1000, hidden)


def b0(deeper: float = 1.0) -> Shapes:
    yield from conv_norm("features.0", 3, 32, 3)
    inputs = 32
    table = zip([16, 24, 40, 80, 112, 192, 320], [3, 3, 5, 3, 5, 5, 3], [1, 2, 2, 3, 3, 4, 1], strict=True)
    for stage, (outputs, kernel, count) in enumerate(table, 1):
        for i in range(ceil(count * deeper)):
            hidden = inputs * (6 if stage > 1 else 1)
            yield from inverted(f"features.{stage}.{i}", inputs, hidden, outputs, kernel, inputs // 4)
            inputs = outputs
    yield from conv_norm("features.8", 320, 1280)
    yield from biased("classifier.1", 1000, 1280)


@pytest.mark.parametrize(
    ("make", "options", "shapes", "count"),
    [
        (mobilenet_v2, {}, v2(), 3_504_872),
        (mobilenet_v3_small, {}, v3(V3_SMALL, 576, 1024), 2_542_856),
        (mobilenet_v3_large, {}, v3(V3_LARGE, 960, 1280), 5_483_032),
        (efficientnet_b0, {}, b0(), 5_288_548),
        (efficientnet_b0, {"phi": 1}, b0(1.1), 7_794_184),
    ],
)
def test_weights_are_named_and_shaped_as_published(
    make: Make, options: dict[str, Any], shapes: Shapes, count: int
) -> None:
    model = imagenet(make, **options)
    got = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert got == dict(shapes)
    assert parameters(model) == count


@pytest.mark.parametrize(
    ("make", "options", "count"),
    [
        (mobilenet_v1, {}, 4_231_976),
        (mobilenet_v1, {"width": 0.5}, 1_331_592),
        (mobilenet_v2, {"width": 1.4}, 6_108_776),
        (efficientnet_b0, {"phi": 4}, 19_341_616),
        (efficientnet_b0, {"phi": 7}, 66_347_960),
    ],
)
def test_scaled_networks_have_the_published_size(make: Make, options: dict[str, Any], count: int) -> None:
    assert parameters(imagenet(make, **options)) == count


def halvings(model: nn.Module) -> list[int]:
    return [m.stride[0] for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (mobilenet_v1, [0, 2, 4, 6, 12]),
        (mobilenet_v2, [0, 2, 4, 7, 14]),
        (mobilenet_v3_small, [0, 1, 2, 4, 9]),
        (mobilenet_v3_large, [0, 2, 4, 7, 13]),
        (efficientnet_b0, [0, 2, 4, 6, 12]),
    ],
)
def test_halvings_are_the_published_ones_and_the_first_two_at_28(make: Make, at: list[int]) -> None:
    big = halvings(imagenet(make))
    assert [i for i, stride in enumerate(big) if stride == 2] == at
    with torch.device("meta"):
        small = halvings(make(shape=(1, 28, 28), classes=10))
    assert [i for i, stride in enumerate(small) if stride == 2] == at[:2]


def layers(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, kind)]


def test_details_that_names_do_not_show() -> None:
    small = imagenet(mobilenet_v3_small)
    assert {(m.eps, m.momentum) for m in layers(small, nn.BatchNorm2d)} == {(1e-3, 1e-2)}
    assert len(layers(small, nn.Hardsigmoid)) == 9
    assert len(layers(small, nn.Hardswish)) == 1 + 8 * 2 + 1 + 1
    assert len(layers(small, nn.ReLU)) == 1 + 2 * 2 + 9  # nine of them squeeze
    assert len(layers(imagenet(mobilenet_v3_large), nn.Hardswish)) == 1 + 9 * 2 + 1 + 1
    v2_acts = imagenet(mobilenet_v2)
    assert len(layers(v2_acts, nn.ReLU6)) == 35
    assert {(m.eps, m.momentum) for m in layers(v2_acts, nn.BatchNorm2d)} == {(1e-5, 0.1)}

    net = imagenet(efficientnet_b0)
    drops = [m.p for m in layers(net, StochasticDepth)]
    assert drops == pytest.approx([0.2 * i / 16 for i in range(16)])
    assert {(m.eps, m.momentum) for m in layers(net, nn.BatchNorm2d)} == {(1e-5, 0.1)}
    assert len(layers(net, nn.SiLU)) == 1 + 15 * 3 + 2 + 1
    b5 = imagenet(efficientnet_b0, phi=5)
    assert {(m.eps, m.momentum) for m in layers(b5, nn.BatchNorm2d)} == {(1e-3, 1e-2)}
    assert [layers(imagenet(efficientnet_b0, phi=i), nn.Dropout)[0].p for i in (0, 3, 4, 7)] == [
        0.2,
        0.3,
        0.4,
        0.5,
    ]
    assert layers(imagenet(efficientnet_b0, dropout=0.0), nn.Dropout)[0].p == 0


def test_initial_weights_follow_the_published_recipe() -> None:
    torch.manual_seed(0)
    net = mobilenet_v3_small(shape=(1, 28, 28), classes=10)
    point = net.get_parameter("features.10.block.0.0.weight")
    assert point.std().item() == pytest.approx((2 / len(point)) ** 0.5, rel=0.05)
    assert net.get_parameter("classifier.0.weight").std().item() == pytest.approx(0.01, rel=0.05)
    assert not net.get_parameter("features.10.block.2.fc1.bias").any()
    last = efficientnet_b0(shape=(1, 28, 28), classes=16, **SLIM).get_parameter("classifier.1.weight")
    assert 0.24 < last.abs().max().item() <= 0.25


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (2, 5, 33), (3, 64, 64)])
def test_any_size_gives_logits(make: Make, shape: tuple[int, int, int]) -> None:
    model = make(shape=shape, classes=7, **SLIM).eval()
    assert model(torch.rand(2, *shape)).shape == (2, 7)


def images() -> Tensor:
    return torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [{}, {"attention": "se"}, {"attention": "cbam"}, {"act": "leaky"}, {"head": 20, "dropout": 0.5}],
)
def test_options_train_and_trace(make: Make, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = make(shape=(1, 12, 12), classes=3, **SLIM, **options)
    model(images()).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    x = images()
    assert torch.equal(fx.symbolic_trace(model)(x), model(images()))
    assert torch.equal(x, images()), "input untouched"


def blocks(model: nn.Module) -> int:
    """Depthwise convolutions, one a block."""
    return sum(m.groups > 1 for m in layers(model, nn.Conv2d))


@pytest.mark.parametrize("make", FAMILIES)
def test_attention_sits_in_every_block(make: Make) -> None:
    for kind, part in (("se", SqueezeExcitation), ("cbam", CBAM)):
        model = imagenet(make, attention=kind)
        assert len(layers(model, part)) == blocks(model)
        assert not layers(model, CBAM if part is SqueezeExcitation else SqueezeExcitation)


@pytest.mark.parametrize(
    ("make", "counts"),
    [
        (mobilenet_v1, (5, 13, 26)),
        (mobilenet_v2, (7, 17, 34)),
        (mobilenet_v3_small, (5, 11, 22)),
        (mobilenet_v3_large, (6, 15, 30)),
        (efficientnet_b0, (7, 16, 32)),
    ],
)
def test_depth_scales_the_blocks_and_a_stage_keeps_one(make: Make, counts: tuple[int, ...]) -> None:
    assert tuple(blocks(imagenet(make, depth=depth)) for depth in (0.1, 1.0, 2.0)) == counts


def test_head_sets_the_last_width_which_small_images_scale() -> None:
    def last(make: Make, side: int, **options: Any) -> int:
        with torch.device("meta"):
            model = make(shape=(1, side, side), classes=10, **options)
        return int(layers(model, nn.Linear)[-1].in_features)

    assert [last(mobilenet_v2, side, width=0.25) for side in (28, 63, 64, 224)] == [320, 320, 1280, 1280]
    assert [last(make, 28, head=48) for make in FAMILIES] == [48] * 5
    assert last(mobilenet_v3_small, 28, width=0.25) == 256


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0.0}, "width must be"),
        ({"depth": 0.0}, "depth must be"),
        ({"depth": float("nan")}, "depth must be"),
        ({"head": -1}, "head must be"),
        ({"dropout": 1.5}, "dropout must be"),
        ({"act": "mish"}, "no activation 'mish'"),
        ({"attention": "eca"}, "no attention 'eca'; there are none, se, cbam"),
    ],
)
def test_impossible_options_say_what_would_work(make: Make, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make(shape=(1, 28, 28), classes=10, **options)


def test_phi_ends_at_seven() -> None:
    with pytest.raises(OptionError, match="phi must be 0 to 7; got 8"):
        efficientnet_b0(shape=(1, 28, 28), classes=10, phi=8)
