"""Confidence in whole numbers: near the softmax of the best two, and the same in Python, C and WebAssembly."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import map_artifact, small_artifact
from netsuke.artifact import Artifact
from netsuke.confidence import confidence
from netsuke.errors import OptionError
from netsuke.export import c, wasm
from netsuke.graph import Graph, Op

I32 = np.iinfo(np.int32)
ODD = [  # logits whose gap needs more than 31 bits, level ones, and all below 0
    [I32.max, I32.min, 0, 1], [I32.min, I32.max, I32.min, I32.min], [5, 5, 5, 5], [-9, -7, -8, -7],
    [0, 1, 2, 3], [3, 2, 1, 0], [I32.min, I32.min, I32.min, I32.min + 1],
]  # fmt: skip


def model(scale: float, classes: int = 4) -> Artifact:
    layers = (
        Op("halve", "half", ("input",)),
        Op("flatten", "flat", ("half",)),
        Op("qlogits", "out", ("flat",), {"bits": 8, "scale": scale}),
    )
    weights = {
        "out.weight": np.random.default_rng(0).integers(-7, 8, (classes, 16), np.int8),
        "out.bias": np.zeros(classes, np.int32),
    }
    manifest = {"classes": [str(k) for k in range(classes)]}
    return Artifact(Graph((1, 4, 4), layers), weights, manifest)


def some_logits(scale: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    near = rng.normal(0, 4 / scale, (400, 4)).clip(I32.min, I32.max)
    return np.concatenate([np.array(ODD), near, rng.integers(-5, 6, (100, 4))]).astype(np.int32)


@given(st.floats(1e-5, 100), st.integers(0, 2**31 - 1))
def test_is_the_softmax_of_the_best_two_to_a_per_mille(scale: float, gap: int) -> None:
    logits = np.array([[0, gap, -gap]])
    want = 1000 / (1 + np.exp(-min(gap * scale, 700)))
    got = confidence(model(scale).graph).per_mille(logits)[0]
    assert abs(got - want) <= 1.6
    assert 500 <= got <= 1000


@pytest.mark.parametrize("scale", [1e-5, 0.0007, 0.02, 0.25, 3.0])
def test_grows_with_the_gap(scale: float) -> None:
    gaps = np.unique(np.geomspace(1, 2**31 - 2, 3000).astype(np.int64))
    values = confidence(model(scale).graph).per_mille(np.stack([gaps, np.zeros_like(gaps)], 1))
    assert (np.diff(values) >= 0).all()
    assert values[-1] == 1000


@pytest.mark.parametrize("scale", [1e-5, 0.0007, 0.02, 0.25, 3.0])
def test_c_agrees(scale: float, tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc: apt install gcc")
    artifact = model(scale)
    path = c.write(artifact, tmp_path, "m", confidence=True)
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
    flags += ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    c.compiled(path, tmp_path / "m.so", "gcc", flags)
    call = ctypes.CDLL(str(tmp_path / "m.so")).m_confidence
    call.argtypes = (ctypes.c_void_p,)
    logits = some_logits(scale)
    assert [call(row.ctypes.data) for row in logits] == confidence(artifact.graph).per_mille(logits).tolist()


@pytest.mark.skipif(
    not all(map(shutil.which, ("clang", "wasm-ld", "node"))), reason="needs clang, lld and nodejs"
)
def test_wasm_agrees(tmp_path: Path) -> None:
    artifact = model(0.02)
    logits = some_logits(0.02)[:60]
    script = wasm.write(artifact, tmp_path, "m", confidence=True)
    for simd in (False, True):
        with wasm.Node(script, wasm.module(script, simd)) as node:
            got = [node.per_mille(row) for row in logits]
        assert got == confidence(artifact.graph).per_mille(logits).tolist()


def test_one_class_is_certain(tmp_path: Path) -> None:
    artifact = model(0.02, classes=1)
    assert confidence(artifact.graph).per_mille(np.array([[3], [-3]])).tolist() == [1000, 1000]
    if shutil.which("gcc"):
        path = c.write(artifact, tmp_path, "m", confidence=True)
        c.compiled(path, tmp_path / "m.so", "gcc", ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"])
        assert ctypes.CDLL(str(tmp_path / "m.so")).m_confidence(ctypes.byref(ctypes.c_int32(3))) == 1000


def test_needs_a_scale() -> None:
    graph = small_artifact().graph
    headless = Artifact(Graph(graph.input_shape, graph.ops[:1]), {}, {"classes": []})
    with pytest.raises(OptionError, match="confidence needs logits with a scale; the last op is"):
        confidence(headless.graph)


def test_a_map_has_none(tmp_path):
    artifact = map_artifact()
    with pytest.raises(OptionError, match=r"needs logits \[n, classes\]; got \[2, 5, 6, 5\]"):
        confidence(artifact.graph).per_mille(np.zeros((2, 5, 6, 5), np.int32))
    with pytest.raises(OptionError, match=r"no confidence: the model gives a map \[5, 6, 5\]"):
        c.write(artifact, tmp_path, confidence=True)
