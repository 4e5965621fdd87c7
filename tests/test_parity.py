"""All 10 000 MNIST test images: reference, compiled C and exact ONNX give the same integers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphs import random_images, small_artifact
from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.export import c, onnx
from netsuke.lab.carve import carve
from netsuke.lab.inference import accuracy, logits
from netsuke.lab.models import build
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import Training, train

needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler: apt install gcc")

# The C is portable; the flags only save minutes.
FLAGS = ("-O3", "-march=native", "-funroll-loops")


def assert_parity(artifact: Artifact, images: np.ndarray, folder: Path) -> None:
    """Zero differences between the three runtimes on every image."""
    want = artifact.logits(images)
    assert want.dtype == np.int32
    assert len(np.unique(want.argmax(1))) > 1, "a network that says the same to everything proves nothing"
    assert np.count_nonzero(onnx.run(onnx.write(artifact, folder), images) != want) == 0
    assert np.count_nonzero(c.run(c.write(artifact, folder), images, flags=FLAGS) != want) == 0


@needs_cc
@pytest.mark.parametrize("name", zoo.names())
def test_shipped(name: str, mnist: Dataset, tmp_path: Path) -> None:
    artifact = Artifact.load(zoo.path(name))
    images = mnist.test.images
    if artifact.graph.input_shape != mnist.image_shape:
        images = random_images(artifact.graph, 1000)
    assert_parity(artifact, images, tmp_path)


@needs_cc
def test_small_artifact(tmp_path: Path) -> None:
    artifact = small_artifact()
    assert_parity(artifact, random_images(artifact.graph, 2000), tmp_path)


# The whole test half for three; every architecture has its turn, on fewer images, in tests/lab/test_models.py.
@pytest.fixture(scope="module", params=["convnet", "lenet5", "separable"])
def trained(request: pytest.FixtureRequest, mnist: Dataset) -> tuple[torch.nn.Module, Dataset]:
    """A model of the family after a fraction of an epoch: enough that activations fill their range."""
    data = replace(mnist, train=mnist.train.take(np.arange(0, 55_000, 20)), hash="a twentieth")
    torch.manual_seed(0)
    model = build(request.param, data.image_shape, 10)
    return train(model, data, Training(epochs=1, batch=64)), data


def test_float_onnx_agrees_with_torch(trained: tuple[torch.nn.Module, Dataset], tmp_path: Path) -> None:
    model, data = trained
    artifact = carve(model, data, recipe={}, seed=0)
    images = data.test.images
    got = onnx.run(onnx.write(artifact, tmp_path), images)
    assert np.abs(got - logits(model, torch.from_numpy(images.copy())).numpy()).max() < 1e-4


@needs_cc
@pytest.mark.parametrize("bits", [8, 4])
def test_quantised(trained: tuple[torch.nn.Module, Dataset], bits: int, tmp_path: Path) -> None:
    model, data = trained
    twin: Any = quantize(model, data, bits=bits)
    artifact = carve(twin, data, recipe={}, seed=0)
    images = data.test.images
    assert_parity(artifact, images if bits == 8 else images[::5], tmp_path)
    if bits == 8:  # four bits need training of their own
        part = data.test.take(np.arange(1000))
        right = (artifact.logits(part.images).argmax(1) == part.labels).mean()
        assert right > accuracy(model, part)[0] - 0.03
