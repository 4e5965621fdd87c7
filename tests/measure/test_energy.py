"""The estimate, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from graphs import artifact_of, random_graph
from netsuke.artifact import Artifact
from netsuke.graph import Graph, Op
from netsuke.measure.energy import byte_pj, energy


def dense(kind: str, dtype: type, attrs: dict[str, object]) -> Artifact:
    """Four pixels to two classes: eight multiplications."""
    first = Op("halve", "in", ("input",))
    if kind == "dense":
        first = Op("normalize", "in", ("input",), {"scales": [1.0], "offsets": [0.0]})
    ops = (first, Op("flatten", "flat", ("in",)), Op(kind, "out", ("flat",), attrs))
    bias = np.float32 if dtype is np.float32 else np.int32
    weight = (
        np.arange(8).reshape(2, 4).astype(dtype)
    )  # all different: few values would be stored as a codebook
    tensors = {"out.weight": weight, "out.bias": np.ones(2, bias)}
    return Artifact(Graph((1, 2, 2), ops), tensors, {"classes": ["a", "b"]})


def test_integers_by_hand() -> None:
    got = energy(dense("qlogits", np.int8, {"bits": 8, "scale": 1.0}))
    assert got["arithmetic_uj"] == pytest.approx(8 * 0.3e-6)
    assert got["weights_uj"] == pytest.approx((8 + 2) * 10 / 8 * 1e-6)  # ten bytes in the smallest memory
    assert got["moved_bytes"] == 4 + 2 * 4  # the pixels are only looked at; the logits are words
    assert got["activations_uj"] == pytest.approx(12 * 10 / 8 * 1e-6)
    assert got["energy_uj"] == pytest.approx(2.4e-6 + 12.5e-6 + 15e-6)


def test_floats_by_hand() -> None:
    got = energy(dense("dense", np.float32, {}))
    assert got["arithmetic_uj"] == pytest.approx(8 * 4.6e-6)
    assert got["weights_uj"] == pytest.approx((8 + 2) * 4 * 10 / 8 * 1e-6)
    assert got["moved_bytes"] == (4 + 4 * 4) + (4 * 4 + 2 * 4)  # pixels to floats, floats to logits


def test_an_activation_function_moves_nothing() -> None:
    plain = dense("dense", np.float32, {})
    ops = plain.graph.ops
    relu = (ops[0], Op("relu", "relu", ("in",)), Op("flatten", "flat", ("relu",)), ops[2])
    with_relu = Artifact(Graph((1, 2, 2), relu), plain.tensors, plain.manifest)
    assert energy(with_relu)["moved_bytes"] == energy(plain)["moved_bytes"]


@pytest.mark.parametrize(
    ("capacity", "pj"),
    [(0, 10), (8192, 10), (8193, 20), (32768, 20), (32769, 100), (1 << 20, 100), ((1 << 20) + 1, 1950)],
)
def test_memories(capacity: int, pj: float) -> None:
    assert byte_pj(capacity) == pj / 8


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_parts_add_up_on_any_graph(seed: int, integer: bool) -> None:
    got = energy(artifact_of(random_graph(seed, integer=integer)))
    parts = [got[key] for key in ("arithmetic_uj", "weights_uj", "activations_uj")]
    assert all(part >= 0 for part in parts)
    assert got["energy_uj"] == pytest.approx(sum(parts))
    assert got["moved_bytes"] > 0
