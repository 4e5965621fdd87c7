"""Tables come from records, and records hold what a rerun needs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from statistics import mean, stdev

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted((ROOT / "records").glob("*/record.json"))
KINDS = {path: json.loads(path.read_text(encoding="utf-8")).get("kind", "") for path in RECORDS}
COMPARISONS = [path for path, kind in KINDS.items() if "comparison" in kind]
BENCHMARKS = [path for path, kind in KINDS.items() if kind == "benchmark"]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/peers.md", "docs/wasm.md"])
def test_tables_are_those_of_the_records(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run python benchmarks/tables.py"
    assert "<!-- table:" in text


@pytest.mark.parametrize(
    "path", [p for p in RECORDS if p not in COMPARISONS + BENCHMARKS], ids=lambda p: p.parent.name
)
def test_record_is_complete_and_its_summary_is_that_of_its_runs(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert "{seed}" in record["command"]
    assert "{out}" in record["command"]
    assert [str(seed) for seed in record["seeds"]] == list(record["results"])
    assert record["hardware"]
    for key, figure in record["summary"].items():
        values = [run[key] for run in record["results"].values()]
        assert figure["n"] == len(values)
        assert figure["mean"] == pytest.approx(mean(values))
        assert figure["stdev"] == pytest.approx(stdev(values))


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda p: p.parent.name)
def test_comparison_is_complete_and_its_means_are_those_of_its_runs(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert "{work}" in record["command"]
    assert record["hardware"] == record["document"]["hardware"]
    assert record["document"]["models"]
    for row in record["document"]["models"]:
        accuracies = [run["accuracy"] for run in row["runs"]]
        assert row["accuracy"]["n"] == len(accuracies)
        assert row["accuracy"]["mean"] == pytest.approx(mean(accuracies))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda p: p.parent.name)
def test_benchmark_names_its_command_and_its_means_are_those_of_its_runs(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    python, script = record["command"].split()[:2]
    assert python == "python"
    assert (ROOT / script).is_file()
    document = record["document"]
    assert document["hardware"]
    for row in document.get("artifacts", ()):  # builds that must be equal are
        exact = [check for name, check in row["checks"].items() if "LiteRT" not in name]
        assert not any(check.get("differ") or "broken" in check for check in exact)
    for row in document.get("graphs", {}).get("checks", {}).values():
        assert (row["differ"], row["failures"]) == (0, [])
    for net in document.get("nets", ()):  # clocks have no seeds
        own = net["rows"][0]
        assert (own["engine"], own["faster"], own["batch_faster"]) == ("native int8", 1, 1)
        assert all(row["n"] > 20 for row in net["rows"])
    for row in document.get("results", ()):  # of WebAssembly
        assert all(
            ratio["n"] > 20 and ratio["p5"] <= ratio["median"] <= ratio["p95"]
            for ratio in row["ratio"].values()
        )
        assert row["equal_logits_on"] == "mnist"
    for row in document.get("rows", ()):
        assert [run["seed"] for run in row["runs"]] == document["seeds"]
        for key, figure in row["summary"].items():
            values = [run[key] for run in row["runs"]]
            assert figure["n"] == len(values)
            assert figure["mean"] == pytest.approx(mean(values))
            assert figure["stdev"] == pytest.approx(stdev(values))
