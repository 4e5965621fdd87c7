"""benchmarks/peers.py: every backend in its turn, ratios to ONNX Runtime's float, reasons of those that do not run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from graphs import small_artifact
from netsuke.engine import BACKENDS

FILE = Path(__file__).parents[1] / "benchmarks" / "peers.py"


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_row_a_backend_and_form(peers: ModuleType) -> None:
    forms = {"float": small_artifact(integer=False), "int8": small_artifact()}
    rows, absent = peers.measure("x", forms, 2, 0.001)
    both = [(row["form"], row["backend"]) for row in rows + absent]
    assert sorted(both) == sorted((form, name) for form in forms for name in BACKENDS)
    assert all(row["reason"] for row in absent)
    for row in rows:
        assert 0 < row["min_us"] <= row["latency_us"]
        assert row["images_per_s"] > 0
        if (row["form"], row["backend"]) == ("float", "onnxruntime"):
            assert row["ratio"] == 1
    found = {
        "hardware": "h",
        "load_1min": 0.0,
        "versions": peers.versions(),
        "results": rows,
        "absent": absent,
    }
    assert json.loads(json.dumps(found)) == found
    assert peers.table(found).count("\n| x |") == len(rows)


def test_the_first_of_a_round_moves_on(peers: ModuleType) -> None:
    keys = [key for key, _ in peers.turns({("float", name): np.asarray for name in "abc"}, 3)]
    assert "".join(name for _, name in keys) == "abcbcacab"


def test_an_engine_that_differs_is_not_timed(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __init__(self, artifact: object, *, backend: str):
            pass

        def run(self, images: np.ndarray) -> np.ndarray:
            return np.zeros((len(images), 3), np.float32)

    monkeypatch.setattr(peers, "Engine", Wrong)
    with pytest.raises(AssertionError):
        peers.engines({"float": small_artifact(integer=False)})
