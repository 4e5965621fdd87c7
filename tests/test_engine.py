"""Engines against the NumPy reference."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from graphs import artifact_of, map_artifact, random_graph, random_images, small_artifact
from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.engine import BACKENDS, Engine, build
from netsuke.errors import GraphError, MissingExtra, OptionError, UnsupportedOp

FLOAT_ONLY = {"openvino"}
PEERS = {"openvino": "openvino", "litert": "ai_edge_litert"}  # and the module of each
needs_cc = pytest.mark.skipif(
    not any(map(shutil.which, ("clang", "gcc", "cc"))), reason="needs a C compiler: apt install gcc"
)


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
            UnsupportedOp, match=f"{backend} takes no integer graphs.*choose native, onnxruntime or numpy"
        ):
            Engine(artifact, backend=backend)
        return
    if not integer and backend == "native":
        with pytest.raises(UnsupportedOp, match="take integer graphs: quantise the model first"):
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


MODELS = {
    "separable": {"width": 40},
    "lenet5": {},
    "resnet_small": {"width": 8, "depth": 1, "stem": 2, "attention": "se"},
    "mobilenet_v3_small": {"width": 0.25, "depth": 0.3, "dropout": 0.0},
}


@needs_cc
@pytest.mark.parametrize("model", MODELS)
def test_native_meets_the_reference_on_models(model):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'netsuke[lab]'")
    artifact = quantised(model, MODELS[model])
    images = random_images(artifact.graph, 30)
    want = artifact.logits(images)
    assert len(np.unique(want, axis=0)) > 20, "or the test sees nothing"
    run = Engine(artifact, backend="native").run
    np.testing.assert_array_equal(run(images), want)
    np.testing.assert_array_equal(run(images[5:6]), want[5:6])


def quantised(name: str, options: dict) -> Artifact:
    """An untrained network in 8 bits, its batch norms set by noise so that something comes out."""
    import torch

    from netsuke.data import Dataset, Split
    from netsuke.lab.lower import lower
    from netsuke.lab.models import build as model
    from netsuke.lab.steps.quantize import quantize

    shape, classes = (1, 28, 28), tuple("0123456789")
    network = model(name, shape, len(classes), **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(64, *shape))
    images = np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8)
    split = Split(images, np.arange(64) % 10)
    noise = Dataset("noise", classes, split, split, split, "noise", "none", "any")
    return Artifact(*lower(quantize(network.eval(), noise), shape), {"classes": list(classes)})


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
    monkeypatch.setenv("NETSUKE_NATIVE", "0")
    monkeypatch.setitem(sys.modules, missing, None)  # an import of it now fails
    made = Engine(small_artifact())
    assert made.backend == "numpy"
    assert [note.partition(":")[0] for note in made.notes] == ["native", "onnxruntime"]
    with pytest.raises(MissingExtra, match=r"pip install 'netsuke\[onnx\]'"):
        Engine(small_artifact(), backend="onnxruntime")


@needs_cc
def test_auto_takes_the_first_that_can():
    made = Engine(small_artifact())
    assert (made.backend, made.notes) == ("native", ())
    other = Engine(small_artifact(integer=False))
    assert other.backend in ("onnxruntime", "numpy")
    assert other.notes[0] == "native: the fast C kernels take integer graphs: quantise the model first"


def test_no_compiler_is_one_clear_note(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    made = Engine(small_artifact())
    assert made.backend in ("onnxruntime", "numpy")
    assert made.notes[0] == "native: no C compiler: install gcc or clang (apt install gcc)"
    with pytest.raises(MissingExtra, match="install gcc or clang"):
        Engine(small_artifact(), backend="native")
    monkeypatch.setenv("CC", "no-such-cc")
    with pytest.raises(MissingExtra, match=r"no C compiler 'no-such-cc' \(\$CC\)"):
        Engine(small_artifact(), backend="native")


def exact(made: Engine, artifact: Artifact, n: int = 5) -> bool:
    images = random_images(artifact.graph, n)
    return bool((made.run(images) == artifact.logits(images)).all())


def _in_a_process(folder: str) -> bool:
    os.environ["XDG_CACHE_HOME"] = folder
    artifact = small_artifact()
    return exact(Engine(artifact, backend="native"), artifact)


@needs_cc
def test_processes_that_compile_at_once_share_one_file(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.map(_in_a_process, [str(tmp_path)] * 3))
    assert len(list((tmp_path / "netsuke" / "engine").iterdir())) == 1, "no temporary file may stay"


@needs_cc
def test_the_cache_is_used_and_a_damaged_file_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    artifact = small_artifact()
    Engine(artifact, backend="native")
    (file,) = (tmp_path / "netsuke" / "engine").iterdir()
    whole = file.read_bytes()
    # Never in place: this process has it mapped.
    for damaged in (whole[: len(whole) // 2], b"", whole[:-40] + bytes(40)):
        file.unlink()
        file.write_bytes(damaged)
        assert exact(Engine(artifact, backend="native"), artifact)
        assert len(file.read_bytes()) == len(whole)
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert exact(Engine(artifact, backend="native"), artifact)
    other = Artifact(
        artifact.graph,
        {name: -array if name.endswith("weight") else array for name, array in artifact.tensors.items()},
        artifact.manifest,
    )
    assert exact(Engine(other, backend="native"), other), "networks of one shape share their code"


@needs_cc
def test_without_a_cache_it_compiles_for_itself(monkeypatch, tmp_path):
    (tmp_path / "netsuke").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    artifact = small_artifact()
    assert exact(Engine(artifact, backend="native"), artifact)


@needs_cc
def test_without_headers_it_runs_through_ctypes(monkeypatch):
    monkeypatch.setattr(build, "python_flags", lambda: ())
    artifact = small_artifact()
    made = Engine(artifact, backend="native")
    assert exact(made, artifact, 30)
    with pytest.raises(GraphError, match="needs uint8 images"):
        made.run(np.zeros((1, 1, 12, 9), np.uint8))


@needs_cc
def test_any_memory_order_will_do():
    artifact = small_artifact()
    made, images = Engine(artifact, backend="native"), random_images(artifact.graph, 8)
    turned = np.ascontiguousarray(images[..., ::-1])[..., ::-1]
    for given in (turned, np.asfortranarray(images), images[::2], images.view(np.memmap)):
        np.testing.assert_array_equal(made.run(given), artifact.logits(np.ascontiguousarray(given)))
    with pytest.raises(TypeError):
        made._run(images, images)  # type: ignore[call-arg]


@needs_cc
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_may_share_an_engine(threads):
    artifact = Artifact.load(zoo.path("digit-small"))
    made = Engine(artifact, backend="native", threads=threads)
    images = random_images(artifact.graph, 64)
    want = artifact.logits(images)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(made.run, images[: 1 + i % 64]) for i in range(200)]
        for i, job in enumerate(jobs):
            np.testing.assert_array_equal(job.result(), want[: 1 + i % 64])


@needs_cc
def test_a_compiler_that_fails_is_passed_over(monkeypatch, tmp_path):
    real = build.compiler().path
    fake = tmp_path / "cc"
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *-dM*) exec {real} "$@";; esac\necho "error: no room" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = Engine(small_artifact())
    assert made.backend != "native"
    assert "cannot compile the network: error: no room" in made.notes[0]
    assert not list((tmp_path / "netsuke" / "engine").iterdir())


def test_bad_options():
    with pytest.raises(
        OptionError, match="unknown backend 'tpu'; choose from auto, packaged, native, onnxruntime, numpy"
    ):
        Engine(small_artifact(), backend="tpu")
    with pytest.raises(OptionError, match="threads must be at least 1; got 0"):
        Engine(small_artifact(), threads=0)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_backend_gives_maps(backend, integer, threads):
    artifact = map_artifact(integer=integer)
    if (backend == "native" and not integer) or (integer and backend in FLOAT_ONLY):
        pytest.skip("does not take this kind of graph")
    run = engine(backend, artifact, threads).run
    for n in (50, 1, 0):
        images = random_images(artifact.graph, n)
        got, want = run(images), artifact.logits(images)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=0 if integer else 1e-4)
