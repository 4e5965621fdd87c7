"""Rows, groups, the table and the cache of a comparison, on models that need no training."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from graphs import random_images, small_artifact
from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.errors import OptionError
from netsuke.measure import clock, comparison
from netsuke.measure.cache import Cache
from netsuke.measure.runs import Run, grouped

RECIPE = {"verb": "train", "model": "x", "options": {"width": 3}, "training": {"epochs": 2, "threads": 1}}


def trained(seed: int, *, integer: bool = False, **changes: Any) -> Artifact:
    """The small network with other weights for another seed, and a manifest as `netsuke train` writes it."""
    artifact = small_artifact(integer=integer)
    tensors = {key: value.copy() for key, value in artifact.tensors.items()}
    last = artifact.graph.ops[-1].tensor("bias")
    tensors[last] = tensors[last] + tensors[last].dtype.type(seed)
    history = [{"epoch": e, "loss": 1.0 / e, "seconds": 2.0 + seed} for e in (1, 2)]
    recipe = RECIPE | {"training": {**RECIPE["training"], "seed": seed}}
    manifest = {"recipe": recipe, "seed": seed, "history": history, "data_hash": "d", "data": "noise"}
    return Artifact(artifact.graph, tensors, artifact.manifest | manifest | changes)


def saved(folder: Path, name: str, artifact: Artifact) -> Run:
    path = folder / f"{name}.netsuke"
    path.parent.mkdir(parents=True, exist_ok=True)
    artifact.save(path)
    return Run(path, Artifact.load(path))


@pytest.fixture
def data() -> Dataset:
    artifact = small_artifact()
    images = random_images(artifact.graph, 40)
    test = Split(images, np.arange(40) % 3)
    empty = Split(images[:0], np.empty(0, np.int64))
    return Dataset("noise", artifact.classes, empty, empty, test, "d", "none", "any")


def document(data: Dataset, groups: dict[str, list[Run]]) -> dict[str, Any]:
    rows = []
    for name, runs in groups.items():
        measured = [comparison.figures(run.artifact, data.test, data.classes) for run in runs]
        times = clock.times(runs[0].path, ["numpy"], data.test.images, 0.01)
        rows.append(comparison.network_row(name, runs, measured) | times)
    return comparison.document(data, rows)


def test_row_is_the_mean_over_seeds(tmp_path: Path, data: Dataset) -> None:
    runs = [saved(tmp_path, f"x-seed{seed}", trained(seed)) for seed in (0, 1, 2)]
    groups = grouped(runs)
    assert list(groups) == ["x"]
    got = document(data, groups)
    (row,) = got["models"]
    right = [float((r.artifact.logits(data.test.images).argmax(1) == data.test.labels).mean()) for r in runs]
    assert [run["accuracy"] for run in row["runs"]] == pytest.approx(right)
    assert row["accuracy"] == {
        "mean": pytest.approx(mean(right)),
        "stdev": pytest.approx(stdev(right)),
        "n": 3,
    }
    assert row["accuracy_se"] == pytest.approx((mean(right) * (1 - mean(right)) / 40) ** 0.5)
    assert row["train_s"] == {"mean": 6.0, "stdev": 2.0, "n": 3}
    assert (row["model"], row["options"], row["bits"]) == ("x", {"width": 3}, None)
    assert row["size_bytes"] == runs[0].artifact.size_bytes
    assert row["file_bytes"] == runs[0].path.stat().st_size
    assert row["history"] == runs[0].artifact.manifest["history"]
    assert np.sum(row["confusion"]) == 40
    assert row["backend"] == "numpy"
    assert row["latency_us"] == row["backends"]["numpy"]["latency_us"] > 0
    assert row["load_ms"] > 0
    assert got["seeds"] == [0, 1, 2]
    assert "Horowitz" in got["energy"]["source"]
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_surest_mistakes_come_with_their_pictures(data: Dataset) -> None:
    scores = np.zeros((40, 3))
    scores[:, 0] = np.arange(40) / 10
    got = comparison.judged(scores, data.test, data.classes)["confused"]
    wrong = [i for i in range(39, -1, -1) if i % 3][: comparison.CONFUSED]
    assert [row["index"] for row in got] == wrong
    assert [row["confidence"] for row in got] == sorted((row["confidence"] for row in got), reverse=True)
    for row in got:
        assert (row["label"], row["said"]) == (data.classes[row["index"] % 3], data.classes[0])
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(row["image"]), np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(picture, data.test.images[row["index"]][0])


def test_pictures_keep_their_colours() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 4), np.uint8)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(comparison.png(image)), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown[..., ::-1].transpose(2, 0, 1), image)


def test_only_runs_that_differ_by_seed_share_a_row(tmp_path: Path) -> None:
    longer = RECIPE | {"training": {"epochs": 9, "seed": 3}}
    runs = [
        saved(tmp_path, "a-seed0", trained(0)),
        saved(tmp_path, "a-seed1", trained(1)),
        saved(tmp_path, "a-seed3", trained(3, recipe=longer)),
        saved(tmp_path, "twin", trained(4).with_manifest(seed=1)),
        saved(tmp_path, "b", trained(5, recipe=None)),
        saved(tmp_path, "c", trained(6, recipe=None)),
        saved(tmp_path, "int8", trained(7, integer=True)),
        saved(tmp_path / "d", "seed-0", trained(8, data_hash="e")),
        saved(tmp_path / "d", "seed-1", trained(9, data_hash="e")),
    ]
    groups = grouped(runs)
    assert [len(members) for members in groups.values()] == [2, 1, 1, 1, 1, 1, 2]
    assert [r.path.stem for r in groups["a"]] == ["a-seed0", "a-seed1"]
    assert str(runs[2].path) in groups, "a name of its own"
    assert [r.seed for r in groups["d"]] == [8, 9]
    assert comparison.bits(groups["int8"][0].artifact)


def test_the_same_model_twice_is_refused(tmp_path: Path) -> None:
    runs = [saved(tmp_path, name, trained(0)) for name in ("a", "copy")]
    with pytest.raises(OptionError, match=r"copy\.netsuke holds the same model as .*a\.netsuke"):
        grouped(runs)


@pytest.mark.parametrize(
    ("history", "rows", "seconds"),
    [
        (None, [], None),
        ("long", [], None),
        ([{"epoch": 1, "note": "x"}, 7], [{"epoch": 1}], None),
        ({"teacher": [{"seconds": 3}], "student": [{"seconds": 4}]}, [], 7),
    ],
)
def test_any_history_is_read(history: Any, rows: list[Any], seconds: float | None) -> None:
    run = Run(Path("x.netsuke"), trained(0, history=history))
    assert run.history == rows
    assert run.train_s == seconds


def test_csv_holds_the_table(tmp_path: Path, data: Dataset) -> None:
    groups = grouped([saved(tmp_path, "a", trained(0)), saved(tmp_path, 'b, "2"', trained(1, recipe=None))])
    got = document(data, groups)
    got["models"][1]["backends"]["openvino"] = {"missing": "not installed"}
    comparison.write_csv(got, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows} == {"a", 'b, "2"'}
    for row, model in zip(rows, got["models"], strict=True):
        assert row["name"] == model["name"]
        assert float(row["accuracy_mean"]) == pytest.approx(model["accuracy"]["mean"])
        assert float(row["energy_uj"]) == pytest.approx(model["energy_uj"])
        assert int(row["size_bytes"]) == model["size_bytes"]
        assert float(row["numpy_latency_us"]) == pytest.approx(model["latency_us"])
        assert row["openvino_latency_us"] == ""
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_times_say_why_a_backend_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(tmp_path, "a", trained(0))
    images = random_images(run.artifact.graph, 4)
    got = clock.times(run.path, ["no-such", "numpy"], images, 0.01)
    assert "no-such" in got["backends"]["no-such"]["missing"]
    assert got["backend"] == "numpy"
    monkeypatch.setattr(clock, "LONGEST", 0.0)
    got = clock.times(run.path, ["numpy"], images, 0.01)
    assert "too slow to time" in got["backends"]["numpy"]["missing"]
    assert got["backend"] is got["latency_us"] is None


def test_cache_answers_once(tmp_path: Path) -> None:
    calls = SimpleNamespace(n=0)

    def make() -> dict[str, Any]:
        calls.n += 1
        return {"n": calls.n}

    cache = Cache(tmp_path / "new")
    assert [cache.get("k", [1], make), cache.get("k", [1], make)] == [{"n": 1}, {"n": 1}]
    assert cache.get("k", [2], make) == {"n": 2}
    for path in (tmp_path / "new").iterdir():
        path.write_text("{", encoding="utf-8")
    assert cache.get("k", [1], make) == {"n": 3}, "a damaged file is made anew"
    assert [Cache(None).get("k", [1], make), Cache(None).get("k", [1], make)] == [{"n": 4}, {"n": 5}]
