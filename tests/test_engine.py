"""Engines against the NumPy reference."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from graphs import artifact_of, random_graph, random_images, small_artifact
from netsuke.artifact import Artifact
from netsuke.engine import BACKENDS, Engine
from netsuke.errors import GraphError, MissingExtra, OptionError, UnsupportedOp

FLOAT_ONLY = {"openvino"}
PEERS = {"openvino": "openvino", "litert": "ai_edge_litert"}  # and the module of each


def engine(backend: str, artifact: Artifact, threads: int = 1) -> Engine:
    """An engine, or a skip that tells what to install."""
    try:
        return Engine(artifact, backend=backend, threads=threads)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("integer", [True, False])
def test_every_backend_meets_the_reference(backend, integer):
    artifact = small_artifact(integer=integer)
    if integer and backend in FLOAT_ONLY:
        with pytest.raises(
            UnsupportedOp, match=f"{backend} takes no integer graphs.*choose onnxruntime or numpy"
        ):
            Engine(artifact, backend=backend)
        return
    run = engine(backend, artifact, threads=2).run
    for n in (7, 1, 300, 1):
        images = random_images(artifact.graph, n)
        images.flags.writeable = False  # as the images of a data set may be
        got, want = run(images), artifact.logits(images)
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, atol=0 if integer else 1e-4)
    assert not np.shares_memory(run(images), run(images)), "logits are the caller's to keep"


@pytest.mark.parametrize("backend", PEERS)
@pytest.mark.parametrize("seed", range(8))
def test_peers_meet_the_reference_on_random_graphs(backend, seed):
    artifact = artifact_of(random_graph(seed, integer=False))
    images = random_images(artifact.graph, 3)
    np.testing.assert_allclose(
        engine(backend, artifact).run(images), artifact.logits(images), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_images_are_one_error_everywhere(backend):
    made = engine(backend, small_artifact(integer=backend not in FLOAT_ONLY))
    assert made.backend == backend
    for images in (np.zeros((1, 1, 12, 9), np.uint8), np.zeros((1, 1, 12, 10), np.float32)):
        with pytest.raises(GraphError, match="needs uint8 images"):
            made.run(images)
    assert made.run(np.zeros((0, 1, 12, 10), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize(("backend", "module"), PEERS.items())
def test_a_missing_peer_is_named(backend, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    extra = {"openvino": "openvino", "litert": "tflite"}[backend]
    with pytest.raises(MissingExtra, match=rf"pip install 'netsuke\[{extra}\]'"):
        Engine(small_artifact(integer=False), backend=backend)


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
