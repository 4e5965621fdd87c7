"""Engines against the NumPy reference."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from graphs import random_images, small_artifact
from netsuke.engine import BACKENDS, Engine
from netsuke.errors import GraphError, MissingExtra, OptionError


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("integer", [True, False])
def test_every_backend_meets_the_reference(backend, integer):
    artifact = small_artifact(integer=integer)
    images = random_images(artifact.graph, 7)
    got, want = Engine(artifact, backend=backend, threads=2).run(images), artifact.logits(images)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, atol=0 if integer else 1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_images_are_one_error_everywhere(backend):
    engine = Engine(small_artifact(), backend=backend)
    assert engine.backend == backend
    for images in (np.zeros((1, 1, 12, 9), np.uint8), np.zeros((1, 1, 12, 10), np.float32)):
        with pytest.raises(GraphError, match="needs uint8 images"):
            engine.run(images)
    assert engine.run(np.zeros((0, 1, 12, 10), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_runtime_is_named_or_passed_over(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)  # an import of it now fails
    assert Engine(small_artifact()).backend == "numpy"
    with pytest.raises(MissingExtra, match=r"pip install 'netsuke\[onnx\]'"):
        Engine(small_artifact(), backend="onnxruntime")


def test_auto_takes_the_first():
    assert Engine(small_artifact()).backend == "onnxruntime"


def test_bad_options():
    with pytest.raises(OptionError, match="unknown backend 'tpu'; choose from auto, onnxruntime, numpy"):
        Engine(small_artifact(), backend="tpu")
    with pytest.raises(OptionError, match="threads must be at least 1; got 0"):
        Engine(small_artifact(), threads=0)
