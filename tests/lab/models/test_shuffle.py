"""ShuffleNet V1 and V2 and GhostNet: as published at 224 pixels, sensible at any other size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from netsuke.errors import OptionError
from netsuke.lab.models.ghostnet import ghostnet
from netsuke.lab.models.shufflenet_v1 import shufflenet_v1
from netsuke.lab.models.shufflenet_v2 import shufflenet_v2

Shape = tuple[int, int, int]
FAMILIES: list[Callable[..., nn.Module]] = [shufflenet_v1, shufflenet_v2, ghostnet]
IMAGENET: dict[str, Any] = {"shape": (3, 224, 224), "classes": 1000}
SMALL: dict[str, Any] = {"width": 0.25, "depth": 0.25}


def ghost(make: Callable[..., nn.Module], **options: Any) -> nn.Module:
    with torch.device("meta"):
        return make(**IMAGENET | options).eval()


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module) -> int:
    """Multiplications of a 224x224x3 image in convolutions and dense layers."""
    total = 0

    def add(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()  # type: ignore[operator, index, union-attr]

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    model(torch.empty(1, 3, 224, 224, device="meta"))
    return total


def torchvision_shapes(stages: list[int], last: int, classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ShuffleNet V2, layer by layer."""
    shapes: dict[str, tuple[int, ...]] = {}

    def normed(conv: str, norm: str, *weight: int) -> None:
        shapes[f"{conv}.weight"] = weight
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (weight[0],)
        shapes[f"{norm}.num_batches_tracked"] = ()

    normed("conv1.0", "conv1.1", 24, 3, 3, 3)
    inputs = 24
    for stage, outputs, units in zip((2, 3, 4), stages, (4, 8, 4), strict=True):
        half = outputs // 2
        for i in range(units):
            unit = f"stage{stage}.{i}"
            if i == 0:
                normed(f"{unit}.branch1.0", f"{unit}.branch1.1", inputs, 1, 3, 3)
                normed(f"{unit}.branch1.2", f"{unit}.branch1.3", half, inputs, 1, 1)
            normed(f"{unit}.branch2.0", f"{unit}.branch2.1", half, half if i else inputs, 1, 1)
            normed(f"{unit}.branch2.3", f"{unit}.branch2.4", half, 1, 3, 3)
            normed(f"{unit}.branch2.5", f"{unit}.branch2.6", half, half, 1, 1)
        inputs = outputs
    normed("conv5.0", "conv5.1", last, inputs, 1, 1)
    return {**shapes, "fc.weight": (classes, last), "fc.bias": (classes,)}


@pytest.mark.parametrize(
    ("width", "stages", "last", "parameters"),
    [
        (0.5, [48, 96, 192], 1024, 1_366_792),
        (1.0, [116, 232, 464], 1024, 2_278_604),
        (1.5, [176, 352, 704], 1024, 3_503_624),
        (2.0, [244, 488, 976], 2048, 7_393_996),
    ],
)
def test_shufflenet_v2_takes_torchvision_weights(
    width: float, stages: list[int], last: int, parameters: int
) -> None:
    model = ghost(shufflenet_v2, width=width)
    assert count(model) == parameters
    expected = torchvision_shapes(stages, last)
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == expected
    assert list(model.state_dict()) == list(expected), "also in this order"


def written_out(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """ShuffleNet V2 in plain functions, from its weights alone."""

    def conv(x: Tensor, name: str, i: int, stride: int = 1, relu: bool = True) -> Tensor:
        weight, norm = state[f"{name}.{i}.weight"], f"{name}.{i + 1}"
        groups = len(weight) if weight.shape[1] == 1 else 1
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, 1, groups)
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *parts)
        return x.relu() if relu else x

    x = F.max_pool2d(conv(x, "conv1", 0, 2), 3, 2, 1)
    for stage, units in ((2, 4), (3, 8), (4, 4)):
        for i in range(units):
            unit, stride = f"stage{stage}.{i}", 1 if i else 2
            half = x.shape[1] // 2
            left, right = (x[:, :half], x[:, half:]) if i else (x, x)
            if not i:
                left = conv(conv(left, f"{unit}.branch1", 0, 2, False), f"{unit}.branch1", 2)
            right = conv(right, f"{unit}.branch2", 0)
            right = conv(conv(right, f"{unit}.branch2", 3, stride, False), f"{unit}.branch2", 5)
            x = torch.stack([left, right], 2).flatten(1, 2)  # one channel of each in turn
    return conv(x, "conv5", 0).mean([2, 3]) @ state["fc.weight"].T + state["fc.bias"]


def stirred(model: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.bias, 0, 0.3)
            norm.running_var.uniform_(0.3, 1)  # type: ignore[union-attr, operator]
    return model.eval()


def test_shufflenet_v2_is_the_function_of_the_paper() -> None:
    torch.manual_seed(0)
    model = stirred(shufflenet_v2(shape=(3, 128, 128), classes=7, width=0.5))
    x = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        want = written_out(model.state_dict(), x)
        assert want.std() > 0.01
        torch.testing.assert_close(model(x), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("groups", "stages", "mega"),
    [
        (1, [144, 288, 576], 143),
        (2, [200, 400, 800], 140),
        (3, [240, 480, 960], 137),
        (4, [272, 544, 1088], 133),
        (8, [384, 768, 1536], 137),
    ],
)
def test_shufflenet_v1_has_the_stages_and_the_cost_of_table_1(
    groups: int, stages: list[int], mega: int
) -> None:
    model = ghost(shufflenet_v1, groups=groups)
    assert macs(model) == pytest.approx(mega * 1e6, rel=0.05)
    x = torch.empty(1, 3, 224, 224, device="meta")
    made = []
    for name, part in model.named_children():
        x = part(x)
        if name.startswith("stage"):
            made.append(tuple(x.shape[1:]))
    assert made == [(stages[0], 28, 28), (stages[1], 14, 14), (stages[2], 7, 7)]


def test_shufflenet_v1_counts_by_hand() -> None:
    total = 24 * 27 + 2 * 24
    inputs = 24
    for outputs, units in ((240, 4), (480, 8), (960, 4)):
        for i in range(units):
            arriving, made = (outputs, outputs) if i else (inputs, outputs - inputs)
            inner = outputs // 4
            first = arriving * inner // (3 if arriving > 24 else 1)
            total += first + 9 * inner + inner * made // 3 + 2 * (2 * inner + made)
        inputs = outputs
    assert count(ghost(shufflenet_v1)) == total + 960 * 1000 + 1000


def test_ghostnet_has_the_size_and_the_cost_of_the_paper() -> None:
    model = ghost(ghostnet)
    assert count(model) == pytest.approx(5.2e6, rel=0.01)
    assert count(ghost(ghostnet, width=0.5)) == pytest.approx(2.6e6, rel=0.01)
    assert count(ghost(ghostnet, width=1.3)) == pytest.approx(7.3e6, rel=0.01)
    assert macs(model) == pytest.approx(141e6, rel=0.05)


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 20), (2, 1, 1), (1, 8, 40), (3, 64, 64)])
def test_any_size(make: Callable[..., nn.Module], shape: Shape) -> None:
    model = make(shape=shape, classes=5, **SMALL).eval()
    out = model(torch.rand(2, *shape))
    assert out.shape == (2, 5)
    assert out.isfinite().all()


@pytest.mark.parametrize("make", FAMILIES)
def test_small_images_keep_a_map_to_look_at(make: Callable[..., nn.Module]) -> None:
    model = make(shape=(1, 28, 28), classes=5, **SMALL).eval()
    sizes: list[tuple[int, ...]] = []
    pool = next(m for m in model.children() if isinstance(m, nn.AdaptiveAvgPool2d))
    pool.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    model(torch.rand(1, 1, 28, 28))
    assert sizes == [(7, 7)]


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        {"act": "hardswish"},
        {"act": "prelu"},
        {"attention": "se"},
        {"attention": "cbam"},
        {"dropout": 0.5},
        {"width": 0.37, "depth": 1.3},
        {"width": 0.01},
    ],
)
def test_options_build_trace_and_learn(make: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = make(shape=(1, 16, 16), classes=3, **SMALL | options)
    model(torch.rand(4, 1, 16, 16)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        want = model.eval()(x)
        torch.testing.assert_close(fx.symbolic_trace(model)(x), want)
        torch.testing.assert_close(model(x), want)


@pytest.mark.parametrize("make", FAMILIES)
def test_attention_stands_in_every_unit_and_moves_no_name(make: Callable[..., nn.Module]) -> None:
    plain, gated = (set(ghost(make, attention=kind).state_dict()) for kind in ("none", "se"))
    assert plain < gated
    assert sum(name.endswith("fc1.weight") for name in gated - plain) == 16


@pytest.mark.parametrize("make", [shufflenet_v2, ghostnet])
def test_head_sets_the_channels_of_the_last_convolution(make: Callable[..., nn.Module]) -> None:
    *_, last = ghost(make, head=96).children()
    assert isinstance(last, nn.Linear)
    assert last.in_features == 96


def test_groups_divide_any_width() -> None:
    for groups in (1, 2, 3, 4, 8):
        for width in (0.05, 0.31, 1.7):
            model = ghost(shufflenet_v1, groups=groups, width=width, depth=0.25)
            assert model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, "width must be 0.01 to 16; got 0"),
        ({"depth": -1.0}, "depth must be 0 to 16; got -1"),
        ({"dropout": 1.0}, "dropout must be 0 to 0.99; got 1"),
        ({"act": "mish"}, "no activation 'mish'; there are relu,"),
        ({"attention": "eca"}, "no attention 'eca'; there are none,"),
    ],
)
def test_impossible_options(make: Callable[..., nn.Module], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ghost(make, **options)


def test_impossible_groups() -> None:
    with pytest.raises(OptionError, match="groups must be one of 1, 2, 3, 4, 8; got 5"):
        ghost(shufflenet_v1, groups=5)
