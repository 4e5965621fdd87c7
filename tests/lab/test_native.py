"""The C kernels of training against torch: values, gradients, statistics, and doing without them."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lab.sets import blobs
from netsuke.lab import native
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.native.library import library
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler: install gcc or clang")

CONVS = st.tuples(
    st.integers(1, 9), st.integers(1, 13), st.sampled_from([1, 2, 3, 5]), st.integers(1, 2), st.integers(0, 2)
)


def network(inputs: int, outputs: int, kernel: int, stride: int, padding: int, depthwise: bool) -> nn.Module:
    """A stem, then the layer in question, with all that may stand around it."""
    groups = inputs if depthwise else 1
    made = inputs if depthwise else outputs
    side = (9 + 2 * padding - kernel) // stride + 1
    return nn.Sequential(
        nn.Conv2d(1, inputs, 3, padding=1), nn.ReLU(),
        nn.Conv2d(inputs, made, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(made), nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True) if side > 1 else nn.Identity(), nn.Flatten(),
        nn.Linear(made * (-(-side // 2) if side > 1 else 1) ** 2, 6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


def both(graph: QuantGraph, x: torch.Tensor, labels: torch.Tensor, monkeypatch) -> list:
    """Loss, gradients and statistics of one step, by the kernels and by torch."""
    found = []
    for kernels in (True, False):
        model = copy.deepcopy(graph)
        with monkeypatch.context() as patch:
            if not kernels:
                patch.setattr(native, "usable", lambda *_: False)
                patch.setattr("netsuke.lab.integers.library", lambda: None)
            else:
                assert native.usable(model, x)
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found.append((loss.item(), gradients, dict(model.named_buffers())))
    return found


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    # Sums in another order may put one activation on the other side of a rounding: seen 1.6e-5, and 2e-4 in a variance.
    return bool((a - b).norm() <= 2e-3 * b.norm() + 5e-5)


@settings(max_examples=25, deadline=None)
@given(conv=CONVS, depthwise=st.booleans(), frozen=st.booleans(), seed=st.integers(0, 99))
def test_a_step_equals_torch(conv, depthwise, frozen, seed):
    inputs, outputs, kernel, stride, padding = conv
    padding = min(padding, kernel // 2)
    torch.manual_seed(seed)
    data = blobs((1, 9, 9), 3, 160)
    graph = quantize(
        network(inputs, outputs, kernel, stride, padding, depthwise), data, bits=4, clip=False
    ).train()
    if frozen:
        for module in graph.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    x = torch.from_numpy(data.train.images[:48]).float() / 255
    labels = torch.from_numpy(data.train.labels[:48])
    with pytest.MonkeyPatch.context() as patch:
        (loss, gradients, state), (want, wanted, kept) = both(graph, x, labels, patch)
    assert loss == pytest.approx(want, rel=1e-4)
    for name, gradient in wanted.items():
        assert close(gradients[name], gradient), name
    for name, buffer in kept.items():
        torch.testing.assert_close(state[name], buffer, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options"), [("separable", {"width": 12}), ("convnet", {"width": 0.25}), ("mlp", {})]
)
def test_in_evaluation_it_is_the_artifact_bit_for_bit(name, options):
    data = blobs((1, 14, 14), 4, 160)
    graph = quantize(build(name, data.image_shape, 4, **options), data, bits=4, bias_bits=8)
    graph = train(graph, data, Training(epochs=1, batch=16, freeze_norm=0.5)).eval()
    images = np.random.default_rng(0).integers(0, 256, (64, *data.image_shape), np.uint8)
    x = torch.from_numpy(images).float() / 255
    assert native.usable(graph, x)
    from netsuke import kernels

    plain, tensors = lower(graph, data.image_shape)
    scale = graph.layer(plain.output).scale.item()
    with torch.no_grad():
        found = np.round(graph(x).numpy() / scale).astype(np.int64)
    np.testing.assert_array_equal(found, kernels.run(plain, tensors, images))


def test_a_recalibrated_norm_has_the_mean_of_all_batches():
    from netsuke.lab.inference import recalibrate

    data = blobs((1, 14, 14), 4, 160)
    graph = quantize(build("separable", data.image_shape, 4, width=8), data, bits=4)
    images = torch.from_numpy(data.train.images)
    recalibrate(graph, images, batch=32)
    once = copy.deepcopy(graph)
    recalibrate(once, images, batch=len(images))
    first = next(iter(graph.layers.values()))
    torch.testing.assert_close(first.statistics()[0], next(iter(once.layers.values())).statistics()[0])


def test_what_it_does_not_know_is_left_to_torch():
    data = blobs((1, 14, 14), 4, 160)
    gated = quantize(build("separable", data.image_shape, 4, width=8, attention="se"), data)
    x = torch.rand(16, 1, 14, 14)
    assert not native.usable(gated, x)
    plain = quantize(build("separable", data.image_shape, 4, width=8), data)
    assert native.usable(plain, x)
    assert not native.usable(plain, x[:15])  # vectors take 16 images


WITHOUT = """
import sys
sys.path.insert(0, {tests!r})
from lab.sets import blobs
from netsuke.lab.models import build
from netsuke.lab.native.library import library
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train
assert library() is None
data = blobs((1, 14, 14), 4, 160)
graph = quantize(build("separable", data.image_shape, 4, width=8), data, bits=4)
history = []
train(graph, data, Training(epochs=2, batch=16), history=history)
print(history[-1]["loss"])
"""


@pytest.mark.parametrize("variable", [{"NETSUKE_NATIVE": "0"}, {"CC": "no-such-compiler"}])
def test_without_a_compiler_torch_does_the_work(variable, tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(tests=tests)],
        env={**os.environ, **variable, "XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 2
