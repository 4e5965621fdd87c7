"""The benchmarks beside other software: who is measured, against what, and the reasons of those that do not run.

peers.py times runtimes, compression.py compares libraries that make networks smaller.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphs import small_artifact
from netsuke.data import Split, load
from netsuke.engine import BACKENDS
from netsuke.errors import OptionError
from netsuke.export.onnx import encode

FOLDER = Path(__file__).parents[1] / "benchmarks"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    return loaded("peers")


@pytest.fixture
def compression(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)  # it imports the files beside it
    return loaded("compression")


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


def images(shape: tuple[int, int, int], classes: int, count: int = 8) -> Split:
    rng = np.random.default_rng(3)
    return Split(rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, classes, count))


def entrant(name: str, run: Any, missing: str = "") -> SimpleNamespace:
    return SimpleNamespace(name=name, run=run, missing=missing)


def shipped(artifact: Any) -> Any:
    return lambda case: lambda: SimpleNamespace(onnx=encode(artifact), artifact=artifact, macs=7)


def test_a_peer_that_is_missing_or_fails_leaves_the_others_alone(compression: ModuleType) -> None:
    split = images((1, 12, 10), 3)
    case = SimpleNamespace(data=SimpleNamespace(val=split, test=split))

    def fails(case: Any) -> Any:
        raise IndexError("no such channel\nand more")

    entrants = [
        entrant("float", shipped(small_artifact(integer=False))),
        entrant("absent", None, "not installed: pip install x"),
        entrant("broken", fails),
        entrant("int8", shipped(small_artifact())),
    ]
    rows, absent = compression.measure(entrants, case, 2, 0.001, lambda name: None)
    assert absent == {
        "absent": "not installed: pip install x",
        "broken": "failed: IndexError: no such channel",
    }
    assert list(rows) == ["float", "int8"]
    assert rows["float"]["ratio"] == 1
    for row, artifact in zip(rows.values(), (small_artifact(integer=False), small_artifact()), strict=True):
        right = artifact.logits(split.images).argmax(1) == split.labels
        assert row["accuracy"] == right.mean()
        assert row["onnx_bytes"] == len(encode(artifact))
        assert (row["size_bytes"], row["macs"]) == (artifact.size_bytes, 7)
        assert row["file_bytes"] > row["size_bytes"] >= row["encoded_bytes"] > 0
        assert row["latency_us"] > 0


def test_a_table_of_all_rows_and_reasons(compression: ModuleType) -> None:
    runs = [
        {
            "seed": seed,
            "accuracy": right,
            "onnx_bytes": 2000,
            "macs": None,
            "ratio": 1.5,
            "seconds": 2.0,
            "export_s": 1.0,
        }
        for seed, right in enumerate((0.97, 0.99))
    ]
    found = {
        "hardware": "h", "threads": 1, "load_1min": [0.1, 0.2], "versions": {"nncf": "3"},
        "rows": [{"name": "n", "task": "QAT", "library": "nncf", "summary": compression.summary(runs), "runs": runs}],
        "absent": {"prune: x": "not installed: pip install x"},
    }  # fmt: skip
    assert found["rows"][0]["summary"]["accuracy"] == {
        "mean": 0.98,
        "stdev": pytest.approx(0.0141, abs=1e-4),
        "n": 2,
    }
    assert "macs" not in found["rows"][0]["summary"]
    text = compression.table(found)
    assert "| QAT | nncf | 98.00 ± 1.41 | 2,000 | – | – | – | 1.50 ± 0.00 | 2.0 | 1.0 |" in text
    assert text.startswith("h; 1 thread; load 0.1, 0.2; nncf 3\n")
    assert text.endswith("prune: x: not installed: pip install x")


def test_a_killed_run_goes_on_only_with_its_own_budget(compression: ModuleType, tmp_path: Path) -> None:
    chosen = argparse.Namespace(
        data="digits",
        images=0,
        epochs=1,
        tuning=1,
        prune=0.5,
        calibration=9,
        rounds=1,
        tasks="",
        json=tmp_path / "found.json",
    )
    found = compression.begun(chosen)
    assert found["seeds"] == found["rows"] == []
    compression.write(chosen.json, found | {"seeds": [4]})
    assert compression.begun(chosen)["seeds"] == [4]
    chosen.tuning = 2
    assert compression.begun(chosen)["seeds"] == []


def test_tasks_leave_float_to_compare_with(compression: ModuleType) -> None:
    rows = [SimpleNamespace(task=task) for task in ("float", "prune", "QAT")]
    assert compression.meant(rows, "") == rows
    assert compression.meant(rows, "QAT") == [rows[0], rows[2]]
    with pytest.raises(OptionError, match="did you mean 'prune'"):
        compression.meant(rows, "prunes")


def test_training_images_are_drawn_evenly(compression: ModuleType) -> None:
    digits = load("digits")
    few = compression.fewer(digits, 100)
    assert len(few.train) == 100
    np.testing.assert_array_equal(few.train.images[[0, -1]], digits.train.images[[0, -1]])
    assert (
        len(compression.fewer(digits, 0).train)
        == len(compression.fewer(digits, 10**6).train)
        == len(digits.train)
    )


def test_what_needs_no_peer_runs_from_the_same_network(compression: ModuleType) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from compressors import ENTRANTS

    digits = compression.fewer(load("digits"), 200)
    chosen = argparse.Namespace(epochs=1, tuning=1, prune=0.5, calibration=50)
    case, _ = compression.trained(digits, chosen, 0)
    alone = [e for e in ENTRANTS if not e.packages]
    rows, absent = compression.measure(alone, case, 1, 0.001, lambda name: None)
    assert not absent
    float_, ours = rows["float: torch, as exported"], rows["float: netsuke, as exported"]
    assert float_["accuracy"] == ours["accuracy"]
    assert rows["prune: netsuke, channels, Taylor, global"]["macs"] <= 0.5 * ours["macs"]
    eight = rows["8 bits after training: netsuke, quantize"]
    assert rows["QAT: netsuke, 4 bits"]["size_bytes"] < 0.6 * eight["size_bytes"] < 0.2 * ours["size_bytes"]
    assert (
        rows["8 bits after training: ONNX Runtime, quantize_static, QDQ"]["onnx_bytes"]
        < 0.5 * float_["onnx_bytes"]
    )


def test_missing_packages_are_named(compression: ModuleType) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from compressors import Entrant

    made = Entrant("t", "l", "h", lambda case: None, ("numpy", "no-such-package", "nor-this"))
    assert made.missing == "not installed: pip install no-such-package nor-this"
    assert Entrant("t", "l", "h", lambda case: None, ("numpy",)).missing == ""
